package org.edgemrl.store

import java.security.MessageDigest

private const val COLUMNS = "text, content = '', tokenize = 'unicode61 remove_diacritics 2'"
private const val DAMAGED = "keywords: the index of words does not agree with the texts"

/**
 * What is wrong with the index of words, or null. All texts are indexed again to compare.
 *
 * @param damaged keys of documents whose texts are damaged, so that their words are not known.
 */
internal fun wordsProblem(database: Database, damaged: List<Long>): String? {
    try {
        database.run("CREATE VIRTUAL TABLE temp.fresh USING fts5 ($COLUMNS)")
        database.run("CREATE TEMP TABLE unknown (key INTEGER PRIMARY KEY)")
        database.many("INSERT INTO temp.unknown VALUES (?)", damaged.map { listOf(it) })
        database.each("SELECT $DOCUMENT_COLUMNS FROM documents") { row ->
            if (soundDocument(row)) {
                database.execute("INSERT INTO temp.fresh (rowid, text) VALUES (?, ?)", row[0], keywordText(row[6] as String))
            }
        }
        for ((table, home) in listOf("fresh" to "temp", "keywords" to "main")) {
            database.run("CREATE VIRTUAL TABLE temp.${table}_words USING fts5vocab ($home, $table, instance)")
        }
        val known = "NOT IN (SELECT key FROM temp.unknown)"
        fun words(table: String) = digest(database, "SELECT term, doc, offset FROM temp.${table}_words WHERE doc $known")
        fun sizes(table: String) = digest(database, "SELECT id, sz FROM ${table}_docsize WHERE id $known ORDER BY id")
        val same = words("fresh") == words("keywords") && sizes("temp.fresh") == sizes("keywords") &&
            (damaged.isNotEmpty() || totals(database, "temp.fresh") == totals(database, "keywords"))
        return if (same) null else DAMAGED
    } catch (e: SqlException) {
        return "$DAMAGED (${e.message})"
    } finally {
        for (table in listOf("fresh_words", "keywords_words", "fresh", "unknown")) database.run("DROP TABLE IF EXISTS temp.$table")
    }
}

/** A digest of all rows that a query gives, in their order. */
private fun digest(database: Database, query: String): List<Byte> {
    val digest = MessageDigest.getInstance("SHA-256")
    database.each(query) { row ->
        for (value in row) {
            val bytes = if (value is ByteArray) value else value.toString().toByteArray(Charsets.UTF_8)
            digest.update("${bytes.size} ".toByteArray(Charsets.US_ASCII))
            digest.update(bytes)
        }
    }
    return digest.digest().toList()
}

/**
 * The totals that BM25 uses: texts, and words in all of them. They are varints in the record 1, which FTS5
 * writes once there was a text, so zeros at the end do not count.
 */
private fun totals(database: Database, table: String): List<Long> {
    val data = database.row("SELECT block FROM ${table}_data WHERE id = 1")?.get(0) as? ByteArray ?: return emptyList()
    val numbers = ArrayList<Long>()
    var value = 0L
    for (byte in data) {
        value = value shl 7 or (byte.toLong() and 0x7F)
        if (byte >= 0) {
            numbers.add(value)
            value = 0
        }
    }
    return numbers.dropLastWhile { it == 0L }
}
