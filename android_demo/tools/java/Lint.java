import java.io.File;
import java.io.FileInputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.codehaus.mojo.animal_sniffer.SignatureChecker;
import org.codehaus.mojo.animal_sniffer.logging.PrintWriterLogger;

/** Names each use of an API that the oldest Android lacks. Takes: signatures, then jars; a file edge.own may name the classes that are there. Classes and methods with the annotation Guarded are passed over. */
public final class Lint {
    public static void main(String[] arguments) throws Exception {
        String named = System.getProperty("edge.own");
        Set<String> own = named == null
            ? Set.of("org.edgemrl.*", "kotlin.*", "org.jetbrains.*", "ai.onnxruntime.*", "org.sqlite.*", "org.slf4j.*")
            : new HashSet<>(Files.readAllLines(Path.of(named)));
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
