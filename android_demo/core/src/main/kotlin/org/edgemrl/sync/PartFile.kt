package org.edgemrl.sync

import java.io.Closeable
import java.io.File
import java.io.IOException
import java.io.RandomAccessFile
import java.security.MessageDigest
import org.edgemrl.NetworkException
import org.edgemrl.json.Json
import org.edgemrl.store.Durable
import org.edgemrl.wire.encodeBase64

private const val HEAD_BYTES = 1_024
private const val LENGTH_BYTES = 4
private const val READ_BYTES = 1 shl 20

/**
 * A range of a snapshot.
 *
 * @property sizeBytes bytes of the whole snapshot.
 * @property digest the digest of the whole snapshot, as in Repr-Digest; null if the server sent none.
 */
internal class SnapshotPart(val data: ByteArray, val sizeBytes: Long, val etag: String, val digest: String?)

/**
 * The part of a snapshot that was received, kept beside the store so that an interrupted device continues there. The
 * file begins with JSON that says which snapshot it is; the received bytes follow.
 *
 * @param code which codes the snapshot has.
 * @throws IOException if the disk cannot be read or written.
 */
internal class PartFile(private val path: File, private val code: String) : Closeable {
    private var file: RandomAccessFile? = null
    private var digest: String? = null
    private var whole = -1L

    /** Bytes that were received. */
    var size = 0L
        private set
    var etag: String? = null
        private set

    init {
        resume()
    }

    /** Whether the whole snapshot is there. */
    val isComplete: Boolean get() = whole in 0..size

    /** Appends what was received. @throws NetworkException if it is of another snapshot. */
    fun add(part: SnapshotPart) {
        val open = file
        if (open == null) begin(part) else if (part.sizeBytes != whole) throw NetworkException("the snapshot changed while it was read")
        file!!.seek(HEAD_BYTES + size)
        file!!.write(part.data)
        size += part.data.size
    }

    /** Whether size and digest are those that the server announced. */
    fun isSound(): Boolean {
        val sha = MessageDigest.getInstance("SHA-256")
        val part = ByteArray(READ_BYTES)
        file!!.seek(HEAD_BYTES.toLong())
        while (true) {
            val count = file!!.read(part)
            if (count < 0) break
            sha.update(part, 0, count)
        }
        val named = "sha-256=:${encodeBase64(sha.digest())}:"
        return size == whole && (digest == null || digest == named)
    }

    /** Gives each frame of the snapshot, in order. @throws NetworkException if it ends within one. */
    fun frames(use: (ByteArray) -> Unit) {
        var at = 0L
        file!!.seek(HEAD_BYTES.toLong())
        while (at < size) {
            if (size - at < LENGTH_BYTES) throw endsWithin()
            val length = Integer.reverseBytes(file!!.readInt()).toLong() and 0xFFFFFFFFL
            at += LENGTH_BYTES + length
            if (at > size || length > Int.MAX_VALUE) throw endsWithin()
            use(ByteArray(length.toInt()).also { file!!.readFully(it) })
        }
    }

    /** Deletes the file. */
    fun remove() {
        close()
        path.delete()
    }

    override fun close() {
        file?.close()
        file = null
    }

    private fun endsWithin() = NetworkException("the snapshot ends within a frame")

    private fun begin(part: SnapshotPart) {
        val facts = mapOf("code" to code, "etag" to part.etag, "size" to part.sizeBytes, "digest" to part.digest)
        val head = Json.write(facts).toByteArray(Charsets.UTF_8)
        if (head.size > HEAD_BYTES) throw NetworkException("the snapshot's ETag is too long")
        path.delete()
        Durable.createPrivate(path)
        file = RandomAccessFile(path, "rw").also { it.write(head + ByteArray(HEAD_BYTES - head.size) { ' '.code.toByte() }) }
        size = 0
        etag = part.etag
        digest = part.digest
        whole = part.sizeBytes
    }

    /** Goes on with what an earlier run has received; with nothing, whatever the file's head has become. */
    private fun resume() {
        if (!path.exists()) return
        val open = RandomAccessFile(path, "rw")
        var taken = false
        try {
            taken = takeHead(open)
        } catch (_: IOException) { // shorter than its head
        } catch (_: IllegalArgumentException) { // no JSON
        } catch (_: ClassCastException) { // JSON of something else
        } finally {
            if (!taken) open.close()
        }
    }

    private fun takeHead(open: RandomAccessFile): Boolean {
        val head = ByteArray(HEAD_BYTES).also { open.readFully(it) }
        val facts = Json.parse(String(head, Charsets.UTF_8).trimEnd()) as Map<*, *>
        val found = facts["size"] as? Long ?: return false
        val name = facts["etag"] as? String ?: return false
        if (facts["code"] != code || found < 0) return false
        file = open
        size = minOf(open.length() - HEAD_BYTES, found)
        etag = name
        whole = found
        digest = facts["digest"] as String?
        return true
    }
}
