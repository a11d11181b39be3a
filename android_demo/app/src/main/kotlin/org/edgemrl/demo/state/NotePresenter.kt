package org.edgemrl.demo.state

import org.edgemrl.demo.notes.Note
import org.edgemrl.demo.notes.Notebook

/**
 * What the screen of one note shows.
 *
 * @property new the note is not in the notebook yet.
 * @property changed it differs from the notebook's.
 * @property tooLong it has more characters than a note may have, and cannot be saved.
 */
data class NoteState(val text: String, val new: Boolean, val changed: Boolean, val tooLong: Boolean) {
    /** Whether saving would do something sensible. */
    val canSave: Boolean get() = changed && !tooLong && text.isNotBlank()
}

/**
 * A note that is written: a new one, one of the notebook, or a text that another app shares.
 *
 * @param newId makes the id of a new note.
 * @param clock the time in milliseconds since 1970.
 */
class NotePresenter(
    private val notebook: () -> Notebook,
    private val runner: Runner,
    private val newId: () -> String,
    private val clock: () -> Long,
) {
    private var id: String? = null
    private var saved = ""
    private var text = ""

    /** What to show now. */
    val state: NoteState
        get() = NoteState(text, id == null, text != saved, text.length > MOST_LENGTH)

    /** Begins a note, with a text that another app shares. */
    fun begin(subject: String?, shared: String?) {
        val parts = listOfNotNull(subject?.trim(), shared?.trim()).filter { it.isNotEmpty() }
        // Many apps give the subject as the text's beginning too.
        text = (if (parts.size == 2 && parts[1].startsWith(parts[0])) parts.drop(1) else parts).joinToString("\n\n")
        id = null
        saved = ""
    }

    /** Reads a note of the notebook. */
    fun open(id: String, gone: () -> Unit, failed: (Exception) -> Unit, done: () -> Unit) {
        runner.run({ notebook().get(id) }, failed) { note ->
            if (note == null) {
                gone()
            } else {
                this.id = note.id
                saved = note.text
                text = note.text
                done()
            }
        }
    }

    /** Goes on with a text that was being written when the screen was made anew. */
    fun restore(id: String?, saved: String, text: String) {
        this.id = id
        this.saved = saved
        this.text = text
    }

    /** What [restore] needs: id, saved text and text. */
    fun snapshot(): Triple<String?, String, String> = Triple(id, saved, text)

    /** The text was changed by hand. */
    fun edit(text: String) {
        this.text = text
    }

    /** Writes the note, if there is something to write. */
    fun save(failed: (Exception) -> Unit, done: () -> Unit) {
        if (!state.canSave) return done()
        val written = text
        val note = Note(id ?: newId(), written, clock())
        id = note.id
        runner.run({ notebook().put(listOf(note)) }, { error ->
            failed(error)
        }) {
            saved = written
            done()
        }
    }

    /** Removes the note; a new one is only forgotten. */
    fun delete(failed: (Exception) -> Unit, done: () -> Unit) {
        val known = id ?: return done()
        runner.run({ notebook().delete(known) }, failed) { done() }
    }

    companion object {
        /** Most characters of a note. */
        const val MOST_LENGTH = 1_000_000
    }
}
