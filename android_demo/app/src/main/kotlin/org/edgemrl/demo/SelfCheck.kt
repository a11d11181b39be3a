package org.edgemrl.demo

import java.io.File
import org.edgemrl.Document
import org.edgemrl.Index
import org.edgemrl.Opening
import org.edgemrl.demo.notes.FileNotebook
import org.edgemrl.demo.notes.IndexNotebook
import org.edgemrl.demo.notes.Note
import org.edgemrl.encode.Encoder
import org.edgemrl.encode.Kind
import org.edgemrl.encode.verify
import org.edgemrl.json.Json
import org.edgemrl.search.Mode
import org.edgemrl.search.SearchOptions

/**
 * The app's work without its screens, as a program: lines of JSON go in and out. So its classes.dex and its libraries
 * can be run where there is no phone. `main` is never called on one.
 *
 * `{"do": "verify", "bundle": ...}` verifies a bundle; `put` and `search` use the store of `open`; `notes` puts notes
 * into a notebook and searches them; `encode` encodes a text so many times.
 */
internal object SelfCheck {
    private var index: Index? = null

    @JvmStatic
    fun main(arguments: Array<String>) {
        System.`in`.bufferedReader().forEachLine { line ->
            @Suppress("UNCHECKED_CAST")
            val asked = Json.parse(line) as Map<String, Any?>
            println(Json.write(mapOf("value" to answer(asked))))
        }
        index?.close()
    }

    private fun answer(asked: Map<String, Any?>): Any? = when (val what = asked["do"]) {
        "verify" -> verified(File(asked["bundle"] as String))
        "open" -> Index.open(File(asked["path"] as String), File(asked["bundle"] as String), Opening(threads = 1)).let { index = it }.let { true }
        "put" -> index!!.put((asked["texts"] as Map<*, *>).map { (id, text) -> Document(id as String, text as String) }).passages
        "search" -> {
            val options = SearchOptions((asked["k"] as Long).toInt(), mode = Mode.valueOf(asked["mode"] as String))
            index!!.search(asked["query"] as String, options).hits.map { listOf(it.id, it.score, it.start, it.end) }
        }
        "notes" -> noted(asked)
        "encode" -> encoded(asked)
        else -> throw IllegalArgumentException("$what")
    }

    private fun verified(bundle: File): Map<String, Any?> {
        val found = verify(bundle, 1)
        return mapOf(
            "failures" to found.failures, "texts" to found.texts, "same_ids" to found.sameIds, "full_cosine_mean" to found.fullCosineMean,
            "full_cosine_min" to found.fullCosineMin, "coarse_cosine_min" to found.coarseCosineMin, "equal_codes" to found.equalCodes,
        )
    }

    private fun noted(asked: Map<String, Any?>): List<List<String>> {
        val folder = File(asked["folder"] as String)
        val book = IndexNotebook(File(folder, "index"), FileNotebook(File(folder, "notes"), PlainDisk)) { File(asked["bundle"] as String) }
        book.put((asked["texts"] as Map<*, *>).map { (id, text) -> Note(id as String, text as String, 1) })
        val found = book.search(asked["query"] as String, 3).map { listOf(it.note.id, it.sentence) }
        book.reopen()
        return found
    }

    private fun encoded(asked: Map<String, Any?>): Int = Encoder.open(File(asked["bundle"] as String), 1, hashes = false, tried = false).use { encoder ->
        val kind = Kind.valueOf(asked["kind"] as String)
        repeat((asked["times"] as Long).toInt()) { encoder.encode(asked["text"] as String, kind) }
        encoder.ids(asked["text"] as String, kind).size
    }

    /** A disk without Android's calls. */
    private object PlainDisk : org.edgemrl.android.Disk {
        override fun syncFolder(folder: File): Unit = Unit

        override fun freeBytes(folder: File): Long = folder.usableSpace
    }
}
