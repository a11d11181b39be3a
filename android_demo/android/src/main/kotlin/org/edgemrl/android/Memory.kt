package org.edgemrl.android

import android.content.ComponentCallbacks2
import android.content.res.Configuration

/** What holds memory that can be had again. */
public interface Releasable {
    /** Gives caches back; the next use fills them again. */
    public fun releaseCaches()

    /** Gives everything back, the model too; the next use opens it again. */
    public fun releaseAll()
}

/**
 * Gives memory back when the phone asks for it. Register it by `Context.registerComponentCallbacks`.
 *
 * In front of the user only caches go, since a closed model would make the next search slow. In the background
 * everything goes: a process that holds little is ended late.
 */
public class MemoryWatch(private val holder: Releasable) : ComponentCallbacks2 {
    @Suppress("DEPRECATION") // Android 14 sends fewer levels; the older ones still come on older phones.
    override fun onTrimMemory(level: Int) {
        when {
            level >= ComponentCallbacks2.TRIM_MEMORY_BACKGROUND -> holder.releaseAll()
            level >= ComponentCallbacks2.TRIM_MEMORY_RUNNING_LOW -> holder.releaseCaches()
        }
    }

    @Deprecated("Deprecated in Java")
    override fun onLowMemory(): Unit = holder.releaseAll()

    override fun onConfigurationChanged(configuration: Configuration): Unit = Unit
}
