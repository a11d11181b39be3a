package org.edgemrl.demo.state

/** Why nothing is exchanged now. */
enum class Reason { NO_NETWORK, METERED, NOT_CHARGING, BATTERY_LOW, SERVER }

/** What the Sync screen shows. */
sealed class SyncState {
    /** This release has no client for the server: notes stay on this phone. */
    object Unsupported : SyncState()

    /** No server was set. */
    object Unset : SyncState()

    /** An exchange runs. */
    data class Running(val server: String, val queued: Int) : SyncState()

    /** Nothing waits; [lastMs] is the end of the last exchange, in milliseconds since 1970. */
    data class Done(val server: String, val lastMs: Long?) : SyncState()

    /** [queued] changes wait. */
    data class Waiting(val server: String, val queued: Int, val reason: Reason?) : SyncState()

    /** The server refuses this phone, or a change: the user must do something. */
    data class Refused(val server: String, val message: String) : SyncState()
}

/** What the phone's network and battery are like now. */
data class Power(val online: Boolean, val metered: Boolean, val charging: Boolean, val batteryLow: Boolean)

/**
 * A device's link to a server, as the client has it.
 *
 * @property error what the server said last, if it refused.
 */
data class Link(val server: String, val queued: Int, val running: Boolean, val lastMs: Long?, val error: String?, val unreachable: Boolean)

/** What to show for a link and the phone's conditions. */
fun syncState(supported: Boolean, link: Link?, power: Power, settings: Settings): SyncState {
    if (!supported) return SyncState.Unsupported
    if (link == null) return SyncState.Unset
    val wanted = settings.conditions
    return when {
        link.error != null -> SyncState.Refused(link.server, link.error)
        link.running -> SyncState.Running(link.server, link.queued)
        link.queued == 0 -> SyncState.Done(link.server, link.lastMs)
        else -> {
            val reason = when {
                !power.online -> Reason.NO_NETWORK
                power.metered && !wanted.metered -> Reason.METERED
                !power.charging && wanted.charging -> Reason.NOT_CHARGING
                power.batteryLow && !wanted.batteryLow -> Reason.BATTERY_LOW
                link.unreachable -> Reason.SERVER
                else -> null
            }
            SyncState.Waiting(link.server, link.queued, reason)
        }
    }
}
