package org.edgemrl.codes

import kotlin.math.sqrt

/**
 * A query that is ready to be compared with stored codes of one packing.
 *
 * Dot products and squared lengths are whole numbers, so that every way of computing them gives the same
 * score; the root, the product of lengths and the quotient are float64, as FORMAT.md ("Codes") has them.
 *
 * @param query int8, dim elements.
 * @param packing how the stored codes are packed.
 */
public class Scorer(private val query: ByteArray, private val packing: Packing) {
    private val dim = query.size
    private val words = (dim + WORD_BITS - 1) / WORD_BITS
    private val length = sqrt(query.sumOf { it.toLong() * it }.toDouble())
    private val sum = query.sumOf { it.toLong() }
    private val planes: Array<LongArray> = bitsOf(query)
    private val centre: IntArray? = packing.centre?.toIntArray()
    private val centrePlanes: Array<LongArray>? = centre?.let { some -> bitsOf(ByteArray(dim) { some[it].toByte() }) }
    private val centreSum = centre?.sumOf { it.toLong() } ?: 0L
    private val centreSquares = centre?.sumOf { it.toLong() * it } ?: 0L
    private val centreDot = centre?.indices?.sumOf { query[it].toLong() * centre[it] } ?: 0L

    /**
     * The cosine with a code of whole bytes (int8 or int4), in [-1, 1]; 0 for codes of zeros.
     *
     * @param stored has the code from [offset] on.
     */
    public fun cosine(stored: ByteArray, offset: Int = 0): Double =
        if (packing.kind == CodeKind.INT4) int4(stored, offset) else int8(stored, offset)

    /**
     * The cosine with a code that is kept as planes (2-bit or 1-bit), in [-1, 1].
     *
     * @param stored planes times words, as [planesOf] gives them; word `i` lies at `offset + i * stride`.
     */
    public fun cosine(stored: LongArray, offset: Int = 0, stride: Int = 1): Double {
        val count = packing.kind.planes
        val most = (1 shl count) - 1
        val inner = 2 * weighed(planes, stored, offset, stride) - most * sum
        val squares = squares(stored, offset, stride)
        if (centrePlanes == null) return quotient(inner, squares)
        val step = (packing.step ?: 1.0).toLong()
        val around = 2 * weighed(centrePlanes, stored, offset, stride) - most * centreSum
        return quotient(step * inner + centreDot, step * step * squares + 2 * step * around + centreSquares)
    }

    private fun int8(stored: ByteArray, offset: Int): Double {
        var dot = 0L
        var squares = 0L
        for (i in 0 until dim) {
            val level = stored[offset + i].toInt()
            dot += query[i] * level
            squares += level * level
        }
        return quotient(dot, squares)
    }

    private fun int4(stored: ByteArray, offset: Int): Double {
        var dot = 0L
        var squares = 0L
        for (i in 0 until dim) {
            val level = 2 * (stored[offset + i / 2].toInt() shr (if (i % 2 == 0) 4 else 0) and 15) - 15
            dot += query[i] * level
            squares += level * level
        }
        return quotient(dot, squares)
    }

    /** The sum of products of an int8 code, given as planes of its bits, and the codes that the planes make. */
    private fun weighed(mine: Array<LongArray>, stored: LongArray, offset: Int, stride: Int): Long {
        var total = 0L
        for (bit in mine.indices) {
            var counted = 0L
            for (plane in 0 until packing.kind.planes) {
                var ones = 0
                for (word in 0 until words) {
                    ones += java.lang.Long.bitCount(mine[bit][word] and stored[offset + (plane * words + word) * stride])
                }
                counted += ones.toLong() shl (packing.kind.planes - 1 - plane)
            }
            total += counted * (if (bit == 7) -128L else 1L shl bit)
        }
        return total
    }

    /** The sum of the squares of the plain levels: 9 for 2-bit codes of equal bits, else 1. */
    private fun squares(stored: LongArray, offset: Int, stride: Int): Long {
        if (packing.kind.planes == 1) return dim.toLong()
        var unlike = 0
        for (word in 0 until words) {
            unlike += java.lang.Long.bitCount(stored[offset + word * stride] xor stored[offset + (words + word) * stride])
        }
        return 9L * dim - 8L * unlike
    }

    private fun quotient(dot: Long, squares: Long): Double =
        (dot.toDouble() / maxOf(length * sqrt(squares.toDouble()), 1.0)).coerceIn(-1.0, 1.0)

    private companion object {
        /** The bits of an int8 code as planes of words, the lowest bit first. */
        fun bitsOf(code: ByteArray): Array<LongArray> = Array(8) { bit ->
            val packed = ByteArray((code.size + 7) / 8)
            for (i in code.indices) {
                if (code[i].toInt() shr bit and 1 != 0) packed[i / 8] = (packed[i / 8].toInt() or (128 shr i % 8)).toByte()
            }
            planesOf(packed, code.size, 1)
        }
    }
}
