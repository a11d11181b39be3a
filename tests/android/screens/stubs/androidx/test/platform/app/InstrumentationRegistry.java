package androidx.test.platform.app;

public final class InstrumentationRegistry {
    private static volatile android.app.Instrumentation instance;

    private InstrumentationRegistry() {}

    public static android.app.Instrumentation getInstrumentation() {
        if (instance == null) throw new IllegalStateException("no instrumentation yet");
        return instance;
    }

    public static void registerInstance(android.app.Instrumentation next, android.os.Bundle arguments) {
        instance = next;
    }
}
