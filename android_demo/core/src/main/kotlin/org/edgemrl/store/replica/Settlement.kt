package org.edgemrl.store.replica

import org.edgemrl.store.Database
import org.edgemrl.store.Store
import org.edgemrl.wire.Sums
import org.edgemrl.wire.Version
import org.edgemrl.wire.Wall
import org.edgemrl.wire.groupOf

/** The stamp of a version that was given up: older than any that a server has. */
private const val GIVEN_UP = 1L

/** The first wait before groups that still differ are pulled again, and how often it may double. */
private const val AGAIN_MS = 3_600_000L
private const val DOUBLINGS = 6L
private const val LOST_TEXT =
    "the server was restored from a copy without this version, and this device could not send it for the one that wrote it"

/**
 * What this store holds, as it compares with a server's.
 *
 * @property sums of live versions, with those that the server has and this store cannot hold.
 * @property excused groups with documents that wait, or that the server does not take.
 */
internal class LocalSums(val sums: Sums, val cursor: Long, val epoch: String, val excused: Set<Int>)

/**
 * What agreeing on groups changed.
 *
 * @property deleted documents deleted here, because the server does not have them.
 * @property queued versions queued, as they are, because the server lacks them.
 * @property givenUp versions of other devices that nothing here can send.
 * @property claims versions of other devices that the server takes only after it has seen what it lacks.
 */
internal class Settled(val deleted: Int, val queued: Int, val givenUp: Int, val claims: List<Pair<String, Version>>)

/** A version that a server has, and whether it is a deletion. */
internal class There(val version: Version, val deleted: Boolean)

internal fun agreementOf(store: Store): Agreement = store.lending { database, _ -> readAgreement(database) }

/** What a store holds, as it compares with a server's; [anew] makes the sums again from the versions, and keeps them. */
internal fun localSums(store: Store, anew: Boolean = false): LocalSums {
    if (anew) store.changing { database -> writeAgreement(database, readAgreement(database).copy(sums = makeSums(database))) }
    return store.reading { _ -> store.lending { database, _ -> compareSums(database, requireEnrollment(database, store)) } }
}

private fun compareSums(database: Database, now: Enrollment): LocalSums {
    val sums = readAgreement(database).sums
    val letters = listWithheld(database).filter { it.reason == UNREADABLE }
    val known = knownVersions(database, letters.map { it.id })
    for (one in letters) {
        val before = known[one.id]
        if (before != null && !before.deleted) sums.remove(one.id, before.version.stamp, before.version.device)
        if (!one.deleted) sums.add(one.id, one.version.stamp, one.version.device)
    }
    // A version of its own that no server has, or has had, is here alone.
    val query = "SELECT id FROM outbox UNION SELECT id FROM dead UNION " +
        "SELECT id FROM versions WHERE stamp = ? OR (device = ? AND acknowledged < stamp - 1)"
    val excused = database.rows(query, GIVEN_UP, now.device).mapTo(HashSet()) { groupOf(it[0] as String) }
    return LocalSums(sums, now.cursor, now.epoch, excused)
}

/** Notes that store and server hold the same. */
internal fun noteAgreed(store: Store): Unit = store.changing { writeAgreement(it, Agreement(readAgreement(it).sums)) }

/** Notes that the difference of two sums comes from what waits here alone. */
internal fun noteExplained(store: Store, there: Long, here: Long): Unit =
    store.changing { writeAgreement(it, readAgreement(it).copy(there = there, here = here, differs = 0, tries = 0)) }

/** Notes that groups differ, and has them pulled again: once now, and seldom if that does not help. */
internal fun noteDifference(store: Store, groups: Set<Int>): Unit = store.changing { database ->
    val before = readAgreement(database)
    val next = Wall.nowMs() + (AGAIN_MS shl minOf(before.tries, DOUBLINGS).toInt())
    val after = before.copy(pending = before.pending + groups, tries = before.tries + 1, nextMs = next, differs = groups.size.toLong())
    writeAgreement(database, after)
}

/**
 * Agrees on what the server does not have, after all documents of some groups were pulled. What this device
 * wrote is queued again as it was. So is what others wrote, where the server takes that and this device can
 * send it. What it cannot send it gives up: the server's version is pulled instead.
 *
 * @param there versions that the server has of the groups, by id.
 * @param offers the largest stamp of others' versions that the server takes; null if it takes none.
 * @param claimed the server was told what it lacks, and takes no more than that.
 */
internal fun settleGroups(store: Store, there: Map<String, There>, groups: Set<Int>, offers: Long?, claimed: Boolean): Settled =
    store.taking { taking ->
        val database = taking.database
        val enrollment = requireEnrollment(database, store)
        val rules = Rules(enrollment.device, ownNames(database, enrollment), store.keepFull, offers, claimed)
        val lacking = lacking(database, there, groups)
        val gone = lacking.filterValues { it.version.stamp == GIVEN_UP }.keys
        val settled = loseOrOffer(database, lacking - gone, there.mapValues { it.value.version.stamp }, rules)
        dropVersions(database, gone)
        taking.delete(gone)
        val now = readAgreement(database)
        // What was given up just now is pulled in the next round.
        writeAgreement(database, now.copy(pending = now.pending - groups + settled.givenUp.map { groupOf(it) }))
        Settled(gone.size, settled.queued, settled.givenUp.size, settled.claims)
    }

/** What is live or deleted here in some groups, was acknowledged, and is newer than on the server. */
private fun lacking(database: Database, there: Map<String, There>, groups: Set<Int>): Map<String, Known> {
    val ids = database.rows("SELECT id FROM versions").map { it[0] as String }.filter { groupOf(it) in groups }
    val waiting = database.rows("SELECT id FROM outbox UNION SELECT id FROM dead").mapTo(HashSet()) { it[0] as String }
    return knownVersions(database, ids).filter { (id, one) ->
        val has = there[id]
        val newer = has == null || has.version < one.version
        newer && id !in waiting && one.acknowledged != NEVER && !(one.deleted && (has == null || has.deleted))
    }
}

/**
 * Who sends, what the store keeps of full vectors, and what the server takes.
 *
 * @property own all names that this device has had; see [writer].
 * @property offers the largest stamp of others' versions that the server takes; null if it takes none.
 * @property claimed the server was told what it lacks, and takes no more than that.
 */
internal class Rules(val device: String, val own: Set<String>, val keepFull: String?, val offers: Long?, val claimed: Boolean = false) {
    /**
     * The name under which a version is sent again. What this device wrote under a former name stays that
     * version, which other devices may still have, where the server takes it as an offer.
     */
    fun writer(version: Version): String {
        val offered = offers != null && version.stamp <= offers
        return if (offered || version.device !in own) version.device else device
    }

    /** Whether this version would go under another name than its own, which a claim may prevent. */
    fun wouldRename(version: Version): Boolean = !claimed && offers != null && writer(version) != version.device
}

/** How many versions were queued, ids of those that were given up, and versions to be claimed. */
internal class LostOrOffered(val queued: Int, val givenUp: List<String>, val claims: List<Pair<String, Version>>)

/**
 * Queues again what a server has lost, as it was, or gives it up.
 *
 * @param lost versions that are newer here than there, by id; none of them waits.
 * @param there stamps that the server has, by id.
 */
internal fun loseOrOffer(database: Database, lost: Map<String, Known>, there: Map<String, Long>, rules: Rules): LostOrOffered {
    val own = lost.filterValues { it.version.device in rules.own }.keys
    val former = own.filterTo(HashSet()) { rules.wouldRename(lost.getValue(it).version) }
    val others = if (rules.offers == null) emptyList() else lost.keys - own
    val candidates = others + former
    val sendable = sendable(database, candidates.toList(), rules.keepFull) + candidates.filter { lost.getValue(it).deleted }
    val limit = rules.offers ?: 0
    val queued = (own - former.intersect(sendable)) + sendable.filter { lost.getValue(it).version.stamp <= limit }
    val claims = if (rules.claimed) emptyList() else (sendable - queued).sortedWith(org.edgemrl.ByCodePoint)
    val givenUp = others.filter { it !in queued && it !in claims }
    val versions = queued.associateWith { id ->
        val one = lost.getValue(id)
        val has = there[id] ?: 0
        val version = Version(one.version.stamp, rules.writer(one.version))
        one.copy(version = version, acknowledged = minOf(one.acknowledged, has), sent = if (has != 0L) one.sent else 0)
    }
    writeVersions(database, versions)
    writeQueue(database, versions.map { (id, one) -> Queued(id, one.version.stamp, one.deleted, Wall.nowMs(), 0) })
    giveUp(database, givenUp.associateWith { lost.getValue(it) })
    return LostOrOffered(queued.size, givenUp, claims.map { it to lost.getValue(it).version })
}

/** Those of the documents whose full vectors are here, or whose text is, or that have no passages. */
private fun sendable(database: Database, ids: List<String>, keepFull: String?): Set<String> {
    val rows = database.select("id, key, text <> ''", "id", ids)
    val keys = rows.map { it[1] }
    val withCodes = database.select("document", "document", keys, "passages").mapTo(HashSet()) { it[0] }
    val keeps = keepFull == "until-synced" || keepFull == "fp16"
    val kept = if (keeps) database.select("document", "document", keys, "fulls").mapTo(HashSet()) { it[0] } else emptySet()
    return rows.filter { it[2] == 1L || it[1] in kept || it[1] !in withCodes }.mapTo(HashSet()) { it[0] as String }
}

/**
 * Takes the server's state of documents whose versions here nobody can send; a letter says so. What is here
 * stays until the server's version is pulled, in place of which it stands as the oldest.
 */
internal fun giveUp(database: Database, lost: Map<String, Known>) {
    if (lost.isEmpty()) return
    val rows = database.select("id, metadata, text", "id", lost.keys).filter { it[2] is String && it[2] != "" }
    val kept = rows.associate { it[0] as String to Kept(it[1] as String, it[2] as String) }
    writeWithheld(database, lost.map { (id, one) -> Withheld(id, one.version, one.deleted, LOST, LOST_TEXT) }, kept)
    writeVersions(database, lost.mapValues { Known(Version(GIVEN_UP, ""), it.value.deleted, UNKNOWN) })
    addPending(database, lost.keys.map { groupOf(it) })
}
