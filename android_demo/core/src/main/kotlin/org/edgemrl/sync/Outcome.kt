package org.edgemrl.sync

import org.edgemrl.store.replica.Settled

/** Why a run ended before everything was done. */
public enum class Cause {
    /** The application does not allow more now. */
    POLICY,

    /** The network failed, or the server is busy. */
    NETWORK,

    /** The server refuses until a person changes something. */
    REFUSED,

    /** The store cannot be used now. */
    STORE,

    /** The program has a fault. */
    INTERNAL,
}

/**
 * What one run did.
 *
 * @property pushed versions that the server stored.
 * @property stale versions that the server did not store because it had newer ones.
 * @property pulled documents received from other devices.
 * @property deleted documents deleted here because other devices deleted them.
 * @property dead versions that became dead letters (`SyncClient.deadLetters`).
 * @property unreadable those of them that arrived from other devices, and cannot be stored here.
 * @property differs in how many of 256 groups of ids store and server still hold different documents, after they
 *     were pulled again; 0 if they hold the same, or the server does not say.
 * @property bytesSent bytes of the bodies sent, including those of failed requests.
 * @property bytesReceived bytes of the bodies received.
 * @property waiting why the run ended before everything was done, in plain words; null if all was done.
 * @property cause the kind of that reason.
 * @property retryAfterS seconds that the server asked to wait before the next run, if it did.
 * @property resent documents and deletions that were queued again because the server had been restored from an
 *     older copy; null if it had not.
 * @property conflicts documents received that took the place of another text of this device's; that text is a
 *     dead letter now.
 */
public data class Outcome(
    public val pushed: Int = 0,
    public val stale: Int = 0,
    public val pulled: Int = 0,
    public val deleted: Int = 0,
    public val dead: Int = 0,
    public val unreadable: Int = 0,
    public val differs: Int = 0,
    public val bytesSent: Long = 0,
    public val bytesReceived: Long = 0,
    public val waiting: String? = null,
    public val cause: Cause? = null,
    public val retryAfterS: Double? = null,
    public val resent: Int? = null,
    public val conflicts: Int = 0,
) {
    /** Whether everything was sent and received. */
    public val done: Boolean get() = waiting == null
}

/** Adds up what a run does, and reports the sum after each commit by [step]. */
internal class Tally(private val budget: Budget, private val step: (Outcome) -> Unit) {
    private var sum = Outcome()

    /** What was done so far. */
    val outcome: Outcome get() = budget.traffic.let { (sent, received) -> sum.copy(bytesSent = sent, bytesReceived = received) }

    /** Counts versions that were sent, given their statuses. */
    fun pushed(statuses: List<String>) {
        val pushed = statuses.count { it == "applied" }
        val stale = statuses.count { it == "stale" }
        val dead = statuses.size - pushed - stale - statuses.count { it == "clock_ahead" }
        sum = sum.copy(pushed = sum.pushed + pushed, stale = sum.stale + stale, dead = sum.dead + dead)
        step(outcome)
    }

    /** Counts documents that were received, deleted because others had, and could not be stored. */
    fun pulled(put: Int, deleted: Int, withheld: Int = 0, conflicts: Int = 0) {
        sum = sum.copy(
            pulled = sum.pulled + put, deleted = sum.deleted + deleted, dead = sum.dead + withheld,
            unreadable = sum.unreadable + withheld, conflicts = sum.conflicts + conflicts,
        )
        step(outcome)
    }

    /** Notes what was queued again, after everything was pulled. */
    fun agreed(resent: Int?) {
        if (resent != null) sum = sum.copy(resent = resent)
    }

    /** Counts what agreeing with the server changed. */
    fun settled(settled: Settled) {
        val resent = (sum.resent ?: 0) + settled.queued
        sum = sum.copy(
            deleted = sum.deleted + settled.deleted, dead = sum.dead + settled.givenUp,
            resent = if (resent != 0 || sum.resent != null) resent else null,
        )
    }

    fun differs(groups: Int) {
        sum = sum.copy(differs = groups)
    }

    /** Notes why the run ended before everything was done. */
    fun stop(reason: String, cause: Cause, retryAfterS: Double? = null) {
        sum = sum.copy(waiting = reason, cause = cause, retryAfterS = retryAfterS)
    }
}
