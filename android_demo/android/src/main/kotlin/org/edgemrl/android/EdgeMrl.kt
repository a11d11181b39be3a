package org.edgemrl.android

import android.system.ErrnoException
import android.system.Os

/**
 * What must happen in a process before anything of ONNX Runtime or SQLite is loaded. Call [prepare] in
 * `Application.onCreate`, before the first name of `org.edgemrl` is used; calling it again does nothing.
 */
public object EdgeMrl {
    /** Set in the process's environment, ONNX Runtime reports nothing to its maker. */
    public const val TELEMETRY_SWITCH: String = "ORT_DISABLE_TELEMETRY"
    private var prepared = false

    /**
     * Turns ONNX Runtime's telemetry off, then loads SQLite out of the APK.
     *
     * @throws IllegalStateException if the environment cannot be set: then nothing of ONNX Runtime may be used.
     * @throws UnsatisfiedLinkError if the app has no SQLite for this phone's processor.
     */
    @JvmStatic
    @Synchronized
    public fun prepare() {
        if (prepared) return
        disableTelemetry()
        loadSqlite()
        prepared = true
    }

    private fun disableTelemetry() {
        try {
            Os.setenv(TELEMETRY_SWITCH, "1", true)
        } catch (e: ErrnoException) {
            throw IllegalStateException("cannot set $TELEMETRY_SWITCH: $e", e)
        }
        check(Os.getenv(TELEMETRY_SWITCH) == "1") { "$TELEMETRY_SWITCH is not set after it was set" }
    }

    /**
     * The driver's own loader copies the library to a folder of temporary files, and needs java.nio.file,
     * which Android has from API 26 on. The library lies in the APK, so the system maps it in place.
     */
    private fun loadSqlite() {
        System.loadLibrary("sqlitejdbc")
        val loader = Class.forName("org.sqlite.SQLiteJDBCLoader")
        val loaded = loader.getDeclaredField("extracted")
        loaded.isAccessible = true
        loaded.setBoolean(null, true)
    }
}
