package org.edgemrl.wire

import org.edgemrl.ByCodePoint
import org.edgemrl.WireException
import org.edgemrl.shorten

internal const val COUNTER_BITS = 16

/** How far ahead of one's own clock a stamp may be and still count as the time. */
internal const val MAX_AHEAD_MS = 5 * 60_000L
private const val DIGITS = 16

/**
 * The version of a document: when it was last written, and by which device. The larger one wins.
 *
 * @property stamp hybrid logical time: milliseconds since 1970 shl 16, and a counter.
 * @property device the name of the device that wrote it; it decides between equal stamps, by code point.
 */
public data class Version(public val stamp: Long, public val device: String) : Comparable<Version> {
    override fun compareTo(other: Version): Int =
        if (stamp != other.stamp) stamp.compareTo(other.stamp) else ByCodePoint.compare(device, other.device)
}

/** Wall time in milliseconds since 1970. Tests give a process another clock. */
internal object Wall {
    @Volatile
    var offsetMs = 0L

    fun nowMs(): Long = System.currentTimeMillis() + offsetMs
}

/**
 * The stamp of a new change: wall time, or one above [last] if that is larger.
 *
 * @param offsetMs milliseconds to add to this machine's clock, learned from a server.
 */
internal fun nextStamp(last: Long, offsetMs: Long = 0, nowMs: Long = Wall.nowMs()): Long {
    val here = stampOf(nowMs + offsetMs)
    return if (last == Long.MAX_VALUE) last else maxOf(here, last + 1)
}

/** The largest stamp that a right clock may have given by now. A larger one counts for its own document only. */
internal fun latestStamp(offsetMs: Long = 0, nowMs: Long = Wall.nowMs()): Long = stampOf(nowMs + offsetMs + MAX_AHEAD_MS)

private fun stampOf(ms: Long): Long = if (ms >= Long.MAX_VALUE shr COUNTER_BITS) Long.MAX_VALUE else maxOf(ms, 0L) shl COUNTER_BITS

/** The stamp as 16 hex digits, which sort like stamps. */
internal fun formatStamp(stamp: Long): String = java.lang.Long.toHexString(stamp).padStart(DIGITS, '0')

/** Reads what [formatStamp] writes. @throws WireException if the value is not a stamp. */
internal fun parseStamp(text: Any?): Long {
    if (text !is String || text.length != DIGITS || !isHex(text)) {
        throw WireException("stamp ${shorten(text)}: expected 16 lower-case hex digits")
    }
    val stamp = parseHex(text)
    if (stamp <= 0) throw WireException("stamp $text: out of range")
    return stamp
}

/** The 64 bits of 16 hexadecimal digits. Android has `parseUnsignedLong` from API 26 on only. */
internal fun parseHex(text: String): Long = java.math.BigInteger(text, 16).toLong()

/** Whether a text has lower-case hexadecimal digits alone. */
internal fun isHex(text: String): Boolean = text.all { it in '0'..'9' || it in 'a'..'f' }
