package org.edgemrl.demo

import android.app.AlertDialog
import android.content.ActivityNotFoundException
import android.content.Context
import android.content.Intent
import android.net.ConnectivityManager
import android.os.BatteryManager
import android.os.Build
import android.os.Bundle
import android.text.InputType
import android.text.format.DateUtils
import android.view.View
import android.widget.Button
import android.widget.CheckBox
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.TextView
import org.edgemrl.demo.state.Reason
import org.edgemrl.demo.state.SyncPresenter
import org.edgemrl.demo.state.SyncState
import org.edgemrl.demo.sync.Joining
import org.edgemrl.demo.sync.Letter
import org.edgemrl.demo.sync.readInvitation
import org.edgemrl.demo.ui.Screen
import org.edgemrl.demo.ui.button
import org.edgemrl.demo.ui.checkBox
import org.edgemrl.demo.ui.dp
import org.edgemrl.demo.ui.heading
import org.edgemrl.demo.ui.text
import org.edgemrl.sync.Conditions

/** The server: joining one, what waits and why, what could not be sent, and leaving it. */
class SyncActivity : Screen() {
    private lateinit var presenter: SyncPresenter
    private lateinit var problem: TextView
    private lateinit var form: Form
    private lateinit var joined: Joined

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        presenter = SyncPresenter(notes.link, notes.syncRunner, { power(this) }, { notes.settings.read() }, ::show)
        problem = text().apply {
            accessibilityLiveRegion = View.ACCESSIBILITY_LIVE_REGION_POLITE
            setTextColor(getColor(R.color.wrong))
        }
        form = Form()
        joined = Joined()
        show(R.string.sync_title, column(problem, form.page, joined.page))
    }

    override fun onStart() {
        super.onStart()
        presenter.open()
    }

    override fun onStop() {
        presenter.close()
        super.onStop()
    }

    private fun scan() {
        try {
            @Suppress("DEPRECATION") // What replaces it is no part of the framework.
            startActivityForResult(Intent(SCAN).putExtra("SCAN_MODE", "QR_CODE_MODE"), SCANNED)
        } catch (e: ActivityNotFoundException) {
            say(getString(R.string.sync_no_scanner))
        }
    }

    @Deprecated("Deprecated in Java")
    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        if (request != SCANNED || result != RESULT_OK) return
        val read = data?.getStringExtra("SCAN_RESULT")?.let { readInvitation(it) }
        if (read == null) return say(getString(R.string.sync_no_invitation))
        read.server?.let { form.server.setText(it) }
        form.invitation.setText(read.invitation)
        say(null)
    }

    private fun say(words: String?) {
        problem.text = words.orEmpty()
        problem.visibility = if (words == null) View.GONE else View.VISIBLE
    }

    private fun show(state: SyncState) {
        form.page.visibility = if (state is SyncState.Unset) View.VISIBLE else View.GONE
        joined.page.visibility = if (state is SyncState.Joined) View.VISIBLE else View.GONE
        val wrong = state.problem
        say(if (wrong == SyncPresenter.INCOMPLETE) getString(R.string.sync_incomplete) else wrong?.let { getString(R.string.failed, it) })
        when (state) {
            SyncState.Loading -> Unit
            is SyncState.Unset -> form.show(state)
            is SyncState.Joined -> joined.show(state)
        }
    }

    private fun ask(question: Int, action: Int, done: () -> Unit) {
        AlertDialog.Builder(this).setMessage(question).setNegativeButton(R.string.sync_cancel, null)
            .setPositiveButton(action) { _, _ -> done() }.show()
    }

    private fun page(vararg views: View) = LinearLayout(this).apply {
        orientation = LinearLayout.VERTICAL
        visibility = View.GONE
        for (view in views) addView(view, LinearLayout.LayoutParams(MATCH, WRAP).apply { topMargin = dp(8) })
    }

    private fun field(name: Int, hint: Int, kind: Int) = EditText(this).apply {
        id = name
        setHint(hint)
        inputType = InputType.TYPE_CLASS_TEXT or kind
        isSingleLine = true
        textAlignment = View.TEXT_ALIGNMENT_VIEW_START
        textDirection = View.TEXT_DIRECTION_LTR
        minHeight = dp(48)
    }

    /** What joins a server. */
    private inner class Form {
        val server = field(R.id.server, R.string.sync_address, InputType.TYPE_TEXT_VARIATION_URI)
        val invitation = field(R.id.invitation, R.string.sync_token, InputType.TYPE_TEXT_VARIATION_VISIBLE_PASSWORD)
        private val words: CheckBox = checkBox(R.string.sync_words, false) {}.apply { id = R.id.words }
        private val cleartext: CheckBox = checkBox(R.string.sync_cleartext, false) {}.apply { id = R.id.cleartext }
        private val join: Button = button(R.string.sync_enroll) {
            val wanted = Joining(server.text.toString(), invitation.text.toString(), words.isChecked, cleartext.isChecked, Build.MODEL.orEmpty().ifEmpty { "Android" })
            presenter.join(wanted)
        }.apply { id = R.id.join }
        private val busy = text(getString(R.string.sync_joining), quiet = true).apply { accessibilityLiveRegion = View.ACCESSIBILITY_LIVE_REGION_POLITE }
        val page: View = page(
            text(getString(R.string.sync_unset), quiet = true), server, invitation, button(R.string.sync_scan, ::scan), words, cleartext, join, busy,
        )

        fun show(state: SyncState.Unset) {
            join.isEnabled = !state.joining
            busy.visibility = if (state.joining) View.VISIBLE else View.GONE
        }
    }

    /** What there is to know of the server, and to do. */
    private inner class Joined {
        private val lines = text().apply {
            id = R.id.status
            accessibilityLiveRegion = View.ACCESSIBILITY_LIVE_REGION_POLITE
        }
        private val now = button(R.string.sync_now) { presenter.syncNow() }.apply { id = R.id.sync_now }
        private val stop = button(R.string.sync_stop) { presenter.stop() }
        private val list = text().apply { id = R.id.letters }
        private val letters = page(
            heading(R.string.sync_letters),
            list,
            button(R.string.sync_retry) { presenter.retry() }.apply { id = R.id.retry },
            button(R.string.sync_drop) { ask(R.string.sync_drop_question, R.string.sync_drop) { presenter.drop() } },
        )
        val page: View = page(
            lines, now, stop, letters, button(R.string.sync_leave) { ask(R.string.sync_leave_question, R.string.sync_leave) { presenter.leave() } },
        )

        fun show(state: SyncState.Joined) {
            form.invitation.setText("") // it is used up
            lines.text = describe(state).joinToString("\n")
            now.visibility = if (state.running == null) View.VISIBLE else View.GONE
            stop.visibility = if (state.running == null) View.GONE else View.VISIBLE
            letters.visibility = if (state.dead == 0L) View.GONE else View.VISIBLE
            val more = state.dead - state.letters.size
            val rest = if (more > 0) listOf(getString(R.string.sync_more_letters, more)) else emptyList()
            list.text = (state.letters.map(::describe) + rest).joinToString("\n")
        }
    }

    private fun describe(state: SyncState.Joined): List<String> = listOfNotNull(
        getString(R.string.sync_server, state.server),
        getString(R.string.sync_device, state.device),
        getString(if (state.withText) R.string.sync_with_words else R.string.sync_without_words),
        when {
            state.running != null -> getString(R.string.sync_running, state.running.sent, state.running.received)
            state.queued == 0L && state.lastMs != null -> getString(R.string.sync_done)
            else -> state.queued.toInt().let { resources.getQuantityString(R.plurals.sync_queued, it, it) }
        },
        getString(R.string.sync_last, state.lastMs?.let { DateUtils.getRelativeTimeSpanString(it) } ?: getString(R.string.sync_never)),
        state.reason?.takeIf { state.running == null }?.let { getString(words(it)) },
        state.refused?.let { getString(R.string.sync_refused, it) },
    )

    private fun describe(letter: Letter): String {
        val why = REASONS[letter.reason]?.let { getString(it) } ?: letter.reason
        return "“${letter.words}”: $why" + if (letter.detail.isEmpty()) "" else " (${letter.detail})"
    }

    private fun words(reason: Reason): Int = when (reason) {
        Reason.NO_NETWORK -> R.string.sync_no_network
        Reason.METERED -> R.string.sync_metered
        Reason.NOT_CHARGING -> R.string.sync_not_charging
        Reason.BATTERY_LOW -> R.string.sync_battery_low
        Reason.SERVER -> R.string.sync_unreachable
        Reason.STORE -> R.string.sync_store
    }

    private companion object {
        /** The action that scanner apps have taken over from the one of ZXing. */
        const val SCAN = "com.google.zxing.client.android.SCAN"
        const val SCANNED = 1
        val REASONS = mapOf(
            "invalid" to R.string.letter_invalid, "too_large" to R.string.letter_too_large, "forbidden" to R.string.letter_forbidden,
            "no_vectors" to R.string.letter_no_vectors, "deleted_elsewhere" to R.string.letter_deleted,
            "replaced_elsewhere" to R.string.letter_replaced, "unreadable" to R.string.letter_unreadable, "lost" to R.string.letter_lost,
            "damaged" to R.string.letter_damaged,
        )
    }
}

/** What the phone's network and battery are like now. */
@Suppress("DEPRECATION") // What replaces activeNetworkInfo needs a callback for one question.
internal fun power(context: Context): Conditions {
    val network = context.getSystemService(Context.CONNECTIVITY_SERVICE) as ConnectivityManager
    val battery = context.getSystemService(Context.BATTERY_SERVICE) as BatteryManager
    val level = battery.getIntProperty(BatteryManager.BATTERY_PROPERTY_CAPACITY)
    return Conditions(
        online = network.activeNetworkInfo?.isConnected == true,
        metered = network.isActiveNetworkMetered,
        charging = battery.isCharging,
        batteryLow = level in 1..LOW_PERCENT,
    )
}

/** Android calls the battery low from here on. */
private const val LOW_PERCENT = 15
