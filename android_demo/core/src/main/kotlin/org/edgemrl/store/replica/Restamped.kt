package org.edgemrl.store.replica

import org.edgemrl.store.Database
import org.edgemrl.store.Store
import org.edgemrl.wire.Version

/**
 * How a server has brought back the stamps that were ahead of its clock.
 *
 * @property first below every stamp that was given anew.
 * @property last the largest of them; whatever this device has of before and is above, has another stamp now.
 * @property epochs the epochs since then: a device that comes from one of them knows of it.
 */
internal class Restamp(val first: Long, val last: Long, val epochs: List<String>)

/**
 * Lowers what this device has from before, so that what the server has now is the newer version. Call it
 * before everything is pulled. Taken twice, it changes nothing more.
 */
internal fun takeRestamp(store: Store, said: Restamp) {
    store.changing { database ->
        val now = requireEnrollment(database, store)
        val ids = database.rows("SELECT id FROM versions WHERE stamp > ? OR acknowledged > ?", said.last, said.last).map { it[0] as String }
        val waiting = waitingAmong(database, ids)
        val lowered = knownVersions(database, ids).mapValues { (id, one) ->
            // What waits here was never accepted as this version: it gets a stamp of now, below.
            val mine = id in waiting && one.version.device == now.device
            val version = if (mine) one.version else Version(said.first, one.version.device)
            one.copy(version = version, acknowledged = minOf(one.acknowledged, said.first))
        }
        writeVersions(database, lowered)
        requeue(database, lowered.filterKeys { it in waiting }, now.device)
        database.execute("DELETE FROM withheld WHERE stamp > ? AND reason = 'unreadable'", said.last)
        restamp(database, now.copy(last = minOf(now.last, said.last), floor = minOf(now.floor, said.last)))
    }
}

/** The same for versions of other devices that wait to be offered: they keep their place in order. */
private fun requeue(database: Database, lowered: Map<String, Known>, device: String) {
    val rows = database.select("id, deleted, queued_ms, bytes", "id", lowered.keys, "outbox").map { row ->
        Queued(row[0] as String, lowered.getValue(row[0] as String).version.stamp, row[1] != 0L, row[2] as Long, row[3] as Long)
    }
    writeQueue(database, rows.filter { lowered.getValue(it.id).version.device != device })
}
