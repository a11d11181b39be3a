package org.edgemrl.store

import org.edgemrl.json.JsonException

/**
 * Makes all indexes of a store anew out of its documents: words, metadata, and SQLite's own. What a damaged document
 * had in them is left out. In one transaction.
 */
internal fun remakeIndexes(store: Store): Unit = store.changing { database ->
    database.run("REINDEX")
    indexWords(database)
    database.execute("DELETE FROM fields")
    database.each("SELECT $DOCUMENT_COLUMNS FROM documents NOT INDEXED WHERE metadata <> '{}'") { row ->
        if (soundDocument(row)) putFields(database, row[0] as Long, row[2] as String)
    }
}

/** Makes the index of words anew; words of damaged texts are nowhere. Call it in a transaction that writes. */
internal fun indexWords(database: Database) {
    database.run("INSERT INTO keywords (keywords) VALUES ('delete-all')")
    database.each("SELECT $DOCUMENT_COLUMNS FROM documents NOT INDEXED ORDER BY key") { row ->
        if (soundDocument(row)) database.execute(PUT_WORDS, row[0], keywordText(row[6] as String))
    }
}

private fun putFields(database: Database, key: Long, metadata: String) {
    val rows = try {
        fieldRows(decodeMetadata(metadata))
    } catch (_: JsonException) { // no reader takes it: no filter finds the document
        return
    }
    database.many(insertInto("fields", "name, kind, value, document"), rows.map { listOf(it.name, it.kind, it.value, key) })
}
