package org.edgemrl.android

import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.io.InputStream
import java.security.MessageDigest
import org.edgemrl.FormatException
import org.edgemrl.HashException
import org.edgemrl.ManifestException
import org.edgemrl.MissingFileException
import org.edgemrl.TruncatedException
import org.edgemrl.json.Json
import org.edgemrl.json.JsonException

/**
 * The bundles of an app, in a folder of its own files. A bundle lies in a folder named by its manifest's
 * SHA-256; a file `current` names the one in use. Whatever moment the phone loses power at, `current` names a
 * bundle that is whole, or there is none yet.
 *
 * @property folder where the bundles are; made if it is missing.
 * @param disk the phone's, or that of a test.
 */
public class BundleFolder(public val folder: File, private val disk: Disk) {
    private val pointer = File(folder, "current")

    /** The folder of the bundle in use, or null if none was installed yet. */
    public fun current(): File? {
        if (!pointer.isFile) return null
        val digest = pointer.readText().trim()
        val found = File(folder, digest)
        return if (digest.matches(DIGEST) && File(found, MANIFEST).isFile) found else null
    }

    /**
     * Installs a bundle: every file is written to a temporary folder, compared with the manifest's sizes and
     * SHA-256, brought to the disk, and renamed. Then it is the current one.
     *
     * @param source the files.
     * @param check a last look at the new folder, before it is used; what it throws refuses the bundle.
     * @return the folder of the bundle.
     * @throws org.edgemrl.BundleException if the files are not those of the manifest.
     * @throws IOException if they cannot be read or written, or the disk is too full.
     */
    @Synchronized
    public fun install(source: BundleSource, check: (File) -> Unit = {}): File {
        makeFolder(folder)
        removeLeftovers()
        val partial = File(folder, PARTIAL)
        makeFolder(partial)
        try {
            val digests = HashMap<String, Pair<Long, String>>()
            source.read { name, data -> digests[checkedName(name, digests)] = write(File(partial, name), data) }
            compare(partial, digests)
            disk.syncFolder(partial)
            check(partial)
            return use(partial, digests.getValue(MANIFEST).second)
        } finally {
            partial.deleteRecursively()
        }
    }

    /** The name of the bundle in use, or null if none was installed yet. */
    public fun describe(): String? = current()?.let { (parsed(File(it, MANIFEST)) as? Map<*, *>)?.get("name") as? String }

    /**
     * Compares every file of the bundle in use with its manifest again.
     *
     * @throws org.edgemrl.BundleException if a file was changed, or no bundle is installed.
     */
    @Synchronized
    public fun check(): Checked {
        val bundle = current() ?: throw MissingFileException("no bundle is installed in $folder")
        val digests = HashMap<String, Pair<Long, String>>()
        for (file in bundle.listFiles().orEmpty()) digests[file.name] = file.inputStream().use { checkNotNull(digest(it, Long.MAX_VALUE) { _, _ -> }) }
        val manifest = digests[MANIFEST] ?: throw MissingFileException("$bundle has no $MANIFEST")
        if (manifest.second != bundle.name) throw HashException("$MANIFEST has SHA-256 ${manifest.second}, it was installed with ${bundle.name}")
        compare(bundle, digests, remove = false)
        return Checked(digests.size, digests.values.sumOf { it.first })
    }

    /** What was compared: a number of files, and of their bytes. */
    public data class Checked(val files: Int, val bytes: Long)

    /** Removes all bundles but the current one. Nothing may have one of them open. */
    @Synchronized
    public fun removeOthers() {
        val kept = current() ?: return
        folder.listFiles()?.filter { it.isDirectory && it != kept }?.forEach { it.deleteRecursively() }
    }

    private fun use(partial: File, digest: String): File {
        val target = File(folder, digest)
        // One that is there was whole when it got its name, but its files may have been changed since.
        if (target.exists()) target.deleteRecursively()
        partial.moveTo(target)
        disk.syncFolder(folder)
        val next = File(folder, "current.new")
        FileOutputStream(next).use { file ->
            file.write(digest.toByteArray())
            file.fd.sync()
        }
        next.moveTo(pointer)
        disk.syncFolder(folder)
        return target
    }

    private fun checkedName(name: String, taken: Map<String, *>): String {
        if (!name.matches(NAME)) throw FormatException("a bundle has no file named $name")
        if (name in taken) throw FormatException("the file $name is given twice")
        if (taken.size == MOST_FILES) throw FormatException("more than $MOST_FILES files: this is no bundle")
        return name
    }

    private fun write(target: File, data: InputStream): Pair<Long, String> {
        val most = if (target.name == MANIFEST) MOST_MANIFEST_BYTES else MOST_BYTES
        FileOutputStream(target).use { file ->
            val written = digest(data, most) { buffer, count ->
                if (disk.freeBytes(folder) < RESERVE_BYTES) {
                    throw IOException("the disk is nearly full: less than $RESERVE_BYTES bytes are left; free some, then try again")
                }
                file.write(buffer, 0, count)
            }
            file.fd.sync()
            return written ?: throw FormatException("${target.name} has more than $most bytes")
        }
    }

    private fun compare(partial: File, digests: MutableMap<String, Pair<Long, String>>, remove: Boolean = true) {
        if (MANIFEST !in digests) throw MissingFileException("no $MANIFEST: this is no bundle, or the copy is incomplete")
        val manifest = parsed(File(partial, MANIFEST)) as? Map<*, *>
        val listed = manifest?.get("files") as? Map<*, *> ?: throw ManifestException("$MANIFEST lists no files")
        for ((name, promised) in listed) {
            val (size, digest) = digests[name] ?: throw MissingFileException("$name is missing, which $MANIFEST lists")
            val entry = promised as? Map<*, *> ?: throw ManifestException("$MANIFEST: files.$name is no object")
            if ((entry["size_bytes"] as? Number)?.toLong() != size) {
                throw TruncatedException("$name has $size bytes, $MANIFEST says ${entry["size_bytes"]}")
            }
            if (entry["sha256"] != digest) throw HashException("$name has SHA-256 $digest, $MANIFEST says ${entry["sha256"]}")
        }
        val unlisted = digests.keys - listed.keys - setOf(MANIFEST, SIGNATURE)
        if (remove) for (name in unlisted) {
            File(partial, name as String).delete()
            digests.remove(name)
        }
    }

    private fun removeLeftovers() {
        File(folder, PARTIAL).deleteRecursively()
        File(folder, "current.new").delete()
    }

    private companion object {
        const val MANIFEST = "edge_mrl.json"
        const val SIGNATURE = "edge_mrl.sig"
        const val PARTIAL = "partial"
        const val MOST_FILES = 64
        const val MOST_MANIFEST_BYTES = 1L shl 20
        const val MOST_BYTES = 1L shl 31
        const val RESERVE_BYTES = 16L shl 20
        val DIGEST = Regex("[0-9a-f]{64}")
        val NAME = Regex("[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
    }
}

private fun parsed(manifest: File): Any? = try {
    Json.parse(manifest.readText())
} catch (e: JsonException) {
    throw ManifestException("${manifest.name} is no JSON: ${e.message}")
}

/** Size and SHA-256 of a stream, given on piece by piece; null if it has more than [most] bytes. */
private fun digest(data: InputStream, most: Long, each: (ByteArray, Int) -> Unit): Pair<Long, String>? {
    val hash = MessageDigest.getInstance("SHA-256")
    val buffer = ByteArray(1 shl 16)
    var size = 0L
    while (true) {
        val count = data.read(buffer)
        if (count < 0) return size to hash.digest().joinToString("") { "%02x".format(it) }
        size += count
        if (size > most) return null
        hash.update(buffer, 0, count)
        each(buffer, count)
    }
}

private fun makeFolder(folder: File) {
    if (!folder.isDirectory && !folder.mkdirs()) throw IOException("cannot make the folder $folder")
}
