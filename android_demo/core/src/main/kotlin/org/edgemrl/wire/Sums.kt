package org.edgemrl.wire

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest

/** Groups of ids. A group that differs between two sides is pulled again. */
internal const val GROUPS = 256
private const val SUM_BYTES = 8

/** The group of a document, by its id: 0 to 255. */
internal fun groupOf(id: String): Int = sha256().digest(id.toByteArray(Charsets.UTF_8))[0].toInt() and 255

private fun sha256() = MessageDigest.getInstance("SHA-256")

/** What a version adds to the sum of its group. */
private fun share(id: String, stamp: Long, device: String): Long {
    val digest = sha256()
    digest.update(id.toByteArray(Charsets.UTF_8))
    digest.update(0)
    digest.update(ByteBuffer.allocate(SUM_BYTES).putLong(stamp).array())
    return ByteBuffer.wrap(digest.digest(device.toByteArray(Charsets.UTF_8))).order(ByteOrder.LITTLE_ENDIAN).long
}

/**
 * The sums of the live documents of one side, modulo 2^64, by group (FORMAT.md, "Agreement"): whether two
 * sides hold the same, at the cost of two hashes for each version that is written.
 */
internal class Sums private constructor(private val groups: LongArray) {
    constructor() : this(LongArray(GROUPS))

    /** The sum of all groups. */
    val total: Long get() = groups.sum()

    val bytes: ByteArray
        get() = ByteBuffer.allocate(SUM_BYTES * GROUPS).order(ByteOrder.LITTLE_ENDIAN).also { it.asLongBuffer().put(groups) }.array()

    fun copy(): Sums = Sums(groups.copyOf())

    /** Counts a live document. */
    fun add(id: String, stamp: Long, device: String) {
        groups[groupOf(id)] += share(id, stamp, device)
    }

    /** Counts a version no more. */
    fun remove(id: String, stamp: Long, device: String) {
        groups[groupOf(id)] -= share(id, stamp, device)
    }

    /** The groups whose sums are not equal. */
    fun differing(other: Sums): Set<Int> = groups.indices.filterTo(HashSet()) { groups[it] != other.groups[it] }

    companion object {
        /** The sums that [bytes] gives; null if the data are none. */
        fun read(data: ByteArray): Sums? {
            if (data.size != SUM_BYTES * GROUPS) return null
            val sums = LongArray(GROUPS)
            ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN).asLongBuffer().get(sums)
            return Sums(sums)
        }
    }
}
