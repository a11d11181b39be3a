package org.edgemrl.store

import org.edgemrl.ByCodePoint
import org.edgemrl.DamagedException
import org.edgemrl.Document
import org.edgemrl.EdgeMrlException
import org.edgemrl.Span
import org.edgemrl.json.JsonException
import org.edgemrl.shorten

/** Documents whose metadata are read and compared with a filter at a time, and in all for a few hits. */
private const val JUDGED = 64
private const val MOST_JUDGED = 512

/** First row and spans of a document's passages. */
internal class Place(val firstRow: Long, val spans: List<Span>)

/** One state of a store, shown within `Store.reading`. All that is read is compared with its checksum. */
internal class View(
    private val database: Database,
    private val cache: CodeCache,
    private val binding: Binding,
    private val keepFull: String?,
) {
    /** Keys of documents that were found to be damaged, and left out. */
    val damaged = HashSet<Long>()

    /** All codes in this state, without those of damaged documents. */
    val codes: CodeTable get() = cache.table(readState(database)).also { damaged.addAll(cache.unsound) }

    val layout: Layout get() = cache.layout

    /** Whether the store keeps full vectors. */
    val keepsFull: Boolean get() = keepFull != null

    /** The text of a setting, or null. @throws DamagedException if it is not what was written. */
    fun setting(name: String): String? {
        val (value, crc) = database.row("SELECT value, crc FROM settings WHERE name = ?", name) ?: return null
        if (checksum(name, value) != crc) throw DamagedException("its setting '$name' cannot be trusted")
        return value.toString()
    }

    /** Those of the documents that are sound, by key; the others are noted in [damaged]. */
    fun documents(keys: Collection<Long>): Map<Long, Document> {
        val rows = database.select(DOCUMENT_COLUMNS, "key", keys)
        damaged.addAll(keys - rows.map { it[0] as Long }.toSet())
        val found = HashMap<Long, Document>()
        for (row in rows) {
            try {
                found[row[0] as Long] = readDocument(row)
            } catch (_: DamagedException) {
                damaged.add(row[0] as Long)
            }
        }
        return found
    }

    /** The key of a document, or null if there is none of that id. */
    fun key(id: String): Long? = database.select("key", "id", listOf(id)).firstOrNull()?.let { it[0] as Long }

    /** @throws DamagedException if a document was found to be damaged. */
    fun requireSound(key: Long, id: String) {
        if (key in damaged) throw damagedDocument(id)
    }

    /** Documents that a filter selects, in the order in which they were first put; the ids of damaged ones to [bad]. */
    fun each(where: Map<String, Any?>, bad: (String) -> Unit, action: (Document) -> Unit) {
        val query = compileFilter(where)
        database.each("SELECT $DOCUMENT_COLUMNS FROM documents WHERE key IN (${query.sql}) ORDER BY key", query.values) { row ->
            val document = try {
                readDocument(row)
            } catch (_: DamagedException) {
                null
            }
            if (document == null) return@each bad(row[1].toString())
            requireMatch(where, document.metadata)
            action(document)
        }
    }

    /** Ids of those of the documents that are there, damaged ones included, sorted. */
    fun names(keys: Collection<Long>): List<String> =
        database.select("id", "key", keys).map { org.edgemrl.clean(it[0].toString()) }.sortedWith(ByCodePoint)

    /**
     * Rows and spans of those of the documents whose passages are sound; the others are noted in [damaged].
     *
     * @param partial documents without passages are nothing special.
     */
    fun places(keys: Collection<Long>, partial: Boolean = false): Map<Long, Place> {
        val rows = database.select(PASSAGE_COLUMNS, "document", keys, "passages")
        val (good, bad) = rows.partition { soundPassages(it) }
        damaged.addAll(bad.mapNotNull { it[1] as? Long })
        if (!partial) damaged.addAll(keys - rows.mapNotNull { it[1] as? Long }.toSet())
        return good.associate { it[1] as Long to Place(it[0] as Long, decodeSpans(it[3] as ByteArray)) }
    }

    /** Full vectors by key, of those documents whose vectors the store keeps; damaged ones are noted. */
    fun fulls(keys: Collection<Long>): Map<Long, List<FloatArray>> {
        val dim = binding.fullDim
        if (keepFull == null || dim == null) return emptyMap()
        val found = HashMap<Long, List<FloatArray>>()
        for ((key, crc, data) in database.select("document, crc, vectors", "document", keys, "fulls")) {
            if (data is ByteArray && keyedCheck(key as Long, data) == crc) found[key] = decodeFull(data, dim, keepFull) else damaged.add(key as Long)
        }
        return found
    }

    /** Keys of the documents that a filter selects. */
    fun select(where: Map<String, Any?>): Set<Long> {
        val query = compileFilter(where)
        return database.rows(query.sql, *query.values.toTypedArray()).mapTo(HashSet()) { it[0] as Long }
    }

    /** Ids of the documents that a filter selects, sorted; each is compared with the filter. */
    fun idsWhere(where: Map<String, Any?>): List<String> {
        val keys = select(where)
        val rows = database.select("key, id, metadata, source, hash, crc", "key", keys)
        if (rows.size < keys.size) throw DamagedException("its index of metadata cannot be trusted")
        for (row in rows) {
            // Of a document that is damaged itself, the index may know better.
            if (checksum(row.asList().dropLast(1)) == row[5]) requireMatch(where, decodeMetadata(row[2] as String))
        }
        return rows.map { it[1].toString() }.sortedWith(ByCodePoint)
    }

    /** @throws DamagedException if a document that the index of metadata selected does not match. */
    fun requireMatch(where: Map<String, Any?>, metadata: Map<String, Any?>) {
        if (!matches(where, fieldRows(metadata))) throw DamagedException("its index of metadata cannot be trusted")
    }

    /** How many of the best documents to compare with a filter, to find [wanted] that match it. */
    fun judgedDepth(wanted: Int): Int = maxOf(MOST_JUDGED, 4 * wanted)

    /**
     * The first of some documents, in their order, that a filter selects by their metadata: [wanted] of them, or
     * all that match. Null if the documents cannot or should not be judged one by one: the filter asks for words,
     * so few match that a look into the index of metadata costs less, or a document is damaged.
     */
    fun firstMatching(where: Map<String, Any?>, keys: List<Long>, wanted: Int): List<Long>? {
        compileFilter(where)
        if (asksForWords(where)) return null
        val found = ArrayList<Long>()
        var seen = 0
        for (some in keys.chunked(JUDGED)) {
            val rows = database.select("key, id, metadata, source, hash, crc", "key", some).associateBy { it[0] as Long }
            if (some.any { key -> rows[key]?.let { checksum(it.asList().dropLast(1)) == it[5] } != true }) return null
            some.filterTo(found) { matches(where, fieldRows(decodeMetadata(rows.getValue(it)[2] as String))) }
            if (found.size >= wanted) return found.take(wanted)
            seen += some.size
            if (seen < keys.size && 2L * found.size * keys.size < wanted.toLong() * seen) return null
        }
        return found
    }

    /** Documents that have at least one of the query's words: keys and BM25, the best first. */
    fun keywordMatches(query: String, k: Int, where: Map<String, Any?>?): List<Pair<Long, Double>> {
        val expression = withoutCommon(matchTerms(query), ::countDocuments, ::countMatches).joinToString(" OR ")
        if (expression.isEmpty()) return emptyList()
        if (where == null) return ranked(expression, k, null)
        val depth = judgedDepth(k)
        val best = ranked(expression, depth, null)
        val found = firstMatching(where, best.map { it.first }, k)
        if (found == null || (found.size < k && best.size == depth)) return ranked(expression, k, compileFilter(where))
        val scores = best.toMap()
        return found.map { it to scores.getValue(it) }
    }

    private fun ranked(expression: String, k: Int, filter: Query?): List<Pair<Long, Double>> {
        // The sign keeps SQLite from searching the words anew for each document.
        val condition = if (filter == null) "" else " AND +rowid IN (${filter.sql})"
        val sql = "SELECT rowid, -rank FROM keywords WHERE keywords MATCH ?$condition " +
            // Words of a damaged document stay until the index is made again.
            "AND EXISTS (SELECT 1 FROM documents WHERE key = keywords.rowid) ORDER BY rank, rowid LIMIT ?"
        val values = listOf<Any?>(expression) + (filter?.values ?: emptyList()) + listOf(k)
        return database.rows(sql, *values.toTypedArray()).map { it[0] as Long to it[1] as Double }
    }

    private fun countDocuments(): Long = database.row("SELECT count(*) FROM documents")!![0] as Long

    /** How many documents match an expression, counted up to [most]. */
    private fun countMatches(expression: String, most: Long): Long =
        database.row("SELECT count(*) FROM (SELECT 1 FROM keywords WHERE keywords MATCH ? LIMIT ?)", expression, most)!![0] as Long
}

/** The document of a row of [DOCUMENT_COLUMNS]. @throws DamagedException if it is not what was put. */
internal fun readDocument(row: Row): Document {
    if (soundDocument(row)) {
        try {
            return Document(row[1] as String, row[6] as String, decodeMetadata(row[2] as String), row[3] as String?)
        } catch (_: JsonException) { // no writer wrote that
        } catch (_: EdgeMrlException) {
        }
    }
    throw damagedDocument(row[1].toString())
}

private fun damagedDocument(id: String) = DamagedException("document ${shorten(id)} is not what was stored: put it again, or delete it")
