package org.edgemrl.sync

import org.edgemrl.store.Store
import org.edgemrl.store.replica.Settled
import org.edgemrl.store.replica.agreementOf
import org.edgemrl.store.replica.localSums
import org.edgemrl.store.replica.noteAgreed
import org.edgemrl.store.replica.noteDifference
import org.edgemrl.store.replica.noteExplained
import org.edgemrl.store.replica.settleGroups
import org.edgemrl.wire.Version
import org.edgemrl.wire.Wall

/** Compares a store with its server, at the end of a pull; groups that differ are pulled again. */
internal class Comparison(private val store: Store, private val puller: Puller, private val tally: Tally) {
    /**
     * Whether nothing is left to do; otherwise something was queued, or pulled again.
     *
     * @param page the last page of the pull.
     * @param claim tells the server which versions it has lost.
     * @throws org.edgemrl.ServerException `restored`: the server has begun a new epoch.
     */
    fun agrees(page: ChangePage, claim: (List<Pair<String, Version>>) -> Unit): Boolean {
        var groups = agreementOf(store).pending
        var differs = 0
        if (groups.isEmpty()) {
            groups = differing(page)
            differs = groups.size
        }
        if (groups.isEmpty()) return true
        val settled = settle(groups, differs, claimed = false)
        if (settled.claims.isNotEmpty()) {
            claim(settled.claims)
            puller.changes() // which a server that believes it refuses: "restored"
            settle(groups, 0, claimed = true)
        }
        return false
    }

    private fun settle(groups: Set<Int>, differs: Int, claimed: Boolean): Settled {
        val found = puller.groups(groups, differs)
        return settleGroups(store, found.there, groups, found.offers, claimed).also { tally.settled(it) }
    }

    /** The groups that are to be pulled again: those that differ, if it is time for that. */
    private fun differing(page: ChangePage): Set<Int> {
        val here = localSums(store)
        if (page.sum == null || here.cursor != page.cursor || here.epoch != page.epoch) return emptySet()
        val now = agreementOf(store)
        if (here.sums.total == page.sum) {
            tally.differs(0)
            if (now.tries != 0L || now.differs != 0L || now.there != 0L) noteAgreed(store)
            return emptySet()
        }
        if (now.there == page.sum && now.here == here.sums.total) return emptySet()
        if (Wall.nowMs() < now.nextMs) {
            tally.differs(now.differs.toInt())
            return emptySet()
        }
        return differingGroups()
    }

    private fun differingGroups(): Set<Int> {
        val page = puller.sums()
        val here = localSums(store, anew = true)
        if (page.sums == null || here.cursor != page.cursor || here.epoch != page.epoch) return emptySet()
        val groups = here.sums.differing(page.sums) - here.excused
        if (groups.isEmpty()) {
            noteExplained(store, there = page.sums.total, here = here.sums.total)
            return groups
        }
        noteDifference(store, groups)
        tally.differs(groups.size)
        return groups
    }
}
