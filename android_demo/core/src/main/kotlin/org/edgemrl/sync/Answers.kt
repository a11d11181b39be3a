package org.edgemrl.sync

import org.edgemrl.IntermediaryException
import org.edgemrl.NetworkException
import org.edgemrl.WireException
import org.edgemrl.bundle.brief
import org.edgemrl.clean
import org.edgemrl.wire.MAX_BODY_BYTES
import org.edgemrl.wire.Wall
import org.edgemrl.wire.parseStamp

/** A refusal is a code and a sentence; a proxy's page is not worth more either. */
internal const val MAX_REFUSAL_BYTES = 64 shl 10

/** Enough for a token, a registered head, and whatever else is a few names. */
private const val SMALL = 64 shl 10
private const val MAX_WORD_CHARS = 1_000
private const val MAX_FLOAT = 1e300
// A range of a snapshot has 4 MiB.
private val LIMITS = mapOf("snapshot" to 5 * MAX_BODY_BYTES, "pull" to 16 * MAX_BODY_BYTES, "push" to 2 * MAX_BODY_BYTES, "rerank" to 2 * MAX_BODY_BYTES)
private val STATUSES = setOf("applied", "stale", "clock_ahead", "invalid", "too_large", "forbidden")

/** How long to wait before asking again for an answer that was too large, in seconds: its sender will not have changed. */
internal const val OVERSIZED_WAIT_S = 300.0

/** Statuses of what stands between that the same request gets again a second later: no reason to hurry. */
internal val LASTING = setOf(301, 302, 303, 305, 307, 308, 401, 403, 404, 405, 407, 411, 413, 414, 415, 417, 431, 451, 505, 511)

/** Most bytes of a good answer to a request, by its path. */
internal fun answerLimit(path: String): Int = LIMITS[path.substringAfter("/v1/", "").substringBefore("?").substringBefore("/")] ?: SMALL

/** What became of a document: its status, a stamp that the server named, or 0, and a reason. */
internal class Result(val status: String, val newer: Long, val reason: String)

/** Reads a row of the results of a push. @throws NetworkException if it is none. */
internal fun resultOf(row: Any?): Result {
    val status = (row as? Map<*, *>)?.get("status")
    if (row !is Map<*, *> || status !in STATUSES) throw NetworkException("a push result has an unknown status: ${brief(row, 80)}")
    val said = (row["reason"] as? String)?.let { clean(it) } ?: ""
    if ("v" !in row) return Result(status as String, 0, said)
    try {
        return Result(status as String, parseStamp(row["v"]), said)
    } catch (e: WireException) {
        throw NetworkException("a push result: ${e.message}", e)
    }
}

/** The ids of the last push that were refused; null if it did not arrive. */
internal fun refusedOf(answer: Map<String, Any?>): List<String>? {
    val names = answer["refused"] ?: return null
    if (names !is List<*> || !names.all { it is String }) throw NetworkException("refused: expected a list of ids")
    return names.map { clean(it as String) }
}

/** The server's clock minus ours: it was read between the request and the response. */
internal fun offsetOf(clock: Any?, startedMs: Long): Long {
    if (!isCount(clock)) throw NetworkException("now_ms: expected the server's clock in milliseconds")
    return clock as Long - (startedMs + Wall.nowMs()).floorDiv(2L)
}

/** The first byte and the whole size that a Content-Range names. @throws NetworkException if it is none. */
internal fun contentRange(text: String): Pair<Long, Long> {
    val found = RANGE.matchEntire(text) ?: throw NetworkException("Content-Range ${brief(text, 60)}: expected bytes FIRST-LAST/SIZE")
    return found.groupValues[1].toLong() to found.groupValues[2].toLong()
}

private val RANGE = Regex("bytes ([0-9]{1,18})-[^/]*/([0-9]{1,18})")

/** Whether a value of JSON is a number from 0 on that a store can keep. */
internal fun isCount(value: Any?): Boolean = value is Long && value >= 0

/** A number of JSON as a float; null where it is none: its integers have any size. */
internal fun numberOf(value: Any?): Double? = (value as? Number)?.toDouble()?.takeIf { it >= -MAX_FLOAT && it <= MAX_FLOAT }

/** Whether a value of JSON is a word that goes into headers and files: printable ASCII, not empty. */
internal fun isWord(value: Any?): Boolean =
    value is String && value.length in 1..MAX_WORD_CHARS && value.all { it in ' '..'~' } && value == value.trim()

/** The error for an answer that the server did not give: proxies, gateways, login pages of networks. */
internal fun intermediary(server: String, status: Int, headers: Map<String, String>, retryAfterS: Double?): IntermediaryException {
    val by = (headers["server"] ?: headers["via"] ?: "").takeIf { isWord(it) }?.let { " (${it.take(60)})" } ?: ""
    val place = headers["location"]?.let { ", pointing to ${brief(it, 200)}" } ?: ""
    return IntermediaryException("something between this device and $server$by answers $status$place: ${advice(status)}", status, retryAfterS)
}

private fun advice(status: Int): String = when (status) {
    in 200..299 -> "a page of its own: a network that wants a login does that: open a web page and sign in; or this is no edge-mrl server: check the address"
    301, 302, 303, 307, 308 ->
        "if that is the server's new address, name it with `move`; the token is not sent there by itself. A network that wants a login " +
            "redirects too: open a web page and sign in"
    401, 407 -> "it wants a user and a password"
    403 -> "it does not allow this server or this device: ask who runs it to allow the server's address"
    404 -> "it knows no such path: check the address, with what comes before /v1"
    405 -> "it does not allow this method: ask who runs it to pass on GET, POST and PUT"
    413 -> "the documents wait; ask who runs it to allow larger requests (the server takes 16 MiB), or connect past it"
    511 -> "a network that wants a login does that: open a web page and sign in"
    in 502..503 -> "it cannot reach the server, or the server is being started: this is tried again"
    else -> "this is tried again"
}
