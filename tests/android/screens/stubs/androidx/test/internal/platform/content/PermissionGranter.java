package androidx.test.internal.platform.content;

public interface PermissionGranter {}
