package org.edgemrl.demo

import android.os.Bundle
import android.view.View
import android.widget.Button
import android.widget.TextView
import org.edgemrl.demo.state.Check
import org.edgemrl.demo.state.CheckState
import org.edgemrl.demo.state.VerifyPresenter
import org.edgemrl.demo.state.VerifyState
import org.edgemrl.demo.ui.Screen
import org.edgemrl.demo.ui.button
import org.edgemrl.demo.ui.heading
import org.edgemrl.demo.ui.text

/** The proof that this phone runs the model as the machine did that made it. */
class VerifyActivity : Screen() {
    private lateinit var presenter: VerifyPresenter
    private lateinit var model: TextView
    private lateinit var run: Button
    private val lines = Check.values().associateWith { lazy { text() } }

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        model = text()
        run = button(R.string.verify_run) { presenter.begin() }
        val parts = Check.values().flatMap { listOf(heading(title(it)), line(it)) }
        show(R.string.verify_title, column(text(getString(R.string.verify_about), quiet = true), model, *parts.toTypedArray(), run))
        presenter = VerifyPresenter(InstalledChecks(notes), notes.runner, ::show)
        presenter.open()
    }

    private fun line(part: Check): TextView = lines.getValue(part).value.apply {
        accessibilityLiveRegion = View.ACCESSIBILITY_LIVE_REGION_POLITE
    }

    private fun show(state: VerifyState) {
        model.text = state.bundle?.let { getString(R.string.verify_bundle, it) } ?: getString(R.string.verify_none)
        run.isEnabled = state.bundle != null && !state.running
        for ((part, found) in state.parts) {
            val view = lines.getValue(part).value
            view.text = describe(found)
            view.setTextColor(getColor(if (found is CheckState.Failed) R.color.wrong else R.color.words))
        }
    }

    private fun title(part: Check): Int = when (part) {
        Check.FILES -> R.string.verify_files
        Check.GOLDEN -> R.string.verify_golden
        Check.SPEED -> R.string.verify_speed
    }

    private fun describe(state: CheckState): String = when (state) {
        CheckState.Waiting -> getString(R.string.verify_waiting)
        CheckState.Running -> getString(R.string.verify_running)
        CheckState.Unsupported -> getString(R.string.verify_unsupported)
        is CheckState.Passed -> getString(R.string.verify_passed, state.detail)
        is CheckState.Failed -> getString(R.string.verify_failed, state.message)
    }
}
