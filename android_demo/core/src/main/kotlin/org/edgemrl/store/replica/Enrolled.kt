package org.edgemrl.store.replica

import org.edgemrl.UsageException
import org.edgemrl.store.Database
import org.edgemrl.store.Store
import org.edgemrl.wire.Version
import org.edgemrl.wire.Wall
import org.edgemrl.wire.latestStamp

/**
 * Enrolls a store with a server, and queues the documents that the server does not have. With the same server
 * and tenant, under a new device name, it keeps what it knows of the server and sends what it had not sent,
 * with the stamps of then. With another server or tenant all documents are queued.
 *
 * @param wanted server, tenant, device, the clock's offset, and what is sent.
 * @throws UsageException if the store's bundle gives no full vectors.
 */
internal fun enrollStore(store: Store, wanted: Enrollment) {
    val fullDim = store.binding.fullDim
        ?: throw UsageException("${store.path} cannot be synced: its bundle ${store.binding.bundle} gives no full vectors (it was exported with --coarse-only)")
    store.changing { database ->
        val before = readEnrollment(database)
        store.writeBound(database, store.binding.copy(fullDim = fullDim), store.keepFull ?: "until-synced")
        if (before != null && before.server == wanted.server && before.tenant == wanted.tenant) {
            val kept = wanted.copy(
                cursor = before.cursor, last = before.last, floor = before.floor, successMs = before.successMs, margin = before.margin, epoch = before.epoch,
            )
            keepName(database, before.device)
            rename(database, before.device, wanted.device)
            restamp(database, kept, queuedAhead(database, kept))
        } else {
            keepName(database, null)
            for (table in listOf("versions", "outbox", "dead", "withheld", "agreement")) database.execute("DELETE FROM $table")
            queueAll(database, wanted.copy(last = before?.last ?: 0))
        }
    }
    store.refresh()
}

/**
 * Gives what this device wrote under its former name, and no server has yet, the new name. What waits keeps
 * its stamp: it was written then, and wins over nothing that was written since.
 */
private fun rename(database: Database, device: String, name: String) {
    val ids = database.rows("SELECT id FROM versions WHERE device = ? AND acknowledged < stamp", device).map { it[0] as String }
    val renamed = knownVersions(database, ids).mapValues { (_, one) -> one.settled(arrived = true).copy(version = Version(one.version.stamp, name)) }
    writeVersions(database, renamed)
}

/** What waits with a stamp that is ahead of the server's time. */
private fun queuedAhead(database: Database, enrollment: Enrollment): List<String> =
    database.rows("SELECT id FROM outbox WHERE stamp > ?", latestStamp(enrollment.offsetMs)).map { it[0] as String }

/** Queues every document that is there, with a new stamp. */
private fun queueAll(database: Database, enrollment: Enrollment) {
    val query = "SELECT id, ifnull(length(vectors), 0) FROM documents LEFT JOIN fulls ON document = key ORDER BY key"
    val sizes = database.rows(query).associate { it[0] as String to it[1] as Long }
    val clock = Stamps(enrollment)
    val before = knownVersions(database, sizes.keys)
    val versions = LinkedHashMap<String, Known>()
    val rows = ArrayList<Queued>()
    for ((id, size) in sizes) {
        val stamp = clock.nextAfter(before[id])
        val version = Version(stamp, enrollment.device)
        versions[id] = (before[id] ?: Known(version, deleted = false, acknowledged = NEVER)).copy(version = version, deleted = false)
        rows.add(Queued(id, stamp, deleted = false, queuedMs = Wall.nowMs(), bytes = size))
    }
    writeVersions(database, versions)
    writeQueue(database, rows)
    writeEnrollment(database, enrollment.copy(last = clock.last))
}

/** Chooses whether text and metadata are sent. If they are from now on, all documents are sent again with them. */
internal fun setWithText(store: Store, withText: Boolean) {
    store.changing { database ->
        val before = requireEnrollment(database, store)
        if (before.withText == withText) return@changing
        if (withText) queueAll(database, before.copy(withText = true)) else writeEnrollment(database, before.copy(withText = false))
    }
}

/** Has the next sync pull everything, and send again this device's documents that the server lacks. */
internal fun resend(store: Store) {
    store.changing { database ->
        // No server's epoch has this name.
        writeEnrollment(database, requireEnrollment(database, store).copy(epoch = "resend"))
        writeAgreement(database, readAgreement(database).copy(tries = 0, nextMs = 0, there = 0, here = 0))
    }
}

/** Changes the enrollment of a store in one transaction. */
internal fun changeEnrollment(store: Store, change: (Enrollment) -> Enrollment) {
    store.changing { database -> writeEnrollment(database, change(requireEnrollment(database, store))) }
}
