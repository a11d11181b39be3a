package androidx.test.platform.ui;

public interface UiController {}
