package org.edgemrl.probe

import java.io.File
import org.edgemrl.Document
import org.edgemrl.EncoderException
import org.edgemrl.Index
import org.edgemrl.Opening
import org.edgemrl.PassageRule
import org.edgemrl.RefusedDocumentsException
import org.edgemrl.Span
import org.edgemrl.Stored
import org.edgemrl.TextEncoder
import org.edgemrl.search.QueryVectors
import org.edgemrl.store.Binding
import org.edgemrl.store.Entry

private const val DIM = 26

/** Counts letters: it stands for a bundle where none is needed. It takes no text with "bad" in it. */
private object Letters : TextEncoder {
    var embedded = 0

    override val binding = Binding("letters", "counted", DIM, 1.0, "/none")

    override fun encodeQuery(text: String) = QueryVectors(code(text))

    override fun embed(documents: List<Document>, rule: PassageRule, full: Boolean): List<Entry> {
        documents.find { "bad" in it.text }?.let { throw EncoderException("it has bad letters") }
        embedded += documents.size
        return documents.map { Entry(it, listOf(Span(0, it.text.codePointCount(0, it.text.length))), listOf(code(it.text))) }
    }

    private fun code(text: String): ByteArray {
        val counts = ByteArray(DIM)
        for (c in text) if (c in 'a'..'z') counts[c - 'a'] = minOf(counts[c - 'a'] + 1, 127).toByte()
        return counts
    }
}

private lateinit var index: Index

private fun documentsOf(arguments: Map<String, Any?>): List<Document> = (arguments["documents"] as List<*>).map { it.asObject() }
    .map { Document(it["id"] as String, it["text"] as String, it["metadata"].asObject()) }

private fun number(arguments: Map<String, Any?>, name: String): Int? = (arguments[name] as Long?)?.toInt()

/** The facade: with an encoder of letters, or with a bundle where one is given or [arguments] ask for the store's own. */
private fun open(arguments: Map<String, Any?>): Index {
    val path = File(arguments["path"] as String)
    if ("bundle" !in arguments) return Index.openOrCreate(path, Letters, PassageRule(100, 10))
    val opening = Opening(number(arguments, "max_tokens"), number(arguments, "overlap"), arguments["keep_full"] as String?)
    return Index.open(path, (arguments["bundle"] as String?)?.let { File(it) }, opening)
}

internal val indexCommands: Map<String, Command> = mapOf(
    "index.open" to { arguments -> open(arguments).also { index = it }.let { null } },
    "index.close" to { _ -> index.close().let { null } },
    "index.release" to { _ -> index.release().let { null } },
    "index.put" to { arguments ->
        val commits = ArrayList<Int>()
        val stored = try {
            index.put(documentsOf(arguments), arguments["skip"] == true) { commits.add(it.documents) }
        } catch (e: RefusedDocumentsException) {
            if (arguments["raise"] == true) throw e
            e.stored
        }
        describe(stored) + mapOf("commits" to commits, "embedded" to Letters.embedded)
    },
    "index.search" to { arguments -> describe(index.search(arguments["query"] as String, optionsOf(arguments), arguments["words"] as String? ?: arguments["query"] as String)) },
    "index.vector" to { arguments -> describe(index.searchVector(floatsOf(arguments["full"])!!, optionsOf(arguments))) },
    "index.code" to { arguments -> describe(index.searchVector(decode(arguments["code"] as String), optionsOf(arguments))) },
    "index.similar" to { arguments -> describe(index.similar(arguments["id"] as String, optionsOf(arguments))) },
    "index.select" to { arguments -> index.select(arguments["filter"].asObject()) },
    "index.documents" to { arguments ->
        val ids = ArrayList<String>()
        index.documents(arguments["filter"].asObject()) { ids.add(it.id) }
        ids
    },
)

private fun describe(stored: Stored): Map<String, Any?> = mapOf(
    "added" to stored.added, "updated" to stored.updated, "unchanged" to stored.unchanged, "passages" to stored.passages,
    "refused" to stored.refused.map { it.id },
)
