package org.edgemrl.demo.notes

import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.security.MessageDigest
import org.edgemrl.android.Disk
import org.edgemrl.json.Json
import org.edgemrl.json.JsonException

/**
 * A notebook of one file for each note, so that notes can be read and written whatever becomes of the model: here
 * wait those that the index does not have yet. Its search finds notes that have every word of the query, or its beginning.
 *
 * @property folder where the files are; made if it is missing.
 * @property damaged names of files that could not be read: they are left as they are, and not shown.
 */
class FileNotebook(private val folder: File, private val disk: Disk) : Notebook {
    private val notes = LinkedHashMap<String, Note>()
    val damaged: List<String>

    init {
        if (!folder.isDirectory && !folder.mkdirs()) throw IOException("cannot make the folder $folder")
        val bad = ArrayList<String>()
        for (file in folder.listFiles().orEmpty().sorted()) {
            when {
                file.name.endsWith(PARTIAL) -> file.delete()
                file.name.endsWith(SUFFIX) -> read(file)?.let { notes[it.id] = it } ?: bad.add(file.name)
            }
        }
        damaged = bad
    }

    @Synchronized
    override fun all(): List<Note> = notes.values.sortedByDescending { it.changedMs }

    @Synchronized
    override fun get(id: String): Note? = notes[id]

    @Synchronized
    override fun put(notes: List<Note>) {
        for (note in notes) {
            write(note)
            this.notes[note.id] = note
        }
        disk.syncFolder(folder)
    }

    @Synchronized
    override fun delete(id: String) {
        if (notes.remove(id) == null) return
        val file = file(id)
        if (!file.delete() && file.exists()) throw IOException("cannot delete $file")
        disk.syncFolder(folder)
    }

    @Synchronized
    override fun search(query: String, count: Int): List<Found> {
        val words = words(query)
        if (words.isEmpty()) return emptyList()
        return all().asSequence()
            .filter { note -> words(note.text).let { own -> words.all { word -> own.any { it.startsWith(word) } } } }
            .map { Found(it, bestSentence(it.text, words)) }
            .take(count)
            .toList()
    }

    private fun write(note: Note) {
        val target = file(note.id)
        val partial = File(folder, target.name + PARTIAL)
        FileOutputStream(partial).use { out ->
            out.write(Json.write(mapOf("id" to note.id, "text" to note.text, "changed_ms" to note.changedMs)).toByteArray())
            out.fd.sync()
        }
        if (!partial.renameTo(target)) throw IOException("cannot rename $partial to $target")
    }

    private fun read(file: File): Note? = try {
        val found = Json.parse(file.readText()) as? Map<*, *>
        val id = found?.get("id") as? String
        val text = found?.get("text") as? String
        val changed = found?.get("changed_ms") as? Number
        if (id == null || text == null || changed == null || file(id).name != file.name) null else Note(id, text, changed.toLong())
    } catch (e: JsonException) {
        null
    }

    /** Names of files are hashes: an id may be a path, and longer than a name may be. */
    private fun file(id: String): File {
        val digest = MessageDigest.getInstance("SHA-256").digest(id.toByteArray())
        return File(folder, digest.joinToString("") { "%02x".format(it) } + SUFFIX)
    }

    private companion object {
        const val SUFFIX = ".json"
        const val PARTIAL = ".new"
    }
}
