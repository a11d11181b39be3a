package org.edgemrl.store

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import org.edgemrl.DamagedException

private const val COUNTER_BITS = 16
private const val MAX_AHEAD_MS = 5 * 60_000L
private const val NEVER = 0L
private const val UNKNOWN = 1L
private const val GROUPS = 256

private const val SYNC_COLUMNS = "server, tenant, device, cursor, last, floor, offset_ms, with_text, max_queue, success_ms, " +
    "margin, epoch, push, answered"
private const val VERSION_COLUMNS = "id, stamp, device, deleted, acknowledged, sent"
internal const val WITHHELD_COLUMNS = "id, stamp, device, deleted, reason, detail, since_ms, program, metadata, text, again"
private const val AGREEMENT_COLUMNS = "sums, pending, there, here, tries, next_ms, differs"

/** With which server and under which name a store is synced, and how far: the row of the table `sync`. */
internal class Enrollment(private val row: List<Any?>) {
    val device get() = row[2] as String
    val last get() = row[4] as Long
    val offsetMs get() = row[6] as Long
    val withText get() = row[7] != 0L
    val maxQueue get() = row[8] as Long

    fun write(database: Database, last: Long) {
        val values = row.toMutableList().also { it[4] = last }
        database.execute(insertInto("sync", "id, $SYNC_COLUMNS, crc", replace = true), 1, *values.toTypedArray(), checksum(values))
    }
}

/** The enrollment of a store, or null. @throws DamagedException if it is not what was written. */
internal fun readEnrollment(database: Database): Enrollment? {
    val row = database.row("SELECT $SYNC_COLUMNS, crc FROM sync")?.asList() ?: return null
    if (checksum(row.dropLast(1)) != row.last()) throw DamagedException("what it knows of its server cannot be trusted")
    return Enrollment(row.dropLast(1))
}

/** A document that was written; [bytes] of its full vectors are kept to be sent. */
internal class Change(val id: String, val deleted: Boolean, val bytes: Long = 0)

private class Known(val stamp: Long, val deleted: Boolean, val acknowledged: Long, val sent: Long)

/**
 * Gives stamps to what is written here (FORMAT.md, "Versions"): at least the time, and above those before.
 * A stamp further ahead than a right clock could be counts for its own document alone.
 */
private class Stamps(enrollment: Enrollment, nowMs: Long) {
    private val here = maxOf(nowMs + enrollment.offsetMs, 0L) shl COUNTER_BITS
    private val latest = maxOf(nowMs + enrollment.offsetMs + MAX_AHEAD_MS, 0L) shl COUNTER_BITS
    var last = 0L
        private set

    init {
        see(enrollment.last)
    }

    fun next(known: Known?, above: Long): Long {
        val seen = maxOf(last, above, if (known == null) 0L else maxOf(known.acknowledged, known.stamp))
        val stamp = if (seen == Long.MAX_VALUE) seen else maxOf(here, seen + 1)
        see(stamp)
        return stamp
    }

    private fun see(stamp: Long) {
        if (stamp in last + 1..latest) last = stamp
    }
}

/**
 * Gives each written document a new version, and queues it; nothing in a store that is not enrolled. Call
 * it in the transaction of the write, so that a document and its row of the queue are there together.
 */
internal fun note(database: Database, changes: List<Change>, nowMs: Long = System.currentTimeMillis()) {
    val enrollment = (if (changes.isEmpty()) null else readEnrollment(database)) ?: return
    val clock = Stamps(enrollment, nowMs)
    val names = changes.map { it.id }
    val known = knownVersions(database, names)
    val withheld = withheldStamps(database, names)
    val versions = ArrayList<List<Any?>>()
    for (change in changes) {
        val before = known[change.id]
        val stamp = clock.next(before, withheld[change.id] ?: 0L)
        // Put again after a deletion, it is a new document.
        val old = before != null && (change.deleted || !before.deleted)
        val (acknowledged, sent) = if (old) before.acknowledged to before.sent else NEVER to 0L
        versions.add(listOf(change.id, stamp, enrollment.device, if (change.deleted) 1L else 0L, acknowledged, sent))
    }
    moveSums(database, names, versions)
    database.many(insertInto("versions", "$VERSION_COLUMNS, crc", replace = true), versions.map { it + checksum(it) })
    database.many(
        insertInto("outbox", "id, stamp, deleted, queued_ms, bytes, crc") + " ON CONFLICT (id) DO UPDATE SET " +
            "stamp = excluded.stamp, deleted = excluded.deleted, bytes = excluded.bytes, crc = excluded.crc",
        changes.zip(versions) { change, version ->
            val crc = checksum(change.id, version[1], version[3], change.bytes)
            listOf(change.id, version[1], version[3], nowMs, change.bytes, crc)
        },
    )
    // A letter about an older version is of no use any more.
    database.many("DELETE FROM dead WHERE id = ?", names.map { listOf(it) })
    database.many("DELETE FROM withheld WHERE id = ?", names.map { listOf(it) })
    enrollment.write(database, clock.last)
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

private fun knownVersions(database: Database, ids: List<String>): Map<String, Known> {
    val found = HashMap<String, Known>()
    for (row in database.select("$VERSION_COLUMNS, crc", "id", ids, "versions")) {
        val id = row[0] as String
        found[id] = if (checksum(row.asList().dropLast(1)) == row[6]) {
            Known(row[1] as Long, row[3] != 0L, row[4] as Long, row[5] as Long)
        } else {
            unknownVersion(database, id)
        }
    }
    return found
}

/** What is left of a damaged version: what waits in the queue; or any version is newer. */
private fun unknownVersion(database: Database, id: String): Known {
    val row = database.row("SELECT stamp, deleted, bytes, crc FROM outbox WHERE id = ?", id)
    if (row != null && checksum(id, row[0], row[1], row[2]) == row[3]) return Known(row[0] as Long, row[1] != 0L, UNKNOWN, 0)
    return Known(1, database.row("SELECT 1 FROM documents WHERE id = ?", id) == null, UNKNOWN, 0)
}

/** Stamps of versions of other devices that could not be stored here: the next one must be newer. */
private fun withheldStamps(database: Database, ids: List<String>): Map<String, Long> =
    database.select("$WITHHELD_COLUMNS, crc", "id", ids, "withheld")
        .filter { checksum(it.asList().dropLast(1)) == it.last() }
        .associate { it[0] as String to it[1] as Long }

/** Counts other versions of documents in the sums of live ones (FORMAT.md, "Agreement"). Call before they are written. */
private fun moveSums(database: Database, names: List<String>, after: List<List<Any?>>) {
    val rows = database.select("$VERSION_COLUMNS, crc", "id", names, "versions").map { it.asList() }
    if (rows.any { checksum(it.dropLast(1)) != it.last() }) {
        database.execute("DELETE FROM agreement") // nobody knows what was counted for it
        return
    }
    val before = rows.map { it.subList(0, 4) }.toSet()
    val later = after.map { it.subList(0, 4) }.toSet()
    val gone = (before - later).filter { it[3] == 0L }
    val come = (later - before).filter { it[3] == 0L }
    if (gone.isEmpty() && come.isEmpty()) return
    val row = database.row("SELECT $AGREEMENT_COLUMNS, crc FROM agreement")?.asList()
    val sound = row != null && checksum(row.dropLast(1)) == row.last()
    val values = (if (sound) row.dropLast(1) else newAgreement(database)).toMutableList()
    val sums = (values[0] as ByteArray).copyOf()
    for (one in gone) addShare(sums, one, -1)
    for (one in come) addShare(sums, one, 1)
    values[0] = sums
    database.execute(insertInto("agreement", "id, $AGREEMENT_COLUMNS, crc", replace = true), 1, *values.toTypedArray(), checksum(values))
}

private fun newAgreement(database: Database): List<Any?> {
    val sums = ByteArray(8 * GROUPS)
    database.each("SELECT $VERSION_COLUMNS, crc FROM versions") { row ->
        if (row[3] == 0L && checksum(row.asList().dropLast(1)) == row[6]) addShare(sums, row.asList(), 1)
    }
    return listOf(sums, ByteArray(0), "0".repeat(16), "0".repeat(16), 0L, 0L, 0L)
}

private fun addShare(sums: ByteArray, version: List<Any?>, sign: Long) {
    val id = (version[0] as String).toByteArray(Charsets.UTF_8)
    val digest = MessageDigest.getInstance("SHA-256")
    val group = digest.digest(id)[0].toInt() and 255
    digest.update(id)
    digest.update(0)
    digest.update(ByteBuffer.allocate(8).putLong(version[1] as Long).array())
    val share = ByteBuffer.wrap(digest.digest((version[2] as String).toByteArray(Charsets.UTF_8))).order(ByteOrder.LITTLE_ENDIAN).long
    val all = ByteBuffer.wrap(sums).order(ByteOrder.LITTLE_ENDIAN)
    all.putLong(8 * group, all.getLong(8 * group) + sign * share)
}
