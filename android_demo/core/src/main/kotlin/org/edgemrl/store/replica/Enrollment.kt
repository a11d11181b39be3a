package org.edgemrl.store.replica

import org.edgemrl.DamagedException
import org.edgemrl.NotEnrolledException
import org.edgemrl.store.Database
import org.edgemrl.store.Store
import org.edgemrl.store.checksum
import org.edgemrl.store.insertInto
import org.edgemrl.wire.latestStamp

/**
 * Bytes of vectors that wait for a server at most, by default. Beyond it they are made again from the text
 * when it is their turn.
 */
internal const val MAX_QUEUE_BYTES = 256L shl 20

private const val SYNC_COLUMNS = "server, tenant, device, cursor, last, floor, offset_ms, with_text, max_queue, success_ms, " +
    "margin, epoch, push, answered"

/**
 * With which server and under which name a store is synced, and how far: the row of the table `sync`.
 *
 * @property cursor the server's last change that was pulled; 0 before the first pull.
 * @property last the largest stamp that was written or seen here.
 * @property floor the largest stamp that the server is known to have, of any device.
 * @property offsetMs milliseconds to add to this machine's clock to get the server's time.
 * @property maxQueue at most this many bytes of vectors wait in the queue.
 * @property successMs when a sync last succeeded, in milliseconds since 1970; 0 for never.
 * @property margin the doubt from which a search asks the server; null for the default.
 * @property epoch the server's epoch in which [cursor] counts; empty if the server did not say.
 * @property push the number of the last push that was begun.
 * @property answered the number of the last push whose outcome is known: [push], or one less.
 */
internal data class Enrollment(
    val server: String,
    val tenant: String,
    val device: String,
    val cursor: Long = 0,
    val last: Long = 0,
    val floor: Long = 0,
    val offsetMs: Long = 0,
    val withText: Boolean = false,
    val maxQueue: Long = MAX_QUEUE_BYTES,
    val successMs: Long = 0,
    val margin: Double? = null,
    val epoch: String = "",
    val push: Long = 0,
    val answered: Long = 0,
) {
    /** Whether it is not known yet if the last push arrived. */
    val isOpen: Boolean get() = push > answered

    /** The same after stamps of versions that a server has were seen. */
    fun seen(stamps: Iterable<Long>): Enrollment {
        val clock = Stamps(this)
        val latest = latestStamp(offsetMs)
        var most = floor
        for (stamp in stamps) {
            clock.see(stamp)
            if (stamp <= latest) most = maxOf(most, stamp)
        }
        return copy(last = clock.last, floor = most)
    }
}

/** The enrollment of a store, or null. @throws DamagedException if it is not what was written. */
internal fun readEnrollment(database: Database): Enrollment? {
    val row = database.row("SELECT $SYNC_COLUMNS, crc FROM sync")?.asList() ?: return null
    if (checksum(row.dropLast(1)) != row.last()) throw DamagedException("what it knows of its server cannot be trusted")
    return Enrollment(
        row[0] as String, row[1] as String, row[2] as String, row[3] as Long, row[4] as Long, row[5] as Long, row[6] as Long, row[7] != 0L,
        row[8] as Long, row[9] as Long, row[10] as Double?, row[11] as String, row[12] as Long, row[13] as Long,
    )
}

internal fun writeEnrollment(database: Database, now: Enrollment) {
    val values = listOf<Any?>(
        now.server, now.tenant, now.device, now.cursor, now.last, now.floor, now.offsetMs, if (now.withText) 1L else 0L, now.maxQueue,
        now.successMs, now.margin, now.epoch, now.push, now.answered,
    )
    database.execute(insertInto("sync", "id, $SYNC_COLUMNS, crc", replace = true), 1, *values.toTypedArray(), checksum(values))
}

/** Where a store is synced to. @throws NotEnrolledException if nowhere. */
internal fun requireEnrollment(database: Database, store: Store): Enrollment = readEnrollment(database) ?: throw NotEnrolledException(store.path)

/** The enrollment of a store, or null if it is not enrolled. */
internal fun enrollmentOf(store: Store): Enrollment? = store.lending { database, _ -> readEnrollment(database) }
