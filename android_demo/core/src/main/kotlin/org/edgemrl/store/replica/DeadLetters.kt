package org.edgemrl.store.replica

import org.edgemrl.ByCodePoint
import org.edgemrl.Document
import org.edgemrl.clean
import org.edgemrl.idProblem
import org.edgemrl.store.Database
import org.edgemrl.store.DeadLetter
import org.edgemrl.store.Store
import org.edgemrl.store.checksum
import org.edgemrl.store.decodeMetadata
import org.edgemrl.store.insertInto
import org.edgemrl.wire.Wall

/** Reasons why a version is not sent, beside those of a server: `invalid`, `too_large`, `forbidden`. */
internal const val DELETED_ELSEWHERE = "deleted_elsewhere"
internal const val NO_VECTORS = "no_vectors"
internal const val DAMAGED = "damaged"
internal const val REPLACED_ELSEWHERE = "replaced_elsewhere"

/** Reasons of letters that hold a text which the store does not have any more. */
private val HOLD_TEXT = setOf(DELETED_ELSEWHERE, REPLACED_ELSEWHERE)
private const val DEAD_COLUMNS = "id, stamp, reason, since_ms, deleted, metadata, text, crc, detail"

/** The number of dead letters. */
internal fun countDeadLetters(store: Store): Long = store.lending { database, _ ->
    database.row("SELECT (SELECT count(*) FROM dead) + (SELECT count(*) FROM withheld)")!![0] as Long
}

/**
 * All dead letters, ordered by id; of one document, what arrived comes behind what is not sent. One that is
 * not what was written is there with the reason `damaged`, and nothing else.
 */
internal fun listDeadLetters(store: Store): List<DeadLetter> = store.lending { database, _ ->
    val rows = database.rows("SELECT $DEAD_COLUMNS FROM dead ORDER BY id")
    val here = soundDocuments(store, database, rows.map { it[0] as String })
    val letters = ArrayList<DeadLetter>()
    for (row in rows) {
        val (id, stamp, reason, since, deleted) = row
        if (checksum(row.asList().subList(0, 7)) != row[7]) {
            letters.add(damagedLetter(clean(id.toString())))
            continue
        }
        val text = row[6]
        val document = if (text is String) Document(id as String, text, decodeMetadata(row[5] as String)) else here[id].takeIf { deleted == 0L }
        letters.add(DeadLetter(id as String, reason as String, since as Long, deleted != 0L, document, stamp as Long, "", row[8].toString()))
    }
    listWithheld(database).mapTo(letters) {
        DeadLetter(it.id, it.reason, it.sinceMs, it.deleted, it.document, it.version.stamp, it.version.device, it.detail)
    }
    damagedWithheld(database).mapTo(letters) { damagedLetter(it) }
    letters.sortedWith(Comparator<DeadLetter> { a, b -> ByCodePoint.compare(a.id, b.id) }.thenBy { it.device != "" })
}

private fun damagedLetter(id: String) =
    DeadLetter(id, DAMAGED, 0, deleted = false, document = null, detail = "what is known of it is damaged: `edge-mrl check --repair` on a computer drops it")

private fun soundDocuments(store: Store, database: Database, ids: List<String>): Map<String, Document> {
    val keys = database.select("key", "id", ids.filter { idProblem(it) == null }).map { it[0] as Long }
    return store.reading { view -> view.documents(keys).values.associateBy { it.id } }
}

/**
 * Queues dead letters again, with new stamps. What could not be stored here is asked for again.
 *
 * @param ids which documents; null for all.
 * @return how many were queued, and the documents that were deleted or replaced elsewhere. Those are not
 *     queued: put them again to keep them.
 */
internal fun requeueDeadLetters(store: Store, ids: Collection<String>?): Pair<Int, List<Document>> {
    val wanted = ids?.toSet()
    val found = listDeadLetters(store).filter { wanted == null || it.id in wanted }
    val letters = found.filter { it.device.isEmpty() && it.stamp != 0L }
    val again = letters.filter { it.reason !in HOLD_TEXT }
    // Put again, they are this device's: their writer has not sent them since the server lost them.
    val gone = letters.filter { it.reason in HOLD_TEXT } + found.filter { it.reason == LOST }
    val asked = found.filter { it.reason == UNREADABLE }.map { it.id }
    store.changing { database ->
        val now = requireEnrollment(database, store)
        writeQueue(database, again.map { Queued(it.id, now.last, it.deleted, Wall.nowMs(), 0) })
        restamp(database, now, again.map { it.id })
        database.many("DELETE FROM dead WHERE id = ?", again.map { listOf(it.id) })
        askAgain(database, asked)
    }
    return again.size + asked.size to gone.mapNotNull { it.document }
}

/** Drops dead letters of some documents, or all. Their documents stay in the store, and are not sent. */
internal fun dropDeadLetters(store: Store, ids: Collection<String>?): Int = store.changing { database ->
    val there = database.rows("SELECT id FROM dead").map { it[0] as String }
    val chosen = ids?.toSet()
    val wanted = there.filter { chosen == null || it in chosen }
    database.many("DELETE FROM dead WHERE id = ?", wanted.map { listOf(it) })
    val withheld = dropWithheld(database, chosen)
    if (store.keepFull == "until-synced") forgetFulls(database, wanted)
    wanted.size + withheld
}

/** Deletes the full vectors that were kept for documents. */
internal fun forgetFulls(database: Database, ids: Collection<String>): Unit =
    database.many("DELETE FROM fulls WHERE document = (SELECT key FROM documents WHERE id = ?)", ids.map { listOf(it) })

/** Moves versions from the queue to the dead letters. Their documents stay. */
internal fun moveToDeadLetters(database: Database, letters: List<Verdict>) {
    for (one in letters) {
        val row = database.row("SELECT deleted FROM outbox WHERE id = ? AND stamp = ?", one.id, one.stamp) ?: continue
        database.execute("DELETE FROM outbox WHERE id = ? AND stamp = ?", one.id, one.stamp)
        writeDeadLetter(database, one.id, one.stamp, one.status, deleted = row[0] != 0L, detail = one.detail)
    }
}

/** Writes a dead letter; [kept] are metadata and text of a document that is deleted here. */
internal fun writeDeadLetter(
    database: Database,
    id: String,
    stamp: Long,
    reason: String,
    deleted: Boolean = false,
    kept: Kept? = null,
    detail: String = "",
) {
    val values = listOf<Any?>(id, stamp, reason, Wall.nowMs(), if (deleted) 1L else 0L, kept?.metadata, kept?.text)
    // The detail is for people alone: nothing depends on it, and no checksum covers it.
    val row = values + listOf(checksum(values), cut(clean(detail), DETAIL_CHARS))
    database.execute(insertInto("dead", DEAD_COLUMNS, replace = true), *row.toTypedArray())
}
