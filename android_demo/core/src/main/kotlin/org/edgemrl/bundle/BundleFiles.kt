package org.edgemrl.bundle

import java.io.File
import java.io.FileInputStream
import java.io.IOException
import java.io.RandomAccessFile
import java.nio.ByteBuffer
import java.nio.channels.FileChannel
import java.security.MessageDigest
import org.edgemrl.BundleException
import org.edgemrl.HashException
import org.edgemrl.MissingFileException
import org.edgemrl.TruncatedException

/** Most bytes of a file that is read as a whole, by name. */
private val MOST_BYTES = mapOf(
    MANIFEST to 1_000_000L,
    SIGNATURE to 16_384L,
    GRAPH to 64_000_000L,
    TOKENIZER to 64_000_000L,
    GOLDEN to 16_000_000L,
    HEAD to 300_000_000L,
    "report.json" to 16_000_000L,
    "report.html" to 64_000_000L,
)
private const val MOST_FILES = 64
private const val BLOCK = 1 shl 16

/** Checks that the manifest's files are few, and none that is read as a whole is too large. */
internal fun requireSizes(manifest: Manifest) {
    if (manifest.files.size > MOST_FILES) {
        throw BundleException("the manifest names ${manifest.files.size} files, expected at most $MOST_FILES")
    }
    for ((name, entry) in manifest.files) requireSize(name, entry.sizeBytes)
}

/** Reads a file that nothing promises yet: the manifest, or its signature. */
internal fun readBounded(folder: File, name: String): ByteArray {
    val size = regular(folder, name).length()
    requireSize(name, size)
    return readBytes(folder, name, size)
}

/**
 * Reads a file, and compares its size and its SHA-256.
 *
 * @throws MissingFileException if it is missing.
 * @throws TruncatedException if it has another size.
 * @throws HashException if it has other bytes.
 * @throws BundleException if it is no file, or too large.
 */
internal fun readFile(folder: File, name: String, entry: FileEntry): ByteArray {
    requireSize(name, entry.sizeBytes)
    checkSize(name, regular(folder, name).length(), entry)
    val data = readBytes(folder, name, entry.sizeBytes)
    checkHash(name, sha256(data), entry)
    return data
}

/** Maps a file whose hash was compared into memory, for reading. */
internal fun mapFile(folder: File, name: String, entry: FileEntry): ByteBuffer = reading(folder, name) {
    RandomAccessFile(File(folder, name), "r").use { file ->
        checkSize(name, file.length(), entry)
        file.channel.map(FileChannel.MapMode.READ_ONLY, 0, entry.sizeBytes)
    }
}

/**
 * Checks that the bundle's files are there, complete and, with [hashes], unchanged. Links are always
 * compared: nothing outside the folder counts but bytes that the manifest names.
 */
internal fun checkFiles(folder: File, manifest: Manifest, hashes: Boolean) {
    for ((name, entry) in manifest.files) {
        val file = regular(folder, name)
        checkSize(name, file.length(), entry)
        if (hashes || isLink(folder, name)) checkHash(name, hashOf(folder, name, entry), entry)
    }
}

/** Whether a name of the folder leads elsewhere. */
internal fun isLink(folder: File, name: String): Boolean = reading(folder, name) {
    File(folder.canonicalFile, name).let { it.canonicalFile != it }
}

private fun hashOf(folder: File, name: String, entry: FileEntry): String = reading(folder, name) {
    val digest = MessageDigest.getInstance("SHA-256")
    FileInputStream(File(folder, name)).use { stream ->
        val block = ByteArray(BLOCK)
        var size = 0L
        while (true) {
            val count = stream.read(block)
            if (count < 0) break
            size += count
            if (size > entry.sizeBytes) checkSize(name, size, entry)
            digest.update(block, 0, count)
        }
    }
    hex(digest.digest())
}

/** The file of a name, which is not opened before it is known to be one: a FIFO would wait for ever. */
private fun regular(folder: File, name: String): File {
    val file = File(folder, name)
    if (file.isFile) return file
    if (file.exists()) throw BundleException("$name of the bundle $folder is not a file: copy the bundle again")
    throw MissingFileException("$name is missing from the bundle $folder: copy the bundle again")
}

private inline fun <T> reading(folder: File, name: String, step: () -> T): T = try {
    step()
} catch (e: IOException) {
    throw BundleException("$name of the bundle $folder cannot be read: ${brief(e.message)}", e)
}

private fun readBytes(folder: File, name: String, size: Long): ByteArray = reading(folder, name) {
    FileInputStream(File(folder, name)).use { stream ->
        val data = ByteArray(size.toInt())
        var at = 0
        while (at < data.size) {
            val count = stream.read(data, at, data.size - at)
            if (count < 0) break
            at += count
        }
        if (at < data.size || stream.read() >= 0) {
            throw TruncatedException("$name was changed while it was read: copy the bundle again")
        }
        data
    }
}

private fun requireSize(name: String, size: Long) {
    val most = MOST_BYTES[name] ?: return
    if (size > most) throw BundleException("$name has $size bytes, expected at most $most")
}

private fun checkSize(name: String, size: Long, entry: FileEntry) {
    if (size != entry.sizeBytes) {
        throw TruncatedException("$name has $size bytes, expected ${entry.sizeBytes}: copy the bundle again")
    }
}

private fun checkHash(name: String, digest: String, entry: FileEntry) {
    if (digest != entry.sha256) {
        throw HashException("$name is damaged: SHA-256 $digest, expected ${entry.sha256}: copy the bundle again")
    }
}
