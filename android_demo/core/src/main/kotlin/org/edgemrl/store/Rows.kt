package org.edgemrl.store

import org.edgemrl.Document
import org.edgemrl.StoreException
import org.edgemrl.UsageException
import org.edgemrl.json.JsonException
import org.edgemrl.shorten

/** Keys are 32-bit in the code file. A key is used once: this is four billion changed documents. */
private const val MAX_KEY = 0xFFFFFFFFL

private const val FORGET_WORDS = "INSERT INTO keywords (keywords, rowid, text) VALUES ('delete', ?, ?)"
internal const val PUT_WORDS = "INSERT INTO keywords (rowid, text) VALUES (?, ?)"

/** An entry as the values of its rows; its key and its first row are set last. */
internal class EntryRows(entry: Entry, binding: Binding, keepFull: String?) {
    val document = entry.document
    val passages = entry.spans.size
    var key = 0L
    var firstRow = 0L
    var full: ByteArray? = fullBytes(entry, binding, keepFull)
    private val metadata = encodeMetadata(document.metadata, document.id)
    private val hash = textHash(document.text)
    private val spans = encodeSpans(entry.spans)
    private val codes = encodeCodes(entry, binding)

    val bytes get() = full?.size?.toLong() ?: 0L

    fun documentRow(): List<Any?> {
        val crc = checksum(key, document.id, metadata, document.source, hash)
        return listOf(key, document.id, metadata, document.source, hash, crc, document.text)
    }

    fun passageRow(): List<Any?> =
        listOf(firstRow, key, passages, passageCheck(firstRow, key, passages.toLong(), spans, codes), spans, codes)

    fun fieldRows(): List<List<Any?>> = fieldRows(document.metadata).map { listOf(it.name, it.kind, it.value, key) }

    private fun fullBytes(entry: Entry, binding: Binding, keepFull: String?): ByteArray? {
        if (keepFull == null || entry.spans.isEmpty()) return null
        val full = entry.full
        if (full == null || full.size != entry.spans.size || full.any { it.size != binding.fullDim }) {
            throw UsageException(
                "full vectors of document ${shorten(entry.document.id)} are ${full?.map { it.size }?.take(3)}, " +
                    "expected float32[${entry.spans.size}, ${binding.fullDim}]: this store keeps them",
            )
        }
        return encodeFull(full, keepFull)
    }
}

/** Drops the full vectors for which the queue has no room; they can be made again from the text. */
internal fun leaveOutVectors(rows: List<EntryRows>, room: Long?) {
    var left = room ?: return
    for (row in rows) {
        val bytes = row.bytes
        if (bytes > left) row.full = null
        left -= row.bytes
    }
}

/** Writes documents, each in place of the one of its id; returns the state after it. */
internal fun putRows(database: Database, store: String, rows: List<EntryRows>, state: State): State {
    val known = database.select("id, key", "id", rows.map { it.document.id }).associate { it[0] as String to it[1] as Long }
    // The words of a damaged document are still indexed under its key, which is not used again.
    val damaged = removeDocuments(database, known.values)
    var key = state.nextKey
    var first = state.nextRow
    for (row in rows) {
        row.firstRow = first
        first += row.passages
        row.key = known[row.document.id].takeIf { it !in damaged } ?: key++
    }
    if (key > MAX_KEY || first > MAX_KEY) throw StoreException("$store has used all its keys: make the store again in another file")
    database.many(insertInto("documents", "key, id, metadata, source, hash, crc, text"), rows.map { it.documentRow() })
    database.many(insertInto("passages", "first_row, document, rows, crc, spans, codes"), rows.filter { it.passages > 0 }.map { it.passageRow() })
    database.many(
        insertInto("fulls", "document, crc, vectors"),
        rows.mapNotNull { row -> row.full?.let { listOf(row.key, keyedCheck(row.key, it), it) } },
    )
    database.many(insertInto("fields", "name, kind, value, document"), rows.flatMap { it.fieldRows() })
    database.many(PUT_WORDS, rows.map { listOf(it.key, keywordText(it.document.text)) })
    return state.with(nextKey = key, nextRow = first)
}

/**
 * Deletes documents with all that belongs to them. The index of words cannot be told which words a damaged
 * one had, so they stay until it is made again; no search finds them.
 *
 * @return keys of the damaged ones.
 */
internal fun removeDocuments(database: Database, keys: Collection<Long>): Set<Long> {
    val rows = database.select(PASSAGE_COLUMNS, "document", keys, "passages")
    val sound = rows.filter { soundPassages(it) }
    addTombstones(database, sound.map { it[0] as Long to it[2] as Long })
    val damaged = HashSet<Long>()
    for (row in database.select(DOCUMENT_COLUMNS, "key", keys)) {
        if (soundDocument(row)) {
            database.execute(FORGET_WORDS, row[0], keywordText(row[6] as String))
            removeFields(database, row[0] as Long, row[2] as String)
        } else {
            damaged.add(row[0] as Long)
        }
    }
    database.many("DELETE FROM fields WHERE document = ?", damaged.map { listOf(it) })
    database.many("DELETE FROM documents WHERE key = ?", keys.map { listOf(it) })
    if (sound.size < rows.size) { // which rows these had is not known for sure
        rewriteTombstones(database, database.row("SELECT next_row FROM state")!![0] as Long)
    }
    return damaged
}

/** Hashes of the texts of those documents that are sound and whose text is here, by id. */
internal fun soundHashes(database: Database, ids: List<String>): Map<String, ByteArray> {
    val rows = database.select(DOCUMENT_COLUMNS, "id", ids).filter { soundDocument(it) }.associateBy { it[0] as Long }
    val noText = textHash("")
    val hidden = HashSet<Any?>()
    for (place in database.select(PASSAGE_COLUMNS, "document", rows.keys, "passages")) {
        if ((rows.getValue(place[1] as Long)[4] as ByteArray).contentEquals(noText) || !soundPassages(place)) hidden.add(place[1])
    }
    for ((key, crc, data) in database.select("document, crc, vectors", "document", rows.keys, "fulls")) {
        if (data !is ByteArray || keyedCheck(key as Long, data) != crc) hidden.add(key)
    }
    return rows.values.filter { it[0] !in hidden }.associate { it[1] as String to it[4] as ByteArray }
}

/** What became of a document whose text was thought to be stored already. */
internal enum class Put { STALE, SAME, CHANGED }

/** Writes a document's metadata and source if its text is still the one that is stored. */
internal fun putMetadata(database: Database, document: Document, metadata: String): Put {
    val hash = textHash(document.text)
    val row = database.row("SELECT $DOCUMENT_COLUMNS FROM documents WHERE id = ? AND hash = ?", document.id, hash)
    if (row == null || !soundDocument(row)) return Put.STALE
    val key = row[0] as Long
    val old = row[2] as String
    if (old != metadata || row[3] != document.source) {
        removeFields(database, key, old)
        val crc = checksum(key, document.id, metadata, document.source, hash)
        database.execute("UPDATE documents SET metadata = ?, source = ?, crc = ? WHERE key = ?", metadata, document.source, crc, key)
        val fields = fieldRows(document.metadata)
        database.many(insertInto("fields", "name, kind, value, document"), fields.map { listOf(it.name, it.kind, it.value, key) })
    }
    return if (old == metadata) Put.SAME else Put.CHANGED
}

private fun removeFields(database: Database, key: Long, metadata: String) {
    val rows = try {
        fieldRows(decodeMetadata(metadata))
    } catch (_: JsonException) { // damaged: a search by them can only find nothing, and `check` says so
        emptyList()
    }
    val query = "DELETE FROM fields WHERE name = ? AND kind = ? AND value = ? AND document = ?"
    database.many(query, rows.map { listOf(it.name, it.kind, it.value, key) })
}

/**
 * A transaction that writes what other devices wrote; see `Store.taking`.
 *
 * @property database for what else belongs to this transaction.
 * @property state the store's state after what was written so far.
 * @property changed whether any document was put or deleted.
 */
internal class Taking(val database: Database, private val path: String, private val binding: Binding, private val keepFull: String?, state: State) {
    var state = state
        private set
    var changed = false
        private set

    /** Stores documents, each in place of the one of its id. @throws UsageException for codes of the wrong size. */
    fun put(entries: List<Entry>) {
        state = putRows(database, path, entries.map { EntryRows(it, binding, keepFull) }, state)
        changed = changed || entries.isNotEmpty()
    }

    /** Deletes those of the documents that are there. */
    fun delete(ids: Collection<String>) {
        val keys = database.select("key", "id", ids).map { it[0] as Long }
        removeDocuments(database, keys)
        changed = changed || keys.isNotEmpty()
    }
}
