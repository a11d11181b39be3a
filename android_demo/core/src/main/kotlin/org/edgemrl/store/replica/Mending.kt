package org.edgemrl.store.replica

import org.edgemrl.idProblem
import org.edgemrl.store.Database
import org.edgemrl.store.checksum
import org.edgemrl.wire.Version
import org.edgemrl.wire.Wall
import org.edgemrl.wire.nextStamp

/**
 * Gives every document a version, and queues this device's versions that no server has acknowledged, after
 * damage has hit versions or queue. A document whose version is lost gets a new one, since nobody knows what
 * the server has of it.
 */
internal fun mendQueue(database: Database) {
    val enrollment = readEnrollment(database) ?: return forgetAll(database)
    val queued = soundQueue(database)
    val versions = soundVersions(database)
    val documents = database.rows("SELECT id FROM documents").map { it[0] }.filterTo(LinkedHashSet()) { it is String && idProblem(it) == null }
    for ((id, row) in queued) {
        // A row of the queue has all that matters of it.
        if (id !in versions) versions[id] = Known(Version(row.stamp, enrollment.device), row.deleted, UNKNOWN)
    }
    val wrong = versions.filter { (id, one) -> one.deleted == (id in documents) }.keys.toSet()
    versions -= wrong
    var last = enrollment.last
    for (id in documents.filter { it !in versions }.map { it as String }.sortedWith(org.edgemrl.ByCodePoint)) {
        last = nextStamp(last, enrollment.offsetMs)
        versions[id] = Known(Version(last, enrollment.device), deleted = false, acknowledged = UNKNOWN)
    }
    val dead = database.rows("SELECT id FROM dead").mapTo(HashSet()) { it[0] }
    val mine = versions.filter { (id, one) -> one.version.device == enrollment.device && one.acknowledged < one.version.stamp - 1 && id !in dead }
    val rows = mine.map { (id, one) ->
        val before = queued[id]
        val bytes = if (before?.stamp == one.version.stamp) before.bytes else 0
        Queued(id, one.version.stamp, one.deleted, before?.queuedMs ?: Wall.nowMs(), bytes)
    }
    // Without a row there, the sums are made again from the versions.
    for (table in listOf("versions", "outbox", "agreement")) database.execute("DELETE FROM $table")
    writeVersions(database, versions)
    writeQueue(database, rows)
    writeEnrollment(database, enrollment.copy(last = last))
}

private fun forgetAll(database: Database) {
    for (table in listOf("versions", "outbox", "dead", "agreement")) database.execute("DELETE FROM $table")
}

private fun soundVersions(database: Database): LinkedHashMap<String, Known> {
    val found = LinkedHashMap<String, Known>()
    for (row in database.rows("SELECT $VERSION_COLUMNS, crc FROM versions")) {
        val id = row[0]
        if (id is String && idProblem(id) == null && checksum(row.asList().dropLast(1)) == row[6]) found[id] = knownOf(row)
    }
    return found
}

private fun soundQueue(database: Database): Map<String, Queued> {
    val found = HashMap<String, Queued>()
    for ((id, stamp, deleted, bytes, crc) in database.rows("SELECT id, stamp, deleted, bytes, crc FROM outbox")) {
        if (id !is String || idProblem(id) != null || checksum(id, stamp, deleted, bytes) != crc) continue
        val since = database.row("SELECT queued_ms FROM outbox WHERE id = ?", id)!![0] as? Long ?: Wall.nowMs()
        found[id] = Queued(id, stamp as Long, deleted != 0L, since, bytes as Long)
    }
    return found
}
