package org.edgemrl.demo

import android.app.Activity
import android.content.ActivityNotFoundException
import android.content.Intent
import android.net.Uri
import android.os.Bundle
import android.provider.DocumentsContract
import android.view.View
import android.widget.Button
import android.widget.TextView
import org.edgemrl.demo.state.ImportPresenter
import org.edgemrl.demo.state.ImportState
import org.edgemrl.demo.state.Skipped
import org.edgemrl.demo.ui.Screen
import org.edgemrl.demo.ui.button
import org.edgemrl.demo.ui.text

/** Imports a folder of texts that the user chooses in the system's picker. */
class ImportActivity : Screen() {
    private lateinit var presenter: ImportPresenter
    private lateinit var status: TextView
    private lateinit var skipped: TextView
    private lateinit var choose: Button
    private lateinit var stop: Button

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        status = text().apply { accessibilityLiveRegion = View.ACCESSIBILITY_LIVE_REGION_POLITE }
        skipped = text(quiet = true)
        choose = button(R.string.import_choose, ::choose)
        stop = button(R.string.import_stop) { presenter.stop() }.apply { visibility = View.GONE }
        show(R.string.import_title, column(text(getString(R.string.import_about), quiet = true), choose, status, stop, skipped))
        presenter = ImportPresenter({ notes.notebook }, notes.runner, System::currentTimeMillis, ::show)
    }

    override fun onDestroy() {
        presenter.stop()
        super.onDestroy()
    }

    private fun choose() {
        try {
            @Suppress("DEPRECATION") // What replaces it is no part of the framework.
            startActivityForResult(Intent(Intent.ACTION_OPEN_DOCUMENT_TREE), CHOOSE)
        } catch (e: ActivityNotFoundException) {
            status.setText(R.string.import_no_picker)
        }
    }

    @Deprecated("Deprecated in Java")
    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        val tree = data?.data
        if (request == CHOOSE && result == Activity.RESULT_OK && tree != null) import(tree)
    }

    private fun import(tree: Uri) {
        val folder = DocumentsContract.getTreeDocumentId(tree)
        presenter.begin(folder) { DocumentTree(contentResolver, tree).files() }
    }

    private fun show(state: ImportState) {
        choose.isEnabled = !state.running
        stop.visibility = if (state.running) View.VISIBLE else View.GONE
        val read = resources.getQuantityString(R.plurals.import_read, state.read, state.read)
        status.text = state.message?.let { "$read\n" + getString(R.string.failed, it) } ?: read
        skipped.text = state.skipped.takeLast(MOST_SHOWN).joinToString("\n") { (path, why) -> getString(words(why), path) }
    }

    private fun words(why: Skipped): Int = when (why) {
        Skipped.NO_TEXT -> R.string.import_skipped_no_text
        Skipped.EMPTY -> R.string.import_skipped_empty
        Skipped.TOO_LONG -> R.string.import_skipped_too_long
        Skipped.UNREADABLE -> R.string.import_skipped_unreadable
    }

    private companion object {
        const val CHOOSE = 1
        const val MOST_SHOWN = 100
    }
}
