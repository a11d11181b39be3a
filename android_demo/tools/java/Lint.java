import java.io.File;
import java.io.FileInputStream;
import java.util.List;
import java.util.Set;
import org.codehaus.mojo.animal_sniffer.SignatureChecker;
import org.codehaus.mojo.animal_sniffer.logging.PrintWriterLogger;

/** Names each use of an API that the oldest Android lacks. Takes: signatures, then jars. Classes and methods with the annotation Guarded are passed over. */
public final class Lint {
    public static void main(String[] arguments) throws Exception {
        Set<String> own = Set.of("org.edgemrl.*", "kotlin.*", "org.jetbrains.*", "ai.onnxruntime.*", "org.sqlite.*", "org.slf4j.*");
        boolean broken = false;
        try (FileInputStream signatures = new FileInputStream(arguments[0])) {
            SignatureChecker checker = new SignatureChecker(signatures, own, new PrintWriterLogger(System.out));
            checker.setSourcePath(List.of());
            checker.setAnnotationTypes(List.of("org.edgemrl.android.Guarded"));
            for (int i = 1; i < arguments.length; i++) {
                checker.process(new File(arguments[i]));
            }
            broken = checker.isSignatureBroken();
        }
        System.exit(broken ? 1 : 0);
    }
}
