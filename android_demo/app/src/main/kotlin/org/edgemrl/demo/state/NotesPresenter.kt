package org.edgemrl.demo.state

import org.edgemrl.demo.notes.Found
import org.edgemrl.demo.notes.Note
import org.edgemrl.demo.notes.Notebook

/** What the list of notes shows. */
sealed class NotesState {
    /** The notes are being read. */
    object Loading : NotesState()

    /** There are no notes yet. */
    object Empty : NotesState()

    /** All notes, the last written first. */
    data class All(val notes: List<Note>) : NotesState()

    /**
     * What fits the query; nothing if [found] is empty.
     *
     * @property problem why only words were looked for, or null.
     */
    data class Results(val query: String, val found: List<Found>, val problem: String? = null) : NotesState()

    /** The notebook could not be read. */
    data class Failed(val message: String) : NotesState()
}

/** The list of notes, and the search in it while the query is typed. */
class NotesPresenter(
    private val notebook: () -> Notebook,
    private val runner: Runner,
    private val show: (NotesState) -> Unit,
) {
    private var query = ""

    /** Counts what was asked for: an answer to an older question is not shown. */
    @Volatile
    private var asked = 0

    /** Reads the notes again, such as when the screen comes back. */
    fun refresh() {
        val number = ++asked
        val now = query.trim()
        runner.run({ if (number == asked) ask(now) else null }, { failed(number, it) }) { state ->
            if (state != null && number == asked) show(state)
        }
    }

    /** The query was changed. Each letter may call this: what is no longer asked for is not computed. */
    fun search(text: String) {
        if (text.trim() == query.trim() && asked > 0) return
        query = text
        refresh()
    }

    /** The screen is left: nothing more is shown. */
    fun leave() {
        asked++
    }

    private fun ask(query: String): NotesState {
        val notebook = notebook()
        if (query.isNotEmpty()) return notebook.search(query, RESULTS).let { NotesState.Results(query, it, notebook.problem) }
        val notes = notebook.all()
        return if (notes.isEmpty()) NotesState.Empty else NotesState.All(notes)
    }

    private fun failed(number: Int, error: Exception) {
        if (number == asked) show(NotesState.Failed(error.message ?: error.javaClass.simpleName))
    }

    companion object {
        /** Most results of a search. */
        const val RESULTS = 20
    }
}
