package org.edgemrl.demo

import android.content.Intent
import android.os.Bundle
import android.text.Editable
import android.text.TextWatcher
import android.view.Gravity
import android.view.View
import android.view.ViewGroup
import android.widget.BaseAdapter
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.ListView
import android.widget.TextView
import org.edgemrl.demo.notes.Note
import org.edgemrl.demo.notes.words
import org.edgemrl.demo.state.NotesPresenter
import org.edgemrl.demo.state.NotesState
import org.edgemrl.demo.ui.Screen
import org.edgemrl.demo.ui.button
import org.edgemrl.demo.ui.dp
import org.edgemrl.demo.ui.marked
import org.edgemrl.demo.ui.text

/** All notes, and the search in them. */
class NotesActivity : Screen() {
    private lateinit var presenter: NotesPresenter
    private lateinit var status: TextView
    private lateinit var field: EditText
    private val rows = Rows()

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        field = EditText(this).apply {
            id = R.id.search
            setHint(R.string.search_hint)
            isSingleLine = true
            textAlignment = View.TEXT_ALIGNMENT_VIEW_START
            minHeight = dp(48)
            imeOptions = android.view.inputmethod.EditorInfo.IME_ACTION_SEARCH
        }
        status = text(quiet = true).apply {
            accessibilityLiveRegion = View.ACCESSIBILITY_LIVE_REGION_POLITE
        }
        val list = ListView(this).apply {
            id = R.id.notes
            adapter = rows
            clipToPadding = false
            setOnItemClickListener { _, _, at, _ -> open(rows.getItem(at).note) }
        }
        val edge = dp(16)
        val page = LinearLayout(this).apply {
            orientation = LinearLayout.VERTICAL
            addView(field, LinearLayout.LayoutParams(MATCH, WRAP).apply { setMargins(edge, 0, edge, 0) })
            addView(status, LinearLayout.LayoutParams(MATCH, WRAP).apply { setMargins(edge, dp(4), edge, dp(4)) })
            addView(list, LinearLayout.LayoutParams(MATCH, 0, 1f))
            addView(button(R.string.add) { open(null) }, LinearLayout.LayoutParams(MATCH, WRAP).apply { setMargins(edge, 0, edge, 0) })
        }
        show(R.string.app_name, page, top = true)
        fillMenu()
        presenter = NotesPresenter({ notes.notebook }, notes.runner, ::show)
        field.addTextChangedListener(Typed { presenter.search(it) })
    }

    override fun onResume() {
        super.onResume()
        presenter.refresh()
    }

    override fun onDestroy() {
        presenter.leave()
        super.onDestroy()
    }

    private fun fillMenu() {
        val screens = listOf(
            R.string.menu_import to ImportActivity::class.java,
            R.string.menu_sync to SyncActivity::class.java,
            R.string.menu_verify to VerifyActivity::class.java,
            R.string.menu_settings to SettingsActivity::class.java,
        )
        for ((title, screen) in screens) {
            bar.menu.add(title).setOnMenuItemClickListener {
                startActivity(Intent(this, screen))
                true
            }
        }
    }

    private fun open(note: Note?) {
        val intent = Intent(this, NoteActivity::class.java)
        startActivity(if (note == null) intent else intent.putExtra(NoteActivity.ID, note.id))
    }

    private fun show(state: NotesState) {
        status.text = when (state) {
            NotesState.Loading -> getString(R.string.loading)
            NotesState.Empty -> getString(R.string.no_notes)
            is NotesState.All -> ""
            is NotesState.Failed -> getString(R.string.failed, state.message)
            is NotesState.Results -> {
                val count = state.found.size
                val said = if (count == 0) getString(R.string.no_results, state.query) else resources.getQuantityString(R.plurals.results, count, count)
                state.problem?.let { said + "\n" + getString(R.string.by_words, it) } ?: said
            }
        }
        status.visibility = if (status.text.isEmpty()) View.GONE else View.VISIBLE
        rows.show(
            when (state) {
                is NotesState.All -> state.notes.map { Row(it, lineOf(it, it.preview), emptySet()) }
                is NotesState.Results -> state.found.map { Row(it.note, lineOf(it.note, it.sentence), words(state.query)) }
                else -> emptyList()
            },
        )
    }

    private fun lineOf(note: Note, line: String) = if (note.text.isEmpty()) getString(R.string.elsewhere) else line

    private class Row(val note: Note, val line: String, val words: Set<String>)

    private inner class Rows : BaseAdapter() {
        private var shown = emptyList<Row>()

        fun show(next: List<Row>) {
            shown = next
            notifyDataSetChanged()
        }

        override fun getCount(): Int = shown.size

        override fun getItem(position: Int): Row = shown[position]

        override fun getItemId(position: Int): Long = position.toLong()

        override fun getView(position: Int, old: View?, parent: ViewGroup): View {
            val view = old as? LinearLayout ?: row()
            val row = shown[position]
            val title = view.getChildAt(0) as TextView
            val line = view.getChildAt(1) as TextView
            title.text = row.note.title.ifEmpty { getString(R.string.untitled) }
            line.text = marked(row.line, row.words)
            line.visibility = if (row.line.isEmpty()) View.GONE else View.VISIBLE
            return view
        }

        private fun row() = LinearLayout(this@NotesActivity).apply {
            orientation = LinearLayout.VERTICAL
            gravity = Gravity.CENTER_VERTICAL
            minimumHeight = dp(64)
            setPaddingRelative(dp(16), dp(8), dp(16), dp(8))
            addView(text(size = 18f).apply { maxLines = 2 })
            addView(text(quiet = true).apply { maxLines = 3 })
        }
    }
}

/** Calls with the text after each change. */
internal class Typed(private val changed: (String) -> Unit) : TextWatcher {
    override fun beforeTextChanged(text: CharSequence, start: Int, count: Int, after: Int): Unit = Unit

    override fun onTextChanged(text: CharSequence, start: Int, before: Int, count: Int): Unit = Unit

    override fun afterTextChanged(text: Editable): Unit = changed(text.toString())
}
