package org.edgemrl.store

import org.edgemrl.DamagedException
import org.edgemrl.clean
import org.edgemrl.idProblem
import org.edgemrl.json.JsonException
import org.edgemrl.shorten
import org.edgemrl.store.replica.WITHHELD_COLUMNS
import org.edgemrl.store.replica.readEnrollment

/** How many problems of one kind are listed one by one. */
private const val MOST_NAMED = 20

/**
 * What a check found. Problems are repaired by `edge-mrl check --repair` on a computer, or by putting the
 * named documents again.
 *
 * @property documents how many documents were checked.
 * @property problems what is damaged, one sentence each; empty for a sound store.
 * @property damagedIds documents whose text, metadata, passages or vectors are not what was stored.
 * @property notes what is not damage, and worth knowing, one sentence each.
 */
public data class Health(
    public val documents: Long,
    public val problems: List<String>,
    public val damagedIds: List<String>,
    public val notes: List<String>,
) {
    /** Whether no problem was found. */
    public val sound: Boolean get() = problems.isEmpty()
}

/** Compares everything in a store with its checksums, and every index with what it indexes. */
internal class Check(private val database: Database, private val cache: CodeCache) {
    private var documents = 0L
    private val found = ArrayList<String>()
    private val parts = LinkedHashMap<String, String>()
    private val ids = LinkedHashSet<String>()
    private val keys = ArrayList<Long>()
    private val notes = ArrayList<String>()

    /** Examines the store, in one state of it. */
    fun examine(): Health {
        val steps = linkedMapOf<String, () -> Unit>(
            "the file" to ::structure, "documents" to ::texts, "counters" to ::counters, "passages" to ::passages,
            "full vectors" to ::fulls, "folders" to ::places, "sync" to ::queue, "fields" to ::fields,
            "keywords" to ::keywords, "the code file" to ::codeFile,
        )
        try {
            // It is taken back: a damaged index of words cannot end a transaction.
            database.transaction("DEFERRED") {
                for ((name, step) in steps) showing(name, step)
                throw TakenBack()
            }
        } catch (_: TakenBack) {
        }
        return Health(documents, found + parts.values, ids.toList(), notes)
    }

    private class TakenBack : Exception()

    /** Runs a step; pages that cannot be read, and values that no writer wrote, are damage of the structure. */
    private fun showing(name: String, step: () -> Unit) {
        val shown: Exception = try {
            return step()
        } catch (e: SqlException) {
            if (e.code != SQLITE_CORRUPT && e.code != SQLITE_NOTADB) throw e
            e
        } catch (e: DamagedException) {
            e
        } catch (e: ClassCastException) {
            e
        } catch (e: NullPointerException) {
            e
        } catch (e: IllegalArgumentException) {
            e
        }
        if ("structure" !in parts) parts["structure"] = "structure: $name cannot be read (${shown.message})"
    }

    private fun name(what: String, some: List<String>) {
        ids.addAll(some)
        found.addAll(some.take(MOST_NAMED).map { what.replace("{}", "'$it'") })
        if (some.size > MOST_NAMED) found.add("${some.size - MOST_NAMED} more: ${what.replace("{}", "...")}")
    }

    private fun structure() {
        Schema.problem(database)?.let { parts["structure"] = "structure: the definition of $it is not what it was" }
        val lines = database.rows("PRAGMA integrity_check($MOST_NAMED)").flatMap { it[0].toString().lines() }
        val (indexes, others) = lines.filter { it != "ok" && !it.startsWith("***") && it.isNotEmpty() }.partition { "index" in it }
        indexes.firstOrNull()?.let { parts["indexes"] = "structure: $it" }
        if (others.isNotEmpty()) {
            parts["structure"] = "structure: ${others[0]}" + if (others.size > 1) ", and ${others.size - 1} more" else ""
        }
        for (row in database.rows("PRAGMA foreign_key_check").take(MOST_NAMED)) {
            parts["orphans"] = "structure: a row of ${row[0]} belongs to nothing in ${row[2]}"
        }
    }

    private fun texts() {
        val bad = ArrayList<String>()
        val lost = ArrayList<String>()
        val beyond = ArrayList<String>()
        database.each("SELECT $DOCUMENT_COLUMNS FROM documents NOT INDEXED") { row ->
            documents++
            if (!soundDocument(row)) {
                keys.add(row[0] as Long)
                (if (reachable(row[0], row[1])) bad else lost).add(plain(row[1]))
            } else {
                beyondLimits(row[2] as String)?.let { beyond.add("document '${row[1]}': no filter finds it, because $it") }
            }
        }
        name("document {} is not what was stored", bad)
        notes.addAll(beyond.take(MOST_NAMED))
        if (lost.isNotEmpty()) {
            parts["documents"] = "${lost.size} documents have lost their ids, among them '${lost[0]}': put them again"
        }
    }

    /** Whether a document can be named, and is found by its name. */
    private fun reachable(key: Any?, id: Any?): Boolean {
        if (id !is String || idProblem(id) != null) return false
        return database.rows("SELECT key FROM documents WHERE id = ?", id).map { it[0] } == listOf(key)
    }

    private fun beyondLimits(metadata: String): String? = if (metadata == "{}") null else try {
        metadataProblem(decodeMetadata(metadata))
    } catch (e: JsonException) {
        "its metadata is not JSON (${e.message})"
    }

    private fun plain(id: Any?): String = clean(id.toString())

    private fun counters() {
        try {
            readState(database)
        } catch (e: DamagedException) {
            parts["state"] = e.message!!
        }
        damagedTombstones(database).firstOrNull()?.let { parts["tombstones"] = "its list of deleted rows, block $it, cannot be trusted" }
        for ((table, columns) in listOf("settings" to "name, value", "reindexing" to "binding")) {
            val bad = database.rows("SELECT $columns, crc FROM $table").firstOrNull { !checked(it) } ?: continue
            parts[table] = "its $table '${plain(bad[0]).take(40)}' cannot be trusted"
        }
    }

    private fun passages() {
        val names = ArrayList<String>()
        val unknown = ArrayList<Any?>()
        for (key in cache.damagedKeys()) {
            val row = database.row("SELECT id FROM documents WHERE key = ?", key)
            if (row == null) unknown.add(key) else names.add(plain(row[0]))
        }
        name("the passages of document {} are not what was stored", names)
        unknown.firstOrNull()?.let { parts["orphans"] = "the passages of key $it belong to no document" }
        if ("state" in parts) return
        try {
            val state = readState(database)
            cache.readDead()
            for (first in 0 until state.nextRow.toInt() step SEGMENT_ROWS) cache.load(first, minOf(first + SEGMENT_ROWS, state.nextRow.toInt()))
        } catch (e: DamagedException) {
            parts["tombstones"] = e.message!!
            return
        }
        if (!cache.lost.isEmpty && names.isEmpty() && unknown.isEmpty()) parts["tombstones"] = "row ${cache.lost.nextSetBit(0)} is missing"
    }

    private fun fulls() {
        val bad = ArrayList<String>()
        val query = "SELECT document, fulls.crc, vectors, id FROM fulls LEFT JOIN documents ON key = document"
        database.each(query) { (key, crc, vectors, id) ->
            if (vectors !is ByteArray || keyedCheck(key as Long, vectors) != crc) bad.add(plain(id))
        }
        name("the full vectors of document {} are not what was stored", bad)
    }

    private fun places() {
        val foreign = database.row("SELECT value, crc FROM settings WHERE name = 'foreign'")
        if (foreign != null && checksum("foreign", foreign[0]) == foreign[1]) {
            found.add("sync: documents of a server of another embedding space (${shorten(foreign[0])}) were stored: open it with edge-mrl on a computer")
        }
        if (database.rows("SELECT prefix, path, facts, crc FROM roots").any { !checked(it) }) {
            parts["roots"] = "roots: the place of a folder cannot be trusted; it is found again"
        }
    }

    private fun queue() {
        val enrolled = try {
            readEnrollment(database) != null
        } catch (e: DamagedException) {
            parts["sync"] = "sync: ${e.message}: enroll this store again after the repair"
            return
        }
        val tables = listOf(
            "versions" to "id, stamp, device, deleted, acknowledged, sent", "outbox" to "id, stamp, deleted, bytes",
            "dead" to "id, stamp, reason, since_ms, deleted, metadata, text", "withheld" to WITHHELD_COLUMNS,
        )
        for ((table, columns) in tables) {
            val bad = database.rows("SELECT $columns, crc FROM $table").lastOrNull { !checked(it) } ?: continue
            val part = if (table == "dead" || table == "withheld") table else "queue"
            parts[part] = "sync: $table of document '${plain(bad[0])}' is damaged"
        }
        if (!enrolled) return
        val disagreeing = listOf(
            "SELECT outbox.id FROM outbox LEFT JOIN documents ON documents.id = outbox.id WHERE NOT outbox.deleted AND key IS NULL",
            "SELECT documents.id FROM documents LEFT JOIN versions ON versions.id = documents.id WHERE versions.id IS NULL OR versions.deleted",
        )
        for (query in disagreeing) {
            val row = database.row("$query LIMIT 1") ?: continue
            if ("queue" !in parts) parts["queue"] = "sync: document '${plain(row[0])}' and its version do not agree"
        }
    }

    private fun fields() {
        var wanted = 0L
        val query = "SELECT 1 FROM fields WHERE name = ? AND kind = ? AND value = ? AND document = ?"
        var missing = false
        database.each("SELECT $DOCUMENT_COLUMNS FROM documents WHERE metadata <> '{}'") { row ->
            if (missing || !soundDocument(row)) return@each
            val rows = try {
                fieldRows(decodeMetadata(row[2] as String))
            } catch (_: JsonException) {
                return@each
            }
            wanted += rows.size
            missing = rows.any { database.row(query, it.name, it.kind, it.value, row[0]) == null }
        }
        if (missing) {
            parts["fields"] = "fields: values are missing from the index of metadata"
        } else if (database.row("SELECT count(*) FROM fields")!![0] != wanted) {
            parts["fields"] = "fields: the index of metadata has values that no document has"
        }
    }

    private fun keywords() {
        wordsProblem(database, keys)?.let { parts["keywords"] = it }
    }

    private fun codeFile() {
        if ("state" in parts) return
        val state = readState(database)
        try {
            cache.verify(state).forEachIndexed { i, text -> parts["codes $i"] = text }
        } catch (_: DamagedException) {
            return // the database itself is damaged there, and has been named
        }
        if (state.filed > 0) cache.inspect(state)?.let { notes.add("$it: it is made again when the store is written") }
    }

    /** Whether a row, whose last value is its checksum, is what was written. */
    private fun checked(row: Row): Boolean = checksum(row.asList().dropLast(1)) == row.last()
}
