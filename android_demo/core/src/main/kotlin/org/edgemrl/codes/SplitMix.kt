package org.edgemrl.codes

/** Random numbers that are the same in every language: SplitMix64 (Steele et al., OOPSLA 2014), started at 0. */
public class SplitMix {
    private var state = 0L

    /** The next output, as 64 bits. */
    public fun next(): Long {
        state += -0x61c8864680b583ebL // 2^64 / the golden ratio
        var z = (state xor (state ushr 30)) * -0x40a7b892e31b1a47L
        z = (z xor (z ushr 27)) * -0x6b2fb644ecceee15L
        return z xor (z ushr 31)
    }
}

/**
 * The matrix of a `random` head: the first columns of a fixed rotation (FORMAT.md, "Head").
 *
 * @param size dimensions D of the full vector.
 * @param dim columns to take.
 * @return float32, D rows of [dim] values, one row behind the other.
 */
public fun randomHead(size: Int, dim: Int): FloatArray {
    val chance = SplitMix()
    var matrix = DoubleArray(size * size).also { unit -> for (i in 0 until size) unit[i * size + i] = 1.0 }
    var block = 1
    while (block * 4 <= size) block *= 4
    val blocks = (size + block - 1) / block
    repeat(2) {
        for (column in 0 until size) {
            if (chance.next() < 0) for (row in 0 until size) matrix[row * size + column] *= -1.0
        }
        val order = IntArray(size) { it }
        for (i in size - 1 downTo 1) {
            val other = remainder(chance.next(), i + 1)
            order[i] = order[other].also { order[other] = order[i] }
        }
        val before = matrix
        matrix = DoubleArray(size * size) { before[it / size * size + order[it % size]] }
        for (k in 0 until blocks) {
            hadamard(matrix, size, if (blocks == 1) 0 else k * (size - block) / (blocks - 1), block)
        }
    }
    return FloatArray(size * dim) { matrix[it / dim * size + it % dim].toFloat() }
}

/** The remainder of 64 bits as a number without sign; Java's own needs API 26 on Android. */
private fun remainder(bits: Long, by: Int): Int = (((bits ushr 1) % by * 2 + (bits and 1)) % by).toInt()

/** Multiplies [block] columns from [start] on by the Hadamard matrix of that size, divided by its root. */
private fun hadamard(matrix: DoubleArray, size: Int, start: Int, block: Int) {
    val root = Math.sqrt(block.toDouble())
    for (row in 0 until size) {
        val at = row * size + start
        var half = 1
        while (half < block) {
            for (i in 0 until block) {
                if (i and half != 0) continue
                val a = matrix[at + i]
                val b = matrix[at + i + half]
                matrix[at + i] = a + b
                matrix[at + i + half] = a - b
            }
            half *= 2
        }
        for (i in 0 until block) matrix[at + i] /= root
    }
}
