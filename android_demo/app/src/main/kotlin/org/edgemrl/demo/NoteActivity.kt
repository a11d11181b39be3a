package org.edgemrl.demo

import android.app.AlertDialog
import android.content.Intent
import android.os.Bundle
import android.text.InputType
import android.view.Gravity
import android.view.MenuItem
import android.widget.EditText
import java.util.UUID
import org.edgemrl.demo.state.NotePresenter
import org.edgemrl.demo.ui.Screen
import org.edgemrl.demo.ui.dp

/** One note: a new one, one of the notebook, or a text that another app shares. */
class NoteActivity : Screen() {
    private lateinit var presenter: NotePresenter
    private lateinit var field: EditText
    private lateinit var save: MenuItem

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        presenter = NotePresenter({ notes.notebook }, notes.runner, { UUID.randomUUID().toString() }, System::currentTimeMillis)
        field = EditText(this).apply {
            id = R.id.text
            setHint(R.string.note_hint)
            gravity = Gravity.TOP or Gravity.START
            inputType = InputType.TYPE_CLASS_TEXT or InputType.TYPE_TEXT_FLAG_MULTI_LINE or InputType.TYPE_TEXT_FLAG_CAP_SENTENCES
            background = null
            isSaveEnabled = false
            setPaddingRelative(dp(16), dp(8), dp(16), dp(8))
        }
        show(R.string.note_title, field)
        save = bar.menu.add(R.string.save).apply { setShowAsAction(MenuItem.SHOW_AS_ACTION_ALWAYS) }
        save.setOnMenuItemClickListener {
            presenter.save(::complain) { finish() }
            true
        }
        bar.menu.add(R.string.delete).setOnMenuItemClickListener {
            ask()
            true
        }
        field.addTextChangedListener(Typed(::typed))
        begin(saved)
    }

    override fun onSaveInstanceState(out: Bundle) {
        super.onSaveInstanceState(out)
        val (id, saved, text) = presenter.snapshot()
        // What is sent to the system is limited; a longer text is written down instead, in onPause.
        if (saved.length + text.length < MOST_KEPT) {
            out.putString(ID, id)
            out.putString(SAVED, saved)
            out.putString(TEXT, text)
        }
    }

    /** What was written is kept, however the screen is left. */
    override fun onPause() {
        super.onPause()
        presenter.save(::complain) {}
    }

    private fun begin(saved: Bundle?) {
        val kept = saved?.getString(TEXT)
        val id = intent.getStringExtra(ID)
        when {
            kept != null -> {
                presenter.restore(saved.getString(ID), saved.getString(SAVED).orEmpty(), kept)
                fill()
            }
            id != null -> presenter.open(id, ::gone, ::complain, ::fill)
            intent.action == Intent.ACTION_SEND -> {
                presenter.begin(intent.getStringExtra(Intent.EXTRA_SUBJECT), intent.getCharSequenceExtra(Intent.EXTRA_TEXT)?.toString())
                fill()
            }
            else -> {
                presenter.begin(null, null)
                fill()
            }
        }
    }

    private fun fill() {
        val text = presenter.state.text
        field.setText(text)
        typed(text)
    }

    private fun typed(text: String) {
        presenter.edit(text)
        val state = presenter.state
        save.isEnabled = state.canSave
        field.error = if (state.tooLong) getString(R.string.too_long) else null
    }

    private fun gone() {
        android.widget.Toast.makeText(this, R.string.gone, android.widget.Toast.LENGTH_LONG).show()
        finish()
    }

    private fun ask() {
        AlertDialog.Builder(this)
            .setMessage(R.string.delete_question)
            .setNegativeButton(R.string.keep, null)
            .setPositiveButton(R.string.delete) { _, _ ->
                presenter.delete(::complain) {
                    presenter.restore(null, "", "")
                    finish()
                }
            }
            .show()
    }

    companion object {
        /** The note's id in the intent. */
        const val ID = "id"
        private const val SAVED = "saved"
        private const val TEXT = "text"
        private const val MOST_KEPT = 100_000
    }
}
