package org.edgemrl.store

import java.io.File
import java.io.IOException
import java.io.RandomAccessFile

/** Writes that outlast a power cut, and files that nobody else can read. */
internal object Durable {
    /** Makes an empty file that only its owner can read, unless there is a file. */
    fun createPrivate(file: File) {
        if (file.createNewFile()) makePrivate(file)
    }

    /** Takes everybody else's rights from a file. */
    fun makePrivate(file: File) {
        file.setReadable(false, false)
        file.setWritable(false, false)
        file.setExecutable(false, false)
        file.setReadable(true, true)
        file.setWritable(true, true)
    }

    /** Waits until a file is on the disk. */
    fun sync(file: File): Unit = RandomAccessFile(file, "rw").use { it.fd.sync() }

    /** Waits until the names in a folder are on the disk, where the system can be asked for that. */
    fun syncFolder(folder: File) {
        try {
            if (!syncByAndroid(folder)) syncByNio(folder)
        } catch (_: ReflectiveOperationException) {
            // Neither is there: the file system decides when a rename is on the disk.
        }
    }

    /** By android.system.Os, which the compiler does not see here. */
    private fun syncByAndroid(folder: File): Boolean {
        val os = try {
            Class.forName("android.system.Os")
        } catch (_: ClassNotFoundException) {
            return false
        }
        val number = Int::class.javaPrimitiveType!!
        val descriptor = os.getMethod("open", String::class.java, number, number).invoke(null, folder.path, 0, 0)
        val type = java.io.FileDescriptor::class.java
        try {
            os.getMethod("fsync", type).invoke(null, descriptor)
        } finally {
            os.getMethod("close", type).invoke(null, descriptor)
        }
        return true
    }

    /** By java.nio.file, which Android has from API 26 on only. */
    private fun syncByNio(folder: File) {
        val path = File::class.java.getMethod("toPath").invoke(folder)
        val options = Class.forName("java.nio.file.OpenOption")
        val none = java.lang.reflect.Array.newInstance(options, 0)
        val open = java.nio.channels.FileChannel::class.java.getMethod("open", Class.forName("java.nio.file.Path"), none.javaClass)
        (open.invoke(null, path, none) as java.nio.channels.FileChannel).use { it.force(true) }
    }

    /** Renames a file over another one, and waits until that is on the disk. @throws IOException if it cannot. */
    fun replace(file: File, target: File) {
        if (!file.renameTo(target)) throw IOException("$file cannot be renamed to ${target.name}")
        syncFolder(target.absoluteFile.parentFile!!)
    }
}
