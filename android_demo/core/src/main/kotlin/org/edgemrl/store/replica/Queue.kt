package org.edgemrl.store.replica

import org.edgemrl.DamagedException
import org.edgemrl.Document
import org.edgemrl.Span
import org.edgemrl.store.Database
import org.edgemrl.store.Queue
import org.edgemrl.store.Store
import org.edgemrl.store.checksum
import org.edgemrl.store.keyedCheck
import org.edgemrl.wire.VectorType
import org.edgemrl.wire.Vectors

/** How often a queue that is damaged is read again after it was made again. */
private const val MENDED = 2

/**
 * A document that waits to be sent.
 *
 * @property deleted whether the version that waits is a deletion; then the other properties are empty.
 * @property document the document as it is now.
 * @property spans places of its n passages in the text, in code points.
 * @property vectors float16[n, fullDim]; null if they have to be made again from the text.
 * @property device the device that wrote the version; null for this one.
 * @property damaged whether the document is not what was stored; then it is empty, too.
 */
internal class Outgoing(
    val id: String,
    val stamp: Long,
    val deleted: Boolean,
    val document: Document? = null,
    val spans: List<Span> = emptyList(),
    val vectors: Vectors? = null,
    val device: String? = null,
    val damaged: Boolean = false,
)

/**
 * What a server said of a version that was sent.
 *
 * @property status `applied`; `stale`, if the server has a newer version; `clock_ahead`, if the stamp is too far
 *     in the future; `invalid`, `too_large` or `forbidden`, if the server refused the version.
 * @property newer the stamp of the version that the server has, if it named one; else 0.
 * @property detail what was said beside the status, for people.
 */
internal class Verdict(val id: String, val stamp: Long, val status: String, val newer: Long = 0, val detail: String = "")

internal fun queueOf(store: Store): Queue = store.lending { database, _ ->
    val row = database.row("SELECT count(*), ifnull(sum(bytes), 0), min(queued_ms) FROM outbox")!!
    Queue(row[0] as Long, row[1] as Long, row[2] as Long?)
}

/** Whether a server has acknowledged any of the store's documents. */
internal fun everAcknowledged(store: Store): Boolean =
    store.lending { database, _ -> database.row("SELECT 1 FROM versions WHERE acknowledged > ? LIMIT 1", NEVER) != null }

/**
 * The oldest documents that wait, as they are now, [limit] at most. A queue that is damaged is made again
 * first, from versions and documents; a document that is damaged is there without its content.
 */
internal fun outgoing(store: Store, limit: Int): List<Outgoing> {
    repeat(MENDED) {
        store.reading { view -> store.lending { database, _ -> waiting(store, database, view, limit) } }?.let { return it }
        store.changing { mendQueue(it) }
    }
    throw DamagedException("the queue cannot be trusted")
}

private fun waiting(store: Store, database: Database, view: org.edgemrl.store.View, limit: Int): List<Outgoing>? {
    val rows = database.rows("SELECT id, stamp, deleted, bytes, crc FROM outbox ORDER BY stamp LIMIT ?", limit)
    if (rows.any { checksum(it.asList().subList(0, 4)) != it[4] }) return null
    val live = rows.filter { it[2] == 0L }.map { it[0] as String }
    val keys = database.select("key, id", "id", live).associate { it[1] as String to it[0] as Long }
    val documents = view.documents(keys.values)
    val places = view.places(keys.values, partial = true)
    val fulls = fullsOf(database, store, keys.values)
    val writers = otherWriters(database, rows.map { it[0] as String })
    return rows.map { row ->
        val id = row[0] as String
        val stamp = row[1] as Long
        val key = keys[id]
        if (row[2] != 0L) {
            Outgoing(id, stamp, deleted = true, device = writers[id])
        } else if (key == null || key in view.damaged) { // not there by its name, or not what was stored
            Outgoing(id, stamp, deleted = false, damaged = true)
        } else {
            val spans = places[key]?.spans ?: emptyList()
            val vectors = if (spans.isEmpty()) Vectors.noFull(store.binding.fullDim ?: 1) else fulls[key]
            Outgoing(id, stamp, deleted = false, document = documents.getValue(key), spans = spans, vectors = vectors, device = writers[id])
        }
    }
}

/** The devices that wrote versions which this one offers, by id. */
private fun otherWriters(database: Database, ids: List<String>): Map<String, String> {
    val device = readEnrollment(database)?.device
    return database.select("id, device", "id", ids, "versions").associate { it[0] as String to it[1] as String }.filterValues { it != device }
}

/** Full vectors as they are sent, by key; where int8 is kept, they are made again from the text. */
private fun fullsOf(database: Database, store: Store, keys: Collection<Long>): Map<Long, Vectors> {
    val dim = store.binding.fullDim
    if (dim == null || store.keepFull != "until-synced" && store.keepFull != "fp16") return emptyMap()
    val found = HashMap<Long, Vectors>()
    for ((key, crc, data) in database.select("document, crc, vectors", "document", keys, "fulls")) {
        // One that is damaged is made again, too.
        if (data is ByteArray && keyedCheck(key as Long, data) == crc) found[key] = Vectors(VectorType.FLOAT16, dim, data)
    }
    return found
}

/**
 * Notes on disk that a push is about to go out, since its answer may be lost.
 *
 * @param number the number of the last push, plus one.
 * @return whether the push may go out: false if another process has begun one meanwhile.
 */
internal fun beginPush(store: Store, number: Long, ids: List<String>): Boolean = store.changing { database ->
    val now = requireEnrollment(database, store)
    if (now.isOpen || number != now.push + 1) return@changing false
    writeVersions(database, knownVersions(database, ids).filterValues { it.acknowledged == NEVER && !it.deleted }.mapValues { it.value.copy(sent = number) })
    writeEnrollment(database, now.copy(push = number))
    true
}

/**
 * Takes over whether a push arrived. The server said so, and does not accept that push any more.
 *
 * @param number the number of the push; earlier ones are settled with it.
 * @param refused documents of the push that the server refused; null if the push did not arrive.
 */
internal fun settlePush(store: Store, number: Long, refused: Collection<String>?) {
    store.changing { database ->
        val now = requireEnrollment(database, store)
        // Another process may have begun the next one meanwhile.
        val sent = database.rows("SELECT id FROM versions WHERE sent BETWEEN 1 AND ? AND acknowledged = ?", number, NEVER).map { it[0] as String }
        val versions = knownVersions(database, sent).mapValues { (id, one) -> one.settled(arrived = refused != null && id !in refused) }
        writeVersions(database, versions)
        writeEnrollment(database, now.copy(push = maxOf(now.push, number), answered = maxOf(now.answered, number)))
    }
}

/**
 * Takes over what a server said of versions that were sent, in one transaction. A document leaves the queue
 * only if its version is still the one that was sent. Then the full vectors that were kept for it go too.
 *
 * @param offsetMs the server's clock less this machine's.
 * @param number the number of the push; 0 if it had none.
 */
internal fun acknowledge(store: Store, verdicts: List<Verdict>, offsetMs: Long, number: Long = 0) {
    store.changing { database ->
        val before = requireEnrollment(database, store)
        val now = before.copy(offsetMs = offsetMs, answered = maxOf(before.answered, number))
        val known = knownVersions(database, verdicts.map { it.id })
        val versions = known.mapValuesTo(LinkedHashMap()) { it.value.settled(arrived = false) }
        val stamps = ArrayList<Long>()
        val ahead = LinkedHashMap<String, Long>()
        val done = verdicts.filter { it.status == "applied" || it.status == "stale" }
        for (verdict in done) {
            stamps += listOf(verdict.newer, verdict.stamp)
            val one = known[verdict.id] ?: continue
            // A version that lost was never accepted, though the server knows the document.
            val got = verdict.stamp - if (verdict.status == "stale") 1 else 0
            versions[verdict.id] = one.copy(acknowledged = maxOf(one.acknowledged, got))
        }
        for (verdict in verdicts.filter { it.status == "clock_ahead" }) {
            // What the server has may be ahead of the time too: the next stamp has to be above that.
            ahead[verdict.id] = verdict.newer
            stamps += verdict.newer
        }
        writeVersions(database, versions)
        refuse(database, store, verdicts - done.toSet(), known, now.device)
        dequeue(database, store, done)
        val after = now.seen(stamps)
        // These alone: others that wait may be ahead for good reason, above what the server has.
        if (ahead.isNotEmpty()) restamp(database, after.copy(last = after.floor), ahead.keys, ahead) else writeEnrollment(database, after)
    }
}

/** What a server refused: this device's are dead letters, others' versions that it offered are given up. */
private fun refuse(database: Database, store: Store, verdicts: List<Verdict>, known: Map<String, Known>, device: String) {
    val refused = verdicts.filter { it.status != "clock_ahead" }
    val (offered, letters) = refused.partition { one -> known[one.id]?.let { it.version.device != device } ?: false }
    dequeue(database, store, offered)
    giveUp(database, offered.associate { it.id to known.getValue(it.id) })
    moveToDeadLetters(database, letters)
}

private fun dequeue(database: Database, store: Store, done: List<Verdict>) {
    val gone = done.filter { database.execute("DELETE FROM outbox WHERE id = ? AND stamp = ?", it.id, it.stamp) > 0 }
    if (store.keepFull == "until-synced") forgetFulls(database, gone.map { it.id })
}

/** Values that change when something is queued to be sent. The largest stamp alone stays the same behind one that is ahead of the time. */
internal fun newestQueued(store: Store): List<Any?> =
    store.lending { database, _ -> database.row("SELECT count(*), ifnull(max(stamp), 0) FROM outbox")!!.asList() }
