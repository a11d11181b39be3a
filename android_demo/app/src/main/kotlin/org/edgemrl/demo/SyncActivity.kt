package org.edgemrl.demo

import android.content.Context
import android.net.ConnectivityManager
import android.os.BatteryManager
import android.os.Bundle
import android.widget.TextView
import org.edgemrl.demo.state.Power
import org.edgemrl.demo.state.Reason
import org.edgemrl.demo.state.SyncState
import org.edgemrl.demo.state.syncState
import org.edgemrl.demo.ui.Screen
import org.edgemrl.demo.ui.text

/** The server, what waits, and why. */
class SyncActivity : Screen() {
    private lateinit var lines: TextView

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        lines = text()
        show(R.string.sync_title, column(lines))
    }

    override fun onResume() {
        super.onResume()
        val state = syncState(notes.synchronizer != null, null, power(this), notes.settings.read())
        lines.text = describe(state).joinToString("\n")
    }

    private fun describe(state: SyncState): List<String> = when (state) {
        SyncState.Unsupported -> listOf(getString(R.string.sync_unsupported))
        SyncState.Unset -> listOf(getString(R.string.sync_unset))
        is SyncState.Running -> listOf(server(state.server), getString(R.string.sync_running), queued(state.queued))
        is SyncState.Done -> listOf(server(state.server), getString(R.string.sync_done))
        is SyncState.Waiting -> listOfNotNull(server(state.server), queued(state.queued), state.reason?.let { getString(words(it)) })
        is SyncState.Refused -> listOf(server(state.server), getString(R.string.sync_refused, state.message))
    }

    private fun server(address: String) = getString(R.string.sync_server, address)

    private fun queued(count: Int) = resources.getQuantityString(R.plurals.sync_queued, count, count)

    private fun words(reason: Reason): Int = when (reason) {
        Reason.NO_NETWORK -> R.string.sync_no_network
        Reason.METERED -> R.string.sync_metered
        Reason.NOT_CHARGING -> R.string.sync_not_charging
        Reason.BATTERY_LOW -> R.string.sync_battery_low
        Reason.SERVER -> R.string.sync_unreachable
    }
}

/** What the phone's network and battery are like now. */
@Suppress("DEPRECATION") // What replaces activeNetworkInfo needs a callback for one question.
internal fun power(context: Context): Power {
    val network = context.getSystemService(Context.CONNECTIVITY_SERVICE) as ConnectivityManager
    val battery = context.getSystemService(Context.BATTERY_SERVICE) as BatteryManager
    val level = battery.getIntProperty(BatteryManager.BATTERY_PROPERTY_CAPACITY)
    return Power(
        online = network.activeNetworkInfo?.isConnected == true,
        metered = network.isActiveNetworkMetered,
        charging = battery.isCharging,
        batteryLow = level in 1..LOW_PERCENT,
    )
}

/** Android calls the battery low from here on. */
private const val LOW_PERCENT = 15
