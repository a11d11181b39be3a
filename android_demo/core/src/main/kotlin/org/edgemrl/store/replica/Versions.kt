package org.edgemrl.store.replica

import org.edgemrl.store.Database
import org.edgemrl.store.checksum
import org.edgemrl.store.insertInto
import org.edgemrl.wire.Version
import org.edgemrl.wire.Wall
import org.edgemrl.wire.latestStamp
import org.edgemrl.wire.nextStamp

/** Stamps in [Known.acknowledged] that no version has: no server has the document; or it has a version that is not known here. */
internal const val NEVER = 0L
internal const val UNKNOWN = 1L

internal const val VERSION_COLUMNS = "id, stamp, device, deleted, acknowledged, sent"

/**
 * What is known of the version of a document.
 *
 * @property acknowledged the newest stamp of this document that the server has; or [NEVER], or [UNKNOWN].
 * @property sent the number of the push in which the document first reached the server. While [acknowledged]
 *     is [NEVER]: of a push that may or may not have arrived. 0 if it was in no such push.
 */
internal data class Known(val version: Version, val deleted: Boolean, val acknowledged: Long, val sent: Long = 0) {
    /** Whether it was sent in a push that may or may not have arrived. */
    val isOpen: Boolean get() = sent > 0 && acknowledged == NEVER

    /** The same, once it is known whether the push arrived; then the server has some version of it. */
    fun settled(arrived: Boolean): Known = if (!isOpen) this else if (arrived) copy(acknowledged = UNKNOWN) else copy(sent = 0)
}

/** A document that was written; [bytes] of its full vectors are kept to be sent. */
internal class Change(val id: String, val deleted: Boolean, val bytes: Long = 0)

/** A row of the queue; [queuedMs] says since when the document waits, in milliseconds since 1970. */
internal data class Queued(val id: String, val stamp: Long, val deleted: Boolean, val queuedMs: Long, val bytes: Long)

/**
 * Gives stamps to what is written here (FORMAT.md, "Versions"): at least the time, and above those before.
 * A stamp further ahead than a right clock could be counts for its own document alone.
 */
internal class Stamps(enrollment: Enrollment, private val nowMs: Long = Wall.nowMs()) {
    private val offsetMs = enrollment.offsetMs
    private val latest = latestStamp(offsetMs, nowMs)

    /** The largest stamp given or seen that is not ahead of the time. */
    var last = 0L
        private set

    init {
        see(enrollment.last)
    }

    /** Follows a stamp that was seen, unless it is ahead of the time. */
    fun see(stamp: Long) {
        if (stamp in last + 1..latest) last = stamp
    }

    /**
     * The stamp of a document's next version.
     *
     * @param acknowledged only be above what a server has, as where the version here was never accepted.
     * @param above a stamp that it has to be above too.
     */
    fun nextAfter(known: Known?, acknowledged: Boolean = false, above: Long = 0): Long {
        val seen = if (known == null) 0L else if (acknowledged) known.acknowledged else maxOf(known.acknowledged, known.version.stamp)
        val stamp = nextStamp(maxOf(last, seen, above), offsetMs, nowMs)
        see(stamp)
        return stamp
    }
}

/**
 * Gives each written document a new version, and queues it; nothing in a store that is not enrolled. Call
 * it in the transaction of the write, so that a document and its row of the queue are there together.
 */
internal fun note(database: Database, changes: List<Change>) {
    val enrollment = (if (changes.isEmpty()) null else readEnrollment(database)) ?: return
    val nowMs = Wall.nowMs()
    val clock = Stamps(enrollment, nowMs)
    val names = changes.map { it.id }
    val known = knownVersions(database, names)
    val withheld = listWithheld(database, names).associate { it.id to it.version.stamp }
    val versions = LinkedHashMap<String, Known>()
    val rows = ArrayList<Queued>()
    for (change in changes) {
        val before = known[change.id]
        val stamp = clock.nextAfter(before, above = withheld[change.id] ?: 0L)
        // Put again after a deletion, it is a new document.
        val old = before != null && (change.deleted || !before.deleted)
        val (acknowledged, sent) = if (old) before.acknowledged to before.sent else NEVER to 0L
        versions[change.id] = Known(Version(stamp, enrollment.device), change.deleted, acknowledged, sent)
        rows.add(Queued(change.id, stamp, change.deleted, nowMs, change.bytes))
    }
    writeVersions(database, versions)
    writeQueue(database, rows)
    // A letter about an older version is of no use any more.
    database.many("DELETE FROM dead WHERE id = ?", names.map { listOf(it) })
    database.many("DELETE FROM withheld WHERE id = ?", names.map { listOf(it) })
    writeEnrollment(database, enrollment.copy(last = clock.last))
}

/** Queues documents that were put, and those of which only the metadata changed, where metadata is sent. */
internal fun notePut(database: Database, put: List<Change>, changed: List<String>) {
    val changes = put.toMutableList()
    if (changed.isNotEmpty() && readEnrollment(database)?.withText == true) {
        val query = "SELECT ifnull(max(length(vectors)), 0) FROM fulls JOIN documents ON key = document WHERE id = ?"
        for (id in changed) changes.add(Change(id, false, database.row(query, id)!![0] as Long))
    }
    note(database, changes)
}

/** Bytes of vectors that may still be queued, or null if the store is not enrolled. */
internal fun roomInQueue(database: Database): Long? {
    val enrollment = readEnrollment(database) ?: return null
    return enrollment.maxQueue - database.row("SELECT ifnull(sum(bytes), 0) FROM outbox")!![0] as Long
}

/** Versions of those documents that have one, by id. Of a damaged one nothing is believed. */
internal fun knownVersions(database: Database, ids: Collection<String>): Map<String, Known> {
    val found = LinkedHashMap<String, Known>()
    for (row in database.select("$VERSION_COLUMNS, crc", "id", ids, "versions")) {
        val id = row[0] as String
        found[id] = if (checksum(row.asList().dropLast(1)) == row[6]) knownOf(row) else unknownVersion(database, id)
    }
    return found
}

/** What a sound row of [VERSION_COLUMNS] says. */
internal fun knownOf(row: Array<Any?>): Known =
    Known(Version(row[1] as Long, row[2] as String), row[3] != 0L, row[4] as Long, row[5] as Long)

/** What is left of a damaged version: what waits in the queue; or any version is newer. */
private fun unknownVersion(database: Database, id: String): Known {
    val row = database.row("SELECT stamp, deleted, bytes, crc FROM outbox WHERE id = ?", id)
    if (row != null && checksum(id, row[0], row[1], row[2]) == row[3]) {
        val device = database.row("SELECT device FROM sync")?.get(0) as? String ?: ""
        return Known(Version(row[0] as Long, device), row[1] != 0L, UNKNOWN)
    }
    return Known(Version(1, ""), database.row("SELECT 1 FROM documents WHERE id = ?", id) == null, UNKNOWN)
}

/** Writes versions of documents, given by id. */
internal fun writeVersions(database: Database, versions: Map<String, Known>) {
    val rows = versions.map { (id, one) -> listOf<Any?>(id, one.version.stamp, one.version.device, if (one.deleted) 1L else 0L, one.acknowledged, one.sent) }
    moveSums(database, versions.keys, rows)
    database.many(insertInto("versions", "$VERSION_COLUMNS, crc", replace = true), rows.map { it + checksum(it) })
}

/** Forgets the versions of documents. */
internal fun dropVersions(database: Database, ids: Collection<String>) {
    moveSums(database, ids, emptyList())
    database.many("DELETE FROM versions WHERE id = ?", ids.map { listOf(it) })
}

/** Queues documents. One that waits already is replaced, and keeps the time since when it waits. */
internal fun writeQueue(database: Database, rows: List<Queued>) {
    database.many(
        insertInto("outbox", "id, stamp, deleted, queued_ms, bytes, crc") + " ON CONFLICT (id) DO UPDATE SET " +
            "stamp = excluded.stamp, deleted = excluded.deleted, bytes = excluded.bytes, crc = excluded.crc",
        rows.map { row ->
            val deleted = if (row.deleted) 1L else 0L
            listOf(row.id, row.stamp, deleted, row.queuedMs, row.bytes, checksum(row.id, row.stamp, deleted, row.bytes))
        },
    )
}

/** Those of the documents that wait in the queue. */
internal fun waitingAmong(database: Database, ids: Collection<String>): Set<String> =
    database.select("id", "id", ids, "outbox").mapTo(HashSet()) { it[0] as String }

/**
 * Gives queued documents new stamps, in their present order: each above what a server has of its document,
 * and above `enrollment.last` where that is not ahead of the time. A version of another device, queued to be
 * offered, keeps its stamp. The enrollment is written back with the last new stamp.
 *
 * @param ids which documents; null for all that wait.
 * @param above stamps by id that the new ones have to be above too.
 */
internal fun restamp(database: Database, enrollment: Enrollment, ids: Collection<String>? = null, above: Map<String, Long> = emptyMap()): Enrollment {
    val wanted = ids?.toSet()
    val rows = database.rows("SELECT id, stamp, deleted, queued_ms, bytes FROM outbox ORDER BY stamp")
        .map { Queued(it[0] as String, it[1] as Long, it[2] != 0L, it[3] as Long, it[4] as Long) }
        .filter { wanted == null || it.id in wanted }
    val known = knownVersions(database, rows.map { it.id })
    val clock = Stamps(enrollment)
    val versions = LinkedHashMap<String, Known>()
    val fresh = ArrayList<Queued>()
    for (row in rows) {
        val found = known[row.id]
        if (found != null && found.version.device != enrollment.device) continue
        val stamp = clock.nextAfter(found, acknowledged = true, above = above[row.id] ?: 0L)
        val version = Version(stamp, enrollment.device)
        val before = (found ?: Known(version, row.deleted, NEVER)).settled(arrived = true)
        versions[row.id] = before.copy(version = version, deleted = row.deleted)
        fresh.add(row.copy(stamp = stamp))
    }
    writeVersions(database, versions)
    writeQueue(database, fresh)
    return enrollment.copy(last = clock.last).also { writeEnrollment(database, it) }
}
