package org.edgemrl.encode

import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtLoggingLevel
import org.edgemrl.UsageException

/**
 * The one place through which ONNX Runtime is first touched.
 *
 * From version 1.29 on it can send telemetry, and what keeps it from doing so, the environment variable
 * ORT_DISABLE_TELEMETRY, must be set before its library is loaded. Java cannot set it; a program sets it
 * before it starts Java, and the Android library by `Os.setenv` in [beforeFirst].
 */
public object OrtRuntime {
    private var hook: (() -> Unit)? = null
    private var environment: OrtEnvironment? = null

    /**
     * Says what to do once, before the first class of ONNX Runtime is loaded.
     *
     * @throws UsageException if it has been loaded already.
     */
    @Synchronized
    public fun beforeFirst(step: () -> Unit) {
        if (environment != null) throw UsageException("ONNX Runtime is loaded already: call this before a bundle is opened")
        hook = step
    }

    /** The environment of this process, made when it is first needed. */
    @Synchronized
    internal fun environment(): OrtEnvironment = environment ?: run {
        hook?.invoke()
        val made = OrtEnvironment.getEnvironment(OrtLoggingLevel.ORT_LOGGING_LEVEL_ERROR, "edge-mrl")
        made.setTelemetry(false) // whoever sets the variable has none; this is the second lock
        environment = made
        made
    }
}
