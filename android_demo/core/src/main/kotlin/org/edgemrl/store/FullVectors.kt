package org.edgemrl.store

import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs

/** What a store may keep of full vectors; null keeps nothing. */
internal val KEEP_FULL: List<String?> = listOf(null, "until-synced", "fp16", "int8")

private const val SCALE_BYTES = 4

/** Full vectors in fewer bytes: float16, or int8 with a float32 scale before each vector. */
internal fun encodeFull(vectors: List<FloatArray>, keep: String): ByteArray {
    val dim = vectors.firstOrNull()?.size ?: 0
    val row = if (keep == "int8") SCALE_BYTES + dim else 2 * dim
    val data = ByteBuffer.allocate(row * vectors.size).order(ByteOrder.LITTLE_ENDIAN)
    for (vector in vectors) {
        if (keep != "int8") {
            for (value in vector) data.putShort(toHalf(value))
            continue
        }
        val scale = maxOf(vector.maxOfOrNull { abs(it) } ?: 0f, 1e-12f)
        data.putFloat(scale)
        for (value in vector) data.put(Math.rint((value / scale * 127).toDouble()).toInt().toByte())
    }
    return data.array()
}

/** The vectors that [encodeFull] wrote, of [dim] elements each, with its rounding. */
internal fun decodeFull(data: ByteArray, dim: Int, keep: String): List<FloatArray> {
    val bytes = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN)
    if (keep != "int8") return List(data.size / (2 * dim)) { FloatArray(dim) { fromHalf(bytes.short) } }
    return List(data.size / (SCALE_BYTES + dim)) {
        val step = bytes.float / 127f
        FloatArray(dim) { bytes.get() * step }
    }
}

/** A float as float16 (IEEE 754), rounded to the nearest, halves to even. */
internal fun toHalf(value: Float): Short {
    val bits = java.lang.Float.floatToRawIntBits(value)
    val sign = bits ushr 16 and 0x8000
    val size = bits and 0x7FFFFFFF
    val half = when {
        size > 0x7F800000 -> 0x7E00
        size >= 0x477FF000 -> 0x7C00 // 65520 and above
        size >= 0x38800000 -> (size - 0x38000000 + 0xFFF + (size ushr 13 and 1)) ushr 13
        // Below 2^-14, float16 counts in steps of 2^-24; multiplying by a power of two is exact.
        else -> Math.rint(java.lang.Float.intBitsToFloat(size).toDouble() * (1 shl 24)).toInt()
    }
    return (sign or half).toShort()
}

/** The float of a float16. */
internal fun fromHalf(half: Short): Float {
    val bits = half.toInt()
    val sign = bits and 0x8000 shl 16
    val size = bits and 0x7FFF
    val float = when {
        size >= 0x7C00 -> 0x7F800000 or (size and 0x3FF shl 13)
        size >= 0x400 -> (size shl 13) + 0x38000000
        else -> java.lang.Float.floatToRawIntBits(size / 16777216f)
    }
    return java.lang.Float.intBitsToFloat(sign or float)
}
