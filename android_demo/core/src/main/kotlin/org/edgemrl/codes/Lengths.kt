package org.edgemrl.codes

import kotlin.math.sqrt

/** Below this, a vector counts as zeros. */
private const val LEAST_LENGTH = 1e-12f

/** The length of a code. */
internal fun length(code: ByteArray): Float = sqrt(code.sumOf { it.toLong() * it }.toDouble()).toFloat()

/** A code as a vector of length 1; zeros stay zeros. */
internal fun unit(code: ByteArray): FloatArray {
    val length = maxOf(length(code), LEAST_LENGTH)
    return FloatArray(code.size) { code[it] / length }
}

/** A vector of length 1 in the same direction; zeros stay zeros. */
internal fun unit(vector: FloatArray): FloatArray {
    var squares = 0.0
    for (value in vector) squares += value.toDouble() * value
    val length = maxOf(sqrt(squares).toFloat(), LEAST_LENGTH)
    return FloatArray(vector.size) { vector[it] / length }
}
