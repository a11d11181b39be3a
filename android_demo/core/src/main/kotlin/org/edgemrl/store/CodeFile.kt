package org.edgemrl.store

import java.io.File
import java.io.IOException
import java.io.RandomAccessFile
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.zip.CRC32

private val MAGIC = "eMRLcode".toByteArray(Charsets.US_ASCII)
private const val VERSION = 1
private const val HEADER_BYTES = 36

/** A segment's codes are read as a whole once this share of its rows was asked for. */
private const val WHOLE_SHARE = 16

/** The share of the heap that codes may take. */
private const val MEMORY_SHARE = 4

/** The code file is missing or is not the one that the store needs: it has to be made again. */
internal open class CodeFileException(message: String) : Exception(message)

/** There is another program's file with this name: it is left as it is. */
internal class ForeignFileException : CodeFileException("it is not a code file")

/** An open code file. It is read and not mapped: a mapped file that is cut short ends the process. */
internal class CodeFile private constructor(private val file: File, val layout: Layout, val generation: ByteArray, mode: String) {
    private val open = RandomAccessFile(file, mode)
    private val segments = HashMap<Int, Read>()
    private var room = Runtime.getRuntime().maxMemory() / MEMORY_SHARE

    /** What was read of a segment: [filed] of its rows, and how many codes were [asked] for. */
    private class Read(val segment: Segment) {
        var filed = 0
        var asked = 0L
        var whole: ByteArray? = null
        var wholeRows = 0
    }

    /** The filed rows of a segment, in memory but for the codes. What was read is not read again. */
    fun segment(number: Int, filed: Int): Segment = reading {
        val read = segments.getOrPut(number) { Read(Segment(layout, SEGMENT_ROWS)) }
        if (read.filed < filed) {
            var at = start(number)
            for (column in 0 until layout.columns) {
                val width = if (column < layout.bitColumns) 8 else 4
                read.segment.fill(column, read.filed, bytes(at + read.filed.toLong() * width, (filed - read.filed) * width))
                at += SEGMENT_ROWS.toLong() * width
            }
            if (layout.stride > 0) bytes(at + (filed - 1L) * layout.stride, layout.stride) // missing codes are noticed now
            read.filed = filed
        }
        read.segment
    }

    /** Copies the codes of a segment's rows, [Layout.stride] bytes each, to [out] from [offset] on. */
    fun codes(number: Int, rows: IntArray, out: ByteArray, offset: Int): Unit = reading {
        val read = segments.getValue(number)
        read.asked += rows.size
        val stride = layout.stride
        if (read.whole == null && read.asked * WHOLE_SHARE >= read.filed && SEGMENT_ROWS.toLong() * stride <= room) {
            room -= SEGMENT_ROWS.toLong() * stride
            read.whole = ByteArray(SEGMENT_ROWS * stride)
        }
        val origin = start(number) + SEGMENT_ROWS.toLong() * (8 * layout.bitColumns + 8)
        val whole = read.whole
        if (whole != null && read.wholeRows < read.filed) {
            bytes(origin + read.wholeRows.toLong() * stride, (read.filed - read.wholeRows) * stride).copyInto(whole, read.wholeRows * stride)
            read.wholeRows = read.filed
        }
        val some = whole ?: if (rows.size * WHOLE_SHARE >= read.filed) bytes(origin, read.filed * stride) else null
        rows.forEachIndexed { i, row ->
            val at = offset + i * stride
            if (some != null) some.copyInto(out, at, row * stride, (row + 1) * stride)
            else fill(ByteBuffer.wrap(out, at, stride), origin + row.toLong() * stride)
        }
    }

    /** Reads a segment again when it is needed next. */
    fun forget(number: Int) {
        segments.remove(number)
    }

    /** Writes rows at their place. They are used once the store's state includes them. */
    fun append(rows: Segment, count: Int, firstRow: Long) {
        val number = (firstRow / SEGMENT_ROWS).toInt()
        val start = (firstRow % SEGMENT_ROWS).toInt()
        if (open.length() < layout.fileBytes(firstRow + count)) open.setLength(layout.fileBytes(firstRow + count))
        var at = start(number)
        for (column in 0 until layout.columns) {
            val width = if (column < layout.bitColumns) 8 else 4
            write(rows.column(column, 0, count), at + start.toLong() * width)
            at += SEGMENT_ROWS.toLong() * width
        }
        rows.codes?.let { write(it.copyOf(count * layout.stride), at + start.toLong() * layout.stride) }
    }

    /** Waits until what was written is on the disk. */
    fun sync(): Unit = open.channel.force(true)

    /** Syncs a created file and renames it; who has an older one open can read it. */
    fun install(target: File) {
        sync()
        close()
        Durable.replace(file, target)
    }

    fun close() {
        segments.clear()
        open.close()
    }

    /** Closes and removes a created file that was not installed. */
    fun discard() {
        close()
        file.delete()
    }

    private fun start(number: Int): Long = ALIGNMENT + number * layout.segmentBytes

    private fun bytes(offset: Long, size: Int): ByteArray = ByteArray(size).also { fill(ByteBuffer.wrap(it), offset) }

    private fun fill(into: ByteBuffer, offset: Long) {
        var at = offset
        while (into.hasRemaining()) {
            val count = open.channel.read(into, at)
            if (count <= 0) throw CodeFileException("it is truncated")
            at += count
        }
    }

    private fun write(data: ByteArray, offset: Long) {
        val from = ByteBuffer.wrap(data)
        var at = offset
        while (from.hasRemaining()) at += open.channel.write(from, at)
    }

    private fun checkHeader() {
        val data = ByteArray(HEADER_BYTES + 4)
        val size = minOf(open.length(), data.size.toLong()).toInt()
        fill(ByteBuffer.wrap(data, 0, size), 0)
        if (!data.copyOf(8).contentEquals(MAGIC)) throw if (data.any { it != 0.toByte() }) ForeignFileException() else CodeFileException("it has no header")
        if (size < data.size) throw CodeFileException("it is truncated")
        val header = little(data)
        if (header.getInt(HEADER_BYTES) != CRC32().also { it.update(data, 0, HEADER_BYTES) }.value.toInt()) {
            throw CodeFileException("its header is damaged")
        }
        if (header.getInt(8) != VERSION) throw CodeFileException("it has version ${header.getInt(8)}")
        val mine = header.getInt(12) == layout.dim && header.getInt(16) == SEGMENT_ROWS
        if (!mine || !data.copyOfRange(20, HEADER_BYTES).contentEquals(generation)) {
            throw CodeFileException("it belongs to another state of the store")
        }
    }

    private inline fun <T> reading(block: () -> T): T = try {
        block()
    } catch (e: IOException) {
        throw CodeFileException("it cannot be read: ${e.message}")
    }

    companion object {
        /** Opens the file of one generation. @throws CodeFileException if it is missing or another one. */
        fun open(file: File, layout: Layout, generation: ByteArray, write: Boolean = false): CodeFile {
            if (!file.exists()) throw CodeFileException("it is missing")
            try {
                val found = CodeFile(file, layout, generation, if (write) "rw" else "r")
                var done = false
                try {
                    found.checkHeader()
                    done = true
                    return found
                } finally {
                    if (!done) found.close()
                }
            } catch (e: IOException) {
                throw CodeFileException("it cannot be opened: ${e.message}")
            }
        }

        /** Starts a new file under a temporary name; [install] renames it to [target]. */
        fun create(target: File, layout: Layout, generation: ByteArray): CodeFile {
            val temporary = File("${target.path}-new")
            requireOurs(target)
            requireOurs(temporary)
            temporary.delete()
            Durable.createPrivate(temporary)
            val file = CodeFile(temporary, layout, generation, "rw")
            val head = ByteBuffer.allocate(HEADER_BYTES + 4).order(ByteOrder.LITTLE_ENDIAN)
            head.put(MAGIC).putInt(VERSION).putInt(layout.dim).putInt(SEGMENT_ROWS).put(generation)
            head.putInt(CRC32().also { it.update(head.array(), 0, HEADER_BYTES) }.value.toInt())
            file.write(head.array(), 0)
            return file
        }

        /** @throws ForeignFileException if there is a file at this path that no store made. */
        fun requireOurs(file: File) {
            if (!file.exists()) return
            val head = ByteArray(8)
            val size = try {
                RandomAccessFile(file, "r").use { it.read(head) }
            } catch (e: IOException) {
                throw CodeFileException("it cannot be read: ${e.message}")
            }
            if (size > 0 && head.any { it != 0.toByte() } && !head.contentEquals(MAGIC)) throw ForeignFileException()
        }
    }
}
