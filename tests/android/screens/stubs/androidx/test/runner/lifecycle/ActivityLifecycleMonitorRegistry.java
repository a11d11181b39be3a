package androidx.test.runner.lifecycle;

public final class ActivityLifecycleMonitorRegistry {
    private static volatile ActivityLifecycleMonitor monitor;

    private ActivityLifecycleMonitorRegistry() {}

    public static ActivityLifecycleMonitor getInstance() {
        if (monitor == null) throw new IllegalStateException("no monitor of activities yet");
        return monitor;
    }

    public static void registerInstance(ActivityLifecycleMonitor next) {
        monitor = next;
    }
}
