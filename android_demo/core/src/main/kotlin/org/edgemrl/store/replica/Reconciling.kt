package org.edgemrl.store.replica

import org.edgemrl.NetworkException
import org.edgemrl.store.Database
import org.edgemrl.store.Store
import org.edgemrl.wire.Version
import org.edgemrl.wire.Wall

/**
 * What agreeing with a server changed.
 *
 * @property deleted how many documents were deleted here because they were deleted on the server.
 * @property resent how many documents and deletions are queued again because the server had been restored from
 *     an older copy; null if it had not.
 */
internal class Agreed(val deleted: Int, val resent: Int?)

/**
 * Where a server stands after everything was pulled from it.
 *
 * @property cursor its last change that was pulled.
 * @property fence the last change among the deletions that it has forgotten; 0 if it has forgotten none.
 * @property epoch the epoch in which it counts its changes; another one after it was restored.
 * @property kept this device's last push that the server had when the epoch began.
 * @property offers the largest stamp of other devices' versions that it takes; null if it takes none.
 */
internal class ServerPosition(val cursor: Long, val fence: Long, val epoch: String, val kept: Long, val offers: Long?)

/**
 * Agrees with a server, after everything was pulled, on what the server does not have.
 *
 * Where the server has forgotten deletions that this device never saw (a fence): documents that it once had
 * and does not have now were deleted there. They are deleted here, and what was written to them since is kept
 * as a dead letter. Documents that no server ever had get a new stamp. Where the server was restored from an
 * older copy (another epoch): what it lost is queued as it was, or given up.
 *
 * @param there stamps by id of all that the server has, deletions included.
 * @param push the number of the last push before the first page. That push must be settled.
 * @throws NetworkException if another process has pushed since. The store is unchanged.
 */
internal fun reconcile(store: Store, there: Map<String, Long>, server: ServerPosition, push: Long): Agreed = store.taking { taking ->
    val database = taking.database
    val before = requireEnrollment(database, store)
    val own = ownNames(database, before)
    val restored = before.epoch != "" && before.epoch != server.epoch
    val missing = missingThere(database, there, server, unseen = server.fence > before.cursor, restored = restored)
    if (missing.gone.isNotEmpty() && before.push != push) {
        throw NetworkException("another process pushed while everything was pulled: try again later")
    }
    var resent: Int? = null
    if (restored) {
        val rules = Rules(before.device, own, store.keepFull, server.offers)
        resent = queueLost(database, rules, missing.lost, there)
        resent += offerLost(database, missing.lost, there, rules)
    }
    val local = LocalDocuments(database, missing.gone.keys, store.binding, own)
    for ((id, one) in missing.gone) local.takeOffQueue(id, one.version.stamp, deleted = true, before = one)
    dropVersions(database, missing.gone.keys)
    restamp(database, before.copy(cursor = server.cursor, epoch = server.epoch, successMs = Wall.nowMs()), missing.fresh)
    taking.delete(local.keys.keys)
    Agreed(local.keys.size, resent)
}

/** What a server does not have: lost there, deleted there, or new here and never sent. */
private class Missing(val lost: Map<String, Known>, val gone: Map<String, Known>, val fresh: List<String>)

/** Sorts the versions that are newer here than on the server by the reason for that. */
private fun missingThere(database: Database, there: Map<String, Long>, server: ServerPosition, unseen: Boolean, restored: Boolean): Missing {
    val ids = database.rows("SELECT id, stamp FROM versions").filter { (there[it[0]] ?: 0) < it[1] as Long }.map { it[0] as String }
    val lost = LinkedHashMap<String, Known>()
    val gone = LinkedHashMap<String, Known>()
    val fresh = ArrayList<String>()
    for ((id, one) in knownVersions(database, ids)) {
        val forgotten = id !in there && unseen
        if (one.acknowledged == NEVER) {
            if (forgotten) fresh.add(id)
        } else if (restored && (!forgotten || one.sent > server.kept || one.deleted)) {
            // What arrived before the copy was made, the copy shows. Deleting twice does no harm.
            lost[id] = one
        } else if (forgotten) {
            gone[id] = one
        }
    }
    return Missing(lost, gone, fresh)
}

/** Queues again, as it was, what a server has lost of this device's; returns how many. */
private fun queueLost(database: Database, rules: Rules, lost: Map<String, Known>, there: Map<String, Long>): Int {
    val waiting = waitingAmong(database, lost.keys)
    val versions = LinkedHashMap<String, Known>()
    val rows = ArrayList<Queued>()
    for ((id, one) in lost) {
        if (one.version.device !in rules.own) continue
        val stamp = one.version.stamp
        val has = there[id] ?: 0
        val version = Version(stamp, rules.writer(one.version))
        versions[id] = one.copy(version = version, acknowledged = minOf(one.acknowledged, has), sent = if (has != 0L) one.sent else 0)
        // One that had lost against a newer version goes too: that may be lost as well.
        if (one.acknowledged >= stamp - 1 && id !in waiting) rows.add(Queued(id, stamp, one.deleted, Wall.nowMs(), 0))
    }
    writeVersions(database, versions)
    writeQueue(database, rows)
    return rows.size
}

/** Offers what a server has lost of other devices' versions, or gives it up; returns how many wait. */
private fun offerLost(database: Database, lost: Map<String, Known>, there: Map<String, Long>, rules: Rules): Int {
    val waiting = waitingAmong(database, lost.keys)
    // A deletion of what the server does not have says nothing.
    val others = lost.filter { (id, one) -> one.version.device !in rules.own && id !in waiting && (id in there || !one.deleted) }
    return loseOrOffer(database, others, there, rules).queued
}
