package org.edgemrl.demo.notes

import java.io.File
import org.edgemrl.BindingException
import org.edgemrl.DamagedException
import org.edgemrl.Document
import org.edgemrl.EdgeMrlException
import org.edgemrl.Index
import org.edgemrl.NoStoreException
import org.edgemrl.Opening
import org.edgemrl.search.Hit
import org.edgemrl.search.Mode
import org.edgemrl.search.SearchOptions

/**
 * A notebook in an index, which finds notes by meaning and by words.
 *
 * No note is lost to the model: what cannot be indexed now waits as a file, and moves into the index when that can be
 * opened. Of two versions of a note the one that was written last counts. Another model gets a store of its own, into
 * which all notes are brought before the former one is removed.
 *
 * @property folder where the stores are.
 * @property waiting the notes that are not indexed yet.
 * @property written called after notes were written or deleted.
 * @property bundle the folder of the model, or null while there is none.
 */
class IndexNotebook(
    private val folder: File,
    private val waiting: FileNotebook,
    private val written: () -> Unit = {},
    private val bundle: () -> File?,
) : Notebook {
    private var opened: Index? = null
    private var nearest: NearestSentence? = null

    override var problem: String? = null
        private set

    @Synchronized
    override fun all(): List<Note> {
        val found = HashMap<String, Note>()
        index()?.let { index ->
            try {
                index.documents { found[it.id] = noteOf(it) }
            } catch (e: DamagedException) {
                problem = e.message // the others are shown
            }
        }
        for (note in waiting.all()) if (isNewer(note, found[note.id])) found[note.id] = note
        return found.values.sortedByDescending { it.changedMs }
    }

    @Synchronized
    override fun get(id: String): Note? {
        val indexed = index()?.get(listOf(id))?.get(id)?.let { noteOf(it) }
        return waiting.get(id)?.takeIf { isNewer(it, indexed) } ?: indexed
    }

    @Synchronized
    override fun put(notes: List<Note>) {
        val index = index()
        if (index == null || !indexed(index, notes)) waiting.put(notes)
        written()
    }

    @Synchronized
    override fun delete(id: String) {
        index()?.delete(listOf(id))
        waiting.delete(id)
        written()
    }

    /** The file of the index, with all that waited in it; null while no model is there to make one. */
    @Synchronized
    fun storeFile(): File? = index()?.path

    /** Whether notes would get another index with a bundle, since its vectors are others. */
    @Synchronized
    fun wouldChange(model: File): Boolean = index()?.let { !it.takes(model) } ?: false

    @Synchronized
    override fun search(query: String, count: Int): List<Found> {
        val others = waiting.search(query, count)
        val index = index() ?: return others
        // The last word may not be written to its end.
        val words = if (query.isNotEmpty() && query.last().isLetterOrDigit()) "$query*" else query
        val hits = try {
            index.search(query, SearchOptions(k = count, mode = Mode.HYBRID), words).hits.also { problem = null }
        } catch (e: EdgeMrlException) {
            problem = e.message
            index.search(query, SearchOptions(k = count, mode = Mode.KEYWORD), words).hits
        }
        val newer = others.filter { one -> isNewer(one.note, hits.find { it.id == one.note.id }?.let { noteOf(it.metadata, it.id, "") }) }
        val names = newer.mapTo(HashSet()) { it.note.id }
        return (newer + shown(index, query, hits.filter { it.id !in names })).take(count)
    }

    /** Closes the model and gives memory back; the next search opens it again. */
    @Synchronized
    fun release() {
        nearest = null
        opened?.release()
    }

    /** Gives caches back, and keeps the model. */
    @Synchronized
    fun releaseCaches() {
        opened?.releaseCaches()
    }

    /** Another model was installed: the next use opens it. */
    @Synchronized
    fun reopen() {
        nearest = null
        opened?.close()
        opened = null
    }

    /** The index, with all that waited in it; null while there is none. */
    private fun index(): Index? {
        opened?.let { return it }
        try {
            opened = open()
            opened?.let { indexed(it, waiting.all()) }
        } catch (e: EdgeMrlException) {
            problem = e.message
        }
        return opened
    }

    private fun open(): Index? {
        val stores = stores()
        val newest = stores.lastOrNull()
        val model = bundle()
        if (model == null) {
            problem = "no model is installed"
            return newest?.let { Index.open(it) }
        }
        val file = newest ?: store(1)
        val index = try {
            Index.open(file, model, OPENING)
        } catch (e: BindingException) { // another model: its codes are no answers to this one's
            Index.open(store(number(file) + 1), model, OPENING)
        } catch (e: EdgeMrlException) {
            problem = e.message
            return newest?.let { Index.open(it) }
        }
        problem = null
        for (former in stores) if (former != index.path) bring(former, index)
        return index
    }

    /** Brings the notes of a former model's store over, and removes that store. */
    private fun bring(former: File, index: Index) {
        try {
            Index.open(former).use { old ->
                val batch = ArrayList<Note>()
                fun flush() {
                    if (batch.isNotEmpty() && !indexed(index, batch)) throw DamagedException("$former cannot be brought over: $problem")
                    batch.clear()
                }
                old.documents {
                    batch.add(noteOf(it))
                    if (batch.size == BATCH) flush()
                }
                flush()
            }
        } catch (e: NoStoreException) {
            return
        }
        for (end in listOf("-codes", "-wal", "-shm", "-sync.json", "")) File(former.path + end).delete()
    }

    /** Indexes notes, but those of which it has newer ones. False if they cannot be indexed now. */
    private fun indexed(index: Index, notes: List<Note>): Boolean {
        try {
            val there = index.get(notes.map { it.id }).mapValues { (_, one) -> noteOf(one) }
            val fresh = notes.filter { note -> there[note.id].let { it == null || note.changedMs >= it.changedMs } }
            val refused = index.put(fresh.map { documentOf(it) }, skipRefused = true).refused.mapTo(HashSet()) { it.id }
            waiting.put(fresh.filter { it.id in refused })
            for (note in notes) if (note.id !in refused) waiting.delete(note.id)
            return true
        } catch (e: EdgeMrlException) {
            problem = e.message
            return false
        }
    }

    /** The hits with their best sentences: those with the query's words, else the nearest ones by meaning. */
    private fun shown(index: Index, query: String, hits: List<Hit>): List<Found> {
        val texts = index.get(hits.map { it.id })
        val words = words(query)
        val found = hits.mapNotNull { hit -> texts[hit.id]?.let { hit to noteOf(it) } }
        val places = HashMap<String, IntRange?>()
        for ((_, note) in found) places[note.id] = bestSentence(note.text, words)
        val rest = found.filter { (_, note) -> places[note.id] == null }
        for ((hit, note) in rest) places[note.id] = sentences(note.text, part(note.text, hit)).firstOrNull()
        val near = rest.take(MOST_BY_MEANING)
        if (problem == null && near.isNotEmpty()) {
            try {
                val finder = nearest ?: NearestSentence(index).also { nearest = it }
                val best = finder.find(query, near.map { (hit, note) -> note.text to part(note.text, hit) })
                near.forEachIndexed { i, (_, note) -> best[i]?.let { places[note.id] = it } }
            } catch (e: EdgeMrlException) { // the first sentence is shown
                problem = e.message
            }
        }
        return found.map { (_, note) -> Found(note, places[note.id]) }
    }

    /** A hit's passage, whose places are in code points, in the note's text. */
    private fun part(text: String, hit: Hit): IntRange {
        val start = text.offsetByCodePoints(0, hit.start)
        return start until text.offsetByCodePoints(start, hit.end - hit.start)
    }

    private fun stores(): List<File> = folder.listFiles().orEmpty().filter { it.name.matches(NAME) }.sortedBy { number(it) }

    private fun store(number: Int): File {
        folder.mkdirs()
        return File(folder, "notes-$number.db")
    }

    private fun number(file: File): Int = NAME.matchEntire(file.name)!!.groupValues[1].toInt()

    private fun isNewer(note: Note, other: Note?) = other == null || note.changedMs > other.changedMs

    private fun documentOf(note: Note) = Document(note.id, note.text, mapOf(CHANGED to note.changedMs))

    private fun noteOf(document: Document) = noteOf(document.metadata, document.id, document.text)

    private fun noteOf(metadata: Map<String, Any?>, id: String, text: String) = Note(id, text, (metadata[CHANGED] as? Number)?.toLong() ?: 0)

    private companion object {
        /** Two threads: a phone's large cores, and the others stay cool. The hashes were compared at installation. */
        val OPENING = Opening(threads = 2, lowMemory = true, hashes = false)
        val NAME = Regex("notes-(\\d{1,6})\\.db")
        const val CHANGED = "changed_ms"
        const val BATCH = 64

        /** Hits whose best sentence is looked for by meaning; of the others, which few look at, the first is shown. */
        const val MOST_BY_MEANING = 6
    }
}
