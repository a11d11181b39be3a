package org.edgemrl.store.replica

import java.security.SecureRandom
import org.edgemrl.bundle.hex
import org.edgemrl.bundle.sha256
import org.edgemrl.json.Json
import org.edgemrl.store.Database
import org.edgemrl.store.Store

/** Settings: the marks of this copy of the store, the server's last receipt, an enrollment and a renewal under way. */
private const val MARKS = "marks"
private const val RECEIPT = "receipt"
private const val ENROLLING = "enrolling"
private const val RENEWING = "renewing"

/** Marks that are sent: a server that missed some, or was restored, finds one that it knows among them. */
private const val SENT_MARKS = 8
private const val MARK_BYTES = 8
private const val NONCE_BYTES = 16

/**
 * An enrollment whose answer this store may not have.
 *
 * @property invitation SHA-256 of the invitation.
 * @property nonce what was drawn for the request: the same request again gives the same token.
 */
internal class Enrolling(val invitation: String, val nonce: String, val withText: Boolean, val maxQueue: Long)

/** Notes on disk that an enrollment is about to be asked for, since its answer may be lost. Of the secret only its hash is kept. */
internal fun beginEnrolling(store: Store, invitation: String, withText: Boolean, maxQueue: Long): Enrolling {
    val digest = sha256(invitation.trim().toByteArray(Charsets.UTF_8))
    return store.changing { database ->
        val before = readEnrolling(database)
        val nonce = if (before?.invitation == digest) before.nonce else random(NONCE_BYTES)
        val value = mapOf("invitation" to digest, "nonce" to nonce, "with_text" to withText, "max_queue" to maxQueue)
        writeSetting(database, ENROLLING, Json.write(value))
        Enrolling(digest, nonce, withText, maxQueue)
    }
}

/** The enrollment that was asked for last, until the store is bound to its answer. */
internal fun enrollingOf(store: Store): Enrolling? = store.lending { database, _ -> readEnrolling(database) }

private fun readEnrolling(database: Database): Enrolling? {
    val value = readSetting(database, ENROLLING)?.let { Json.parse(it) as Map<*, *> } ?: return null
    return Enrolling(value["invitation"] as String, value["nonce"] as String, value["with_text"] as Boolean, value["max_queue"] as Long)
}

/**
 * What to send with a request for a new token: the same until the present one is replaced. It is on disk when
 * this returns, so all processes that renew a token get the same new one, and so does whoever goes on after a
 * kill. Of the token only its hash is kept.
 */
internal fun drawNonce(store: Store, token: String): String {
    val digest = sha256(token.toByteArray(Charsets.UTF_8))
    return store.changing { database ->
        val before = readSetting(database, RENEWING)?.let { Json.parse(it) as Map<*, *> }
        if (before?.get("token") == digest) return@changing before["nonce"].toString()
        random(NONCE_BYTES).also { writeSetting(database, RENEWING, Json.write(mapOf("token" to digest, "nonce" to it))) }
    }
}

/**
 * The marks to send with the next requests, newest first. The newest one is drawn and written before it is
 * sent, and stays the newest until an answer came to a request that had it: the marks of a store are one chain.
 *
 * @param known a mark that the server has: the next one is drawn if this is the newest.
 */
internal fun drawMark(store: Store, known: String? = null): List<String> = store.changing { database ->
    var (marks, fresh) = readMarks(database)
    if (fresh != null && fresh == known) {
        marks = listOf(fresh) + marks
        fresh = null
    }
    val newest = fresh ?: random(MARK_BYTES).also { writeMarks(database, marks, it) }
    (listOf(newest) + marks).take(SENT_MARKS)
}

/** Keeps what a run learned: the server's last receipt, and a mark that the server has. */
internal fun keepReceipt(store: Store, receipt: String?, known: String?) {
    store.changing { database ->
        val (marks, fresh) = readMarks(database)
        if (fresh != null && fresh == known) writeMarks(database, listOf(fresh) + marks, null)
        if (receipt != null) writeSetting(database, RECEIPT, receipt)
    }
}

/** The server's last receipt; empty if it has given none. */
internal fun receiptOf(store: Store): String = store.lending { database, _ -> readSetting(database, RECEIPT) ?: "" }

/** Marks that the server has, newest first; and one that it may have. */
private fun readMarks(database: Database): Pair<List<String>, String?> {
    val value = readSetting(database, MARKS)?.let { Json.parse(it) as Map<*, *> } ?: return emptyList<String>() to null
    return (value["marks"] as List<*>).map { it as String } to value["fresh"] as String?
}

private fun writeMarks(database: Database, marks: List<String>, fresh: String?): Unit =
    writeSetting(database, MARKS, Json.write(mapOf("marks" to marks.take(SENT_MARKS - 1), "fresh" to fresh)))

/** Random bytes as lower-case hexadecimal digits. */
internal fun random(bytes: Int): String = hex(ByteArray(bytes).also { SecureRandom().nextBytes(it) })
