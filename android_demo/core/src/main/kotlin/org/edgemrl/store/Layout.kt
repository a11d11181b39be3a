package org.edgemrl.store

import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.edgemrl.codes.Packing
import org.edgemrl.codes.SplitMix
import org.edgemrl.codes.WORD_BITS
import org.edgemrl.codes.planesOf

/** Rows of a segment, whose columns lie one behind the other. */
internal const val SEGMENT_ROWS = 32_768

/** Segments start at multiples of the largest page size in use. */
internal const val ALIGNMENT = 65_536

/**
 * Where the columns of a segment lie, for codes of one size (FORMAT.md, "Code file").
 *
 * @property dim dimensions of a code.
 * @property packing what the codes are. Those that are kept as planes lie in the columns of bits alone.
 */
internal class Layout(val dim: Int, val packing: Packing) {
    val words = (dim + WORD_BITS - 1) / WORD_BITS
    val planes = maxOf(packing.kind.planes, 1)

    /** Columns of bits: the words of all planes. */
    val bitColumns = planes * words

    /** Bytes of a row's code, as the database holds it. */
    val codeBytes = packing.bytes(dim)

    /** Bytes of a row's code in the column of codes, zeros up to a multiple of 8; 0 for planes. */
    val stride = if (packing.kind.planes > 0) 0 else (codeBytes + 7) / 8 * 8

    /** Columns with a checksum: bits, checks and keys. */
    val columns = bitColumns + 2
    val segmentBytes = (SEGMENT_ROWS.toLong() * (8 * bitColumns + 8 + stride) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT
    private val factors: LongArray = SplitMix().let { chance ->
        LongArray(2 + maxOf(stride / 8, bitColumns)) { chance.next() or 1 }
    }

    /** Bytes of a file with this many rows, in whole segments. */
    fun fileBytes(rows: Long): Long = ALIGNMENT + (rows + SEGMENT_ROWS - 1) / SEGMENT_ROWS * segmentBytes

    /** The check of a row whose code is bytes: [codes] has [stride] of them from [offset] on. */
    fun check(codes: ByteBuffer, offset: Int, key: Int, row: Long): Int {
        var sum = start(key, row)
        for (word in 0 until stride / 8) sum += factors[2 + word] * codes.getLong(offset + 8 * word)
        return (sum ushr 32).toInt()
    }

    /** The check of a row that is kept as planes: its words lie at `offset + i * step`. */
    fun check(bits: LongArray, offset: Int, step: Int, key: Int, row: Long): Int {
        var sum = start(key, row)
        for (word in 0 until bitColumns) sum += factors[2 + word] * bits[offset + word * step]
        return (sum ushr 32).toInt()
    }

    private fun start(key: Int, row: Long): Long = factors[0] * (key.toLong() and 0xFFFFFFFFL) + factors[1] * (row + 1)

    /** The words of a row's bits, as the columns hold them, of a code as the database holds it. */
    fun bits(stored: ByteArray, offset: Int): LongArray {
        if (stride == 0) return planesOf(stored, dim, planes, offset)
        return planesOf(packing.bits(packing.unpack(stored, dim, offset)), dim, 1)
    }

    /** The words of the 1-bit code of an int8 code. */
    fun queryBits(code: ByteArray): LongArray = planesOf(packing.bits(code), dim, 1)
}

/**
 * Consecutive rows in columns.
 *
 * @property bits words of rows: word `i` of row `r` lies at `i * capacity + r`.
 * @property checks see [Layout.check].
 * @property keys the rows' documents, as 32 bits without sign; 0 for rows that were deleted before they came here.
 */
internal class Segment(val layout: Layout, val capacity: Int) {
    val bits = LongArray(layout.bitColumns * capacity)
    val checks = IntArray(capacity)
    val keys = IntArray(capacity)

    /** The codes of all rows, [Layout.stride] bytes each; null where they are in a file. */
    var codes: ByteArray? = null

    /** Puts a row: its code as the database holds it, from [offset] on. */
    fun put(at: Int, row: Long, key: Int, stored: ByteArray, offset: Int) {
        val words = layout.bits(stored, offset)
        for (word in words.indices) bits[word * capacity + at] = words[word]
        keys[at] = key
        val into = codes ?: return
        stored.copyInto(into, at * layout.stride, offset, offset + layout.codeBytes)
    }

    /** Computes the checks of rows, the first of which has the number [first]. */
    fun check(first: Long, count: Int) {
        val bytes = codes?.let { little(it) }
        for (i in 0 until count) {
            checks[i] = if (layout.stride > 0 && bytes != null) {
                layout.check(bytes, i * layout.stride, keys[i], first + i)
            } else {
                layout.check(bits, i, capacity, keys[i], first + i)
            }
        }
    }

    /** The bytes of a column's rows from [start] to [stop]: those of bits, then the checks, then the keys. */
    fun column(number: Int, start: Int, stop: Int): ByteArray {
        if (number < layout.bitColumns) {
            val data = ByteBuffer.allocate(8 * (stop - start)).order(ByteOrder.LITTLE_ENDIAN)
            data.asLongBuffer().put(bits, number * capacity + start, stop - start)
            return data.array()
        }
        val data = ByteBuffer.allocate(4 * (stop - start)).order(ByteOrder.LITTLE_ENDIAN)
        data.asIntBuffer().put(if (number == layout.bitColumns) checks else keys, start, stop - start)
        return data.array()
    }

    /** Fills a column's rows from [start] on. */
    fun fill(number: Int, start: Int, data: ByteArray) {
        val bytes = little(data)
        if (number < layout.bitColumns) {
            bytes.asLongBuffer().get(bits, number * capacity + start, data.size / 8)
        } else {
            bytes.asIntBuffer().get(if (number == layout.bitColumns) checks else keys, start, data.size / 4)
        }
    }

    /** CRC-32 of each column's rows from [start] to [stop]; goes on from [before]. */
    fun checksums(start: Int, stop: Int, before: LongArray): LongArray =
        LongArray(layout.columns) { keyedCheck(before[it], column(it, start, stop)) }
}

internal fun little(data: ByteArray): ByteBuffer = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN)
