package org.edgemrl.demo.notes

/**
 * A note.
 *
 * @property id names it in the notebook: made by the app, or the path of the file it was imported from.
 * @property changedMs when it was last written, in milliseconds since 1970.
 */
data class Note(val id: String, val text: String, val changedMs: Long) {
    /** The first line that is not blank. */
    val title: String
        get() = text.lineSequence().map { it.trim() }.firstOrNull { it.isNotEmpty() }.orEmpty()

    /** What follows the title, in one line. */
    val preview: String
        get() = text.trim().removePrefix(title).replace(BLANKS, " ").trim().take(PREVIEW_LENGTH)

    private companion object {
        val BLANKS = Regex("\\s+")
        const val PREVIEW_LENGTH = 200
    }
}

/**
 * A note that fits a query.
 *
 * @property passage where in the note's text the best sentence is; null if it is the whole note.
 */
data class Found(val note: Note, val passage: IntRange?) {
    /** The best sentence, in one line. */
    val sentence: String
        get() = (passage?.let { note.text.substring(it) } ?: note.text).replace(Regex("\\s+"), " ").trim()
}

/** Where the notes are. All of it blocks; calls from several threads take turns. */
interface Notebook {
    /** Why notes are found by their words alone, in words; null if they are found by their meaning. */
    val problem: String? get() = null

    /** All notes, the last written first. */
    fun all(): List<Note>

    /** A note, or null if there is none of that id. */
    fun get(id: String): Note?

    /**
     * Writes notes; each replaces the one of its id.
     *
     * @throws java.io.IOException if it cannot be written.
     */
    fun put(notes: List<Note>)

    /** Removes a note, if it is there. */
    fun delete(id: String)

    /** The notes that fit a query, the best first. */
    fun search(query: String, count: Int): List<Found>
}
