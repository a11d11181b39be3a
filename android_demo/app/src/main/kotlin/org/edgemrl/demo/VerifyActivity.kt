package org.edgemrl.demo

import android.content.ActivityNotFoundException
import android.content.Intent
import android.os.Bundle
import android.view.View
import android.widget.Button
import android.widget.TextView
import java.io.FileNotFoundException
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
    private lateinit var other: Button
    private lateinit var problem: TextView
    private val lines = Check.values().associateWith { lazy { text() } }

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        model = text()
        run = button(R.string.verify_run) { presenter.begin() }
        val parts = Check.values().flatMap { listOf(heading(title(it)), line(it)) }
        other = button(R.string.verify_other, ::choose)
        problem = text().apply {
            accessibilityLiveRegion = View.ACCESSIBILITY_LIVE_REGION_POLITE
            setTextColor(getColor(R.color.wrong))
        }
        show(R.string.verify_title, column(text(getString(R.string.verify_about), quiet = true), model, *parts.toTypedArray(), run, other, problem))
        presenter = VerifyPresenter(InstalledChecks(notes), notes.runner, ::show)
        presenter.open()
    }

    private fun choose() {
        val wanted = Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("application/zip")
        try {
            @Suppress("DEPRECATION") // What replaces it is no part of the framework.
            startActivityForResult(wanted, CHOOSE)
        } catch (e: ActivityNotFoundException) {
            problem.setText(R.string.import_no_picker)
            problem.visibility = View.VISIBLE
        }
    }

    @Deprecated("Deprecated in Java")
    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        val zip = data?.data ?: return
        if (request != CHOOSE || result != RESULT_OK) return
        presenter.install { contentResolver.openInputStream(zip) ?: throw FileNotFoundException("$zip") }
    }

    private fun line(part: Check): TextView = lines.getValue(part).value.apply {
        accessibilityLiveRegion = View.ACCESSIBILITY_LIVE_REGION_POLITE
    }

    private fun show(state: VerifyState) {
        model.text = state.bundle?.let { getString(R.string.verify_bundle, it) } ?: getString(R.string.verify_none)
        run.isEnabled = state.bundle != null && !state.running
        other.isEnabled = !state.running
        problem.text = state.problem?.let { getString(R.string.verify_refused, it) }.orEmpty()
        problem.visibility = if (state.problem == null) View.GONE else View.VISIBLE
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
        is CheckState.Passed -> getString(R.string.verify_passed, state.detail)
        is CheckState.Failed -> getString(R.string.verify_failed, state.message)
    }

    private companion object {
        const val CHOOSE = 1
    }
}
