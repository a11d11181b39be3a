package org.edgemrl.codes

import kotlin.math.abs
import kotlin.math.ceil
import org.edgemrl.UsageException

/** The largest element of an int8 code; -128 does not occur. */
public const val CODE_MAX: Int = 127

/** Dimensions in a word of bits. */
public const val WORD_BITS: Int = 64

/**
 * What a store keeps of an int8 code (FORMAT.md, "Codes").
 *
 * @property label its name in manifests and stores.
 * @property bits bits of a dimension.
 * @property planes planes of bits, where a code is kept as planes; else 0.
 */
public enum class CodeKind(public val label: String, public val bits: Int, public val planes: Int) {
    INT8("int8", 8, 0),
    INT4("int4", 4, 0),
    TWO_BIT("2bit", 2, 2),
    ONE_BIT("1bit", 1, 1);

    public companion object {
        /** The kind of a name, such as `int4`. @throws UsageException if there is no such kind. */
        public fun of(label: String): CodeKind = values().find { it.label == label }
            ?: throw UsageException("the kind of code is '$label', expected one of int8, int4, 2bit, 1bit")
    }
}

/**
 * How int8 codes are packed where they are stored.
 *
 * @property kind what is kept.
 * @property step the distance of levels, in units of the int8 code; null where the kind has none.
 * @property centre for 2-bit and 1-bit codes, the middle of the levels for each dimension; null for zeros.
 */
public data class Packing(
    public val kind: CodeKind = CodeKind.INT8,
    public val step: Double? = null,
    public val centre: List<Int>? = null,
) {
    private val nibbles: ByteArray? by lazy { if (kind == CodeKind.INT4) nibbles(needStep()) else null }

    private val middles: ByteArray? by lazy { nibbles?.let { middlesOf(it) } }

    /** Whether codes of [dim] dimensions can be packed with these parameters. */
    public fun fits(dim: Int): Boolean {
        val step = step
        val centre = centre
        if (kind == CodeKind.INT4) return centre == null && step != null && step > 0 && step < Double.POSITIVE_INFINITY
        if (kind == CodeKind.INT8 || kind == CodeKind.ONE_BIT && centre == null) return step == null && centre == null
        val outermost = if (kind == CodeKind.TWO_BIT) 3 else 1
        if (step == null || step != Math.floor(step) || step < 1 || step > CODE_MAX / outermost) return false
        return centre == null || centre.size == dim && centre.all { abs(it) + outermost * step <= CODE_MAX }
    }

    /** Bytes of a packed code of [dim] dimensions. */
    public fun bytes(dim: Int): Int = when {
        kind.planes > 0 -> kind.planes * ((dim + 7) / 8)
        else -> (dim * kind.bits + 7) / 8
    }

    /**
     * Packs one int8 code.
     *
     * @param code int8, dim elements.
     * @return as many bytes as [bytes] says; bits behind the last dimension are 0.
     */
    public fun pack(code: ByteArray): ByteArray = when (kind) {
        CodeKind.INT8 -> code.copyOf()
        CodeKind.ONE_BIT -> bits(code)
        CodeKind.TWO_BIT -> packTwoBits(code, needStep().toInt())
        CodeKind.INT4 -> packInt4(code)
    }

    /** The 1-bit code of an int8 code, dimension 0 in the highest bit of byte 0; a search compares it first. */
    public fun bits(code: ByteArray): ByteArray {
        val packed = ByteArray((code.size + 7) / 8)
        for (i in code.indices) {
            if (code[i] > (centre?.get(i) ?: 0)) setBit(packed, 0, i)
        }
        return packed
    }

    /**
     * The levels that a stored code stands for, up to a factor that does not change cosines.
     *
     * @param packed has the code from [offset] on.
     * @return int8, [dim] elements: int8 codes unchanged, int4 as odd numbers from -15 to 15, 2-bit as -3, -1, 1
     *   and 3, 1-bit as 1 and -1; with a centre, these times the step, added to it.
     */
    public fun unpack(packed: ByteArray, dim: Int, offset: Int = 0): ByteArray {
        val levels = ByteArray(dim)
        val size = (dim + 7) / 8
        for (i in 0 until dim) {
            val plain = when (kind) {
                CodeKind.INT8 -> packed[offset + i].toInt()
                CodeKind.INT4 -> 2 * (packed[offset + i / 2].toInt() shr (if (i % 2 == 0) 4 else 0) and 15) - 15
                CodeKind.ONE_BIT -> sign(packed, offset, i)
                CodeKind.TWO_BIT -> 2 * sign(packed, offset, i) + sign(packed, offset + size, i)
            }
            levels[i] = (if (centre == null) plain else plain * (step ?: 1.0).toInt() + centre[i]).toByte()
        }
        return levels
    }

    /** The int8 code, [dim] elements, that is packed like a packed code: [pack] gives [packed] again. */
    internal fun representative(packed: ByteArray, dim: Int): ByteArray {
        val levels = unpack(packed, dim)
        val middles = middles
        if (kind == CodeKind.INT4 && middles != null) return ByteArray(dim) { middles[(levels[it] + 15) / 2] }
        val step = step?.toInt() ?: 1
        return if (kind == CodeKind.TWO_BIT && centre == null) ByteArray(dim) { (levels[it] * step).toByte() } else levels
    }

    private fun packInt4(code: ByteArray): ByteArray {
        val halves = nibbles!!
        val packed = ByteArray((code.size + 1) / 2)
        for (i in code.indices) {
            val half = halves[code[i].toInt() and 255].toInt()
            packed[i / 2] = (packed[i / 2].toInt() or (if (i % 2 == 0) half shl 4 else half)).toByte()
        }
        return packed
    }

    private fun packTwoBits(code: ByteArray, step: Int): ByteArray {
        val size = (code.size + 7) / 8
        val packed = ByteArray(2 * size)
        for (i in code.indices) {
            val around = code[i] - (centre?.get(i) ?: 0)
            val upper = around > 0
            val outer = abs(2 * around - 1) > 4 * step
            if (upper) setBit(packed, 0, i)
            if (upper == outer) setBit(packed, size, i)
        }
        return packed
    }

    private fun needStep(): Double {
        val step = step
        val whole = kind == CodeKind.TWO_BIT
        if (step == null || !(step > 0 && step < Double.POSITIVE_INFINITY) || whole && (step % 1 != 0.0 || step > CODE_MAX)) {
            throw UsageException("the step of ${kind.label} codes is $step, expected a ${if (whole) "whole " else ""}number above 0")
        }
        return step
    }

    private companion object {
        fun setBit(packed: ByteArray, start: Int, i: Int) {
            val at = start + i / 8
            packed[at] = (packed[at].toInt() or (128 shr i % 8)).toByte()
        }

        fun sign(packed: ByteArray, start: Int, i: Int): Int = if (packed[start + i / 8].toInt() and (128 shr i % 8) != 0) 1 else -1

        /** Of the int8 codes with an int4 code, the middle one; 0 where there are none. */
        fun middlesOf(nibbles: ByteArray): ByteArray = ByteArray(16) { nibble ->
            val some = (-CODE_MAX..CODE_MAX).filter { nibbles[it and 255].toInt() == nibble }
            if (some.isEmpty()) 0 else some[some.size / 2].toByte()
        }

        /** The int4 code of each int8 code, by its bits as a number from 0 to 255. */
        fun nibbles(step: Double): ByteArray = ByteArray(256) { bits ->
            (ceil(bits.toByte().toDouble() / step) + 7).coerceIn(0.0, 15.0).toInt().toByte()
        }
    }
}

/**
 * Quantises a vector: `clip(round(127 * x / scale), -127, 127)`, halves to even.
 *
 * @param vector of unit length, or a prefix of such a vector.
 * @param scale the bundle's `code.scale`, the value that 127 stands for.
 */
public fun quantize(vector: FloatArray, scale: Double = 1.0): ByteArray {
    val factor = (CODE_MAX / scale).toFloat()
    return ByteArray(vector.size) { Math.rint((vector[it] * factor).toDouble()).coerceIn(-127.0, 127.0).toInt().toByte() }
}

/**
 * The words of a code that is kept as planes: 8 bytes to a word, little-endian, zeros behind the last dimension.
 *
 * @param packed has [planes] times ceil([dim] / 8) bytes from [offset] on.
 * @return the words of the upper plane, then those of the next.
 */
public fun planesOf(packed: ByteArray, dim: Int, planes: Int, offset: Int = 0): LongArray {
    val size = (dim + 7) / 8
    val words = (dim + WORD_BITS - 1) / WORD_BITS
    val found = LongArray(planes * words)
    for (plane in 0 until planes) {
        for (i in 0 until size) {
            val byte = packed[offset + plane * size + i].toLong() and 255
            found[plane * words + i / 8] = found[plane * words + i / 8] or (byte shl 8 * (i % 8))
        }
    }
    return found
}
