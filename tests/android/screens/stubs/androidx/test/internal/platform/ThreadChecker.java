package androidx.test.internal.platform;

public interface ThreadChecker {}
