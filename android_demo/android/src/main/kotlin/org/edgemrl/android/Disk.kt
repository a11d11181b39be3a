package org.edgemrl.android

import android.system.Os
import android.system.OsConstants
import java.io.File
import java.io.IOException

/** Makes what was written survive a loss of power. */
public interface Disk {
    /** Waits until the names in a folder are on the disk. */
    public fun syncFolder(folder: File)

    /** Bytes that the app can still write into a folder. */
    public fun freeBytes(folder: File): Long
}

/** The phone's disk. */
public class PhoneDisk : Disk {
    override fun syncFolder(folder: File) {
        val descriptor = Os.open(folder.path, OsConstants.O_RDONLY, 0)
        try {
            Os.fsync(descriptor)
        } finally {
            Os.close(descriptor)
        }
    }

    override fun freeBytes(folder: File): Long = folder.usableSpace
}

/** Renames, which replaces a file of the new name in one step. */
internal fun File.moveTo(target: File) {
    if (!renameTo(target)) throw IOException("cannot rename $this to $target")
}
