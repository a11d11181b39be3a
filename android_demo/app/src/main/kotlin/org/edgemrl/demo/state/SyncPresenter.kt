package org.edgemrl.demo.state

import org.edgemrl.demo.sync.Joining
import org.edgemrl.demo.sync.Letter
import org.edgemrl.demo.sync.LinkState
import org.edgemrl.demo.sync.Progress
import org.edgemrl.demo.sync.ServerLink
import org.edgemrl.demo.sync.readInvitation
import org.edgemrl.sync.Cause
import org.edgemrl.sync.Conditions
import org.edgemrl.sync.Policy

/** Why nothing is exchanged now. */
enum class Reason { NO_NETWORK, METERED, NOT_CHARGING, BATTERY_LOW, SERVER, STORE }

/** What the Sync screen shows. [problem] is what went wrong with what the user asked for last, or null. */
sealed class SyncState {
    abstract val problem: String?

    /** It is being read. */
    object Loading : SyncState() {
        override val problem: String? get() = null
    }

    /** There is no server; [joining] while one is being joined. */
    data class Unset(val joining: Boolean = false, override val problem: String? = null) : SyncState()

    /**
     * There is a server.
     *
     * @property running what the present run has done; null while none runs.
     * @property reason why a run would not begin, or did not get through; null if nothing is in the way.
     * @property refused what the server said, if it refuses this phone: the user must do something.
     */
    data class Joined(
        val server: String,
        val device: String,
        val queued: Long,
        val running: Progress?,
        val lastMs: Long?,
        val reason: Reason?,
        val refused: String?,
        val withText: Boolean,
        val letters: List<Letter>,
        val dead: Long,
        override val problem: String? = null,
    ) : SyncState()
}

/** Conditions of jobs, as the client takes them. */
fun policyOf(settings: Settings): Policy = settings.conditions.let { Policy(it.metered, it.charging, it.batteryLow) }

/** What to show for a link and the phone's conditions. */
fun syncState(link: LinkState?, phone: Conditions, settings: Settings): SyncState {
    if (link == null) return SyncState.Unset()
    val refused = link.said.takeIf { link.cause == Cause.REFUSED || link.cause == Cause.INTERNAL }
    return SyncState.Joined(
        link.server, link.device, link.queued, link.running, link.lastMs, reason(link, phone, policyOf(settings)), refused, link.withText,
        link.letters, link.dead,
    )
}

/** The first thing that must go, in the order of [Policy.whyNot]. */
private fun reason(link: LinkState, phone: Conditions, policy: Policy): Reason? = when {
    !phone.online -> Reason.NO_NETWORK
    phone.metered && !policy.onMetered -> Reason.METERED
    policy.onlyCharging && !phone.charging -> Reason.NOT_CHARGING
    phone.batteryLow && !phone.charging && !policy.onLowBattery -> Reason.BATTERY_LOW
    link.cause == Cause.NETWORK -> Reason.SERVER
    link.cause == Cause.STORE -> Reason.STORE
    else -> null
}

/**
 * The Sync screen.
 *
 * @param phone what the phone's network and battery are like now.
 * @param show is called on the screen's thread.
 */
class SyncPresenter(
    private val link: ServerLink,
    private val runner: Runner,
    private val phone: () -> Conditions,
    private val settings: () -> Settings,
    private val show: (SyncState) -> Unit,
) {
    private var state: SyncState = SyncState.Loading
    private var problem: String? = null

    @Volatile
    private var left = false

    /** Whether a look at the link is asked for already, and has not begun. */
    private val asked = java.util.concurrent.atomic.AtomicBoolean()

    /** Shows where the link stands, now and whenever that changes. */
    fun open() {
        left = false
        link.watcher = ::refresh
        show(state)
        refresh()
    }

    /** The screen is left: nothing more is shown, and a run goes on. */
    fun close() {
        left = true
        link.watcher = null
    }

    /** Joins a server, and exchanges. A call while that runs does nothing. */
    fun join(wanted: Joining) {
        if ((state as? SyncState.Unset)?.joining == true) return
        val read = readInvitation(wanted.invitation)
        val server = wanted.server.trim().ifEmpty { read?.server.orEmpty() }
        if (read == null || server.isEmpty()) return change(SyncState.Unset(problem = INCOMPLETE))
        change(SyncState.Unset(joining = true))
        act { link.join(wanted.copy(server = server, invitation = read.invitation)).also { link.begin(now = false) } }
    }

    /** Exchanges now, whatever the conditions are. */
    fun syncNow() {
        problem = null
        link.begin(now = true)
    }

    /** Ends the run. */
    fun stop(): Unit = link.stop()

    /** Sends the letters again. */
    fun retry(): Unit = act { if (link.retryLetters() > 0) link.begin(now = false) }

    /** Forgets the letters. */
    fun drop(): Unit = act { link.dropLetters() }

    /** Leaves the server. */
    fun leave(): Unit = act { link.leave() }

    private fun act(work: () -> Unit) {
        problem = null
        runner.run(work, { error ->
            problem = error.message ?: error.javaClass.simpleName
            refresh()
        }) { refresh() }
    }

    private fun refresh() {
        if (left || !asked.compareAndSet(false, true)) return
        runner.run({
            asked.set(false)
            link.state()
        }, { error -> change(SyncState.Unset(problem = error.message ?: error.javaClass.simpleName)) }) { found ->
            val next = syncState(found, phone(), settings())
            change(if (next is SyncState.Joined) next.copy(problem = problem) else SyncState.Unset(problem = problem))
        }
    }

    private fun change(next: SyncState) {
        state = next
        if (!left) show(next)
    }

    companion object {
        /** The problem of a form that lacks the address or the invitation. */
        const val INCOMPLETE = "incomplete"
    }
}
