package org.edgemrl.store

import java.security.SecureRandom
import org.edgemrl.DamagedException
import org.edgemrl.StoreBusyException

/**
 * What compacting gave back.
 *
 * @property beforeBytes bytes of store, log and code file before it.
 * @property afterBytes bytes after it.
 * @property rowsDropped rows of deleted passages that were dropped.
 */
public data class Compaction(public val beforeBytes: Long, public val afterBytes: Long, public val rowsDropped: Int)

internal fun compact(store: Store): Compaction {
    fun size() = listOf("", "-wal", "-codes").sumOf { StoreFile.beside(store.path, it).length() }
    val before = size()
    val dropped = store.writing { state ->
        store.lending { database, _ ->
            val dead = readDead(database).cardinality()
            if (dead > 0) {
                renumber(database)
                val generation = ByteArray(GENERATION_BYTES).also { SecureRandom().nextBytes(it) }
                writeState(database, State(state.changes + 1, state.nextKey, state.nextRow - dead, 0, generation))
            }
            database.execute("INSERT INTO keywords (keywords) VALUES ('optimize')")
            dead
        }
    }
    store.lending { database, cache ->
        cache.remove()
        database.run("VACUUM")
        cache.keepUp(readState(database))
        // A reader keeps the log in use; then the next to close the store folds it in.
        try {
            database.run("PRAGMA busy_timeout = 100")
            database.row("PRAGMA wal_checkpoint(TRUNCATE)")
        } catch (_: StoreBusyException) {
        } finally {
            database.run("PRAGMA busy_timeout = 10000")
        }
    }
    return Compaction(before, size(), dropped)
}

private fun renumber(database: Database) {
    val sql = database.row("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'passages'")!![0] as String
    database.run("CREATE TABLE compacted (${sql.substringAfter('(')}")
    var first = 0L
    database.each("SELECT $PASSAGE_COLUMNS FROM passages ORDER BY first_row") { row ->
        if (!soundPassages(row)) throw DamagedException("the passages of document ${row[1]} cannot be trusted")
        val (_, key, rows, spans, codes) = row
        val crc = passageCheck(first, key as Long, rows as Long, spans as ByteArray, codes as ByteArray)
        database.execute(insertInto("compacted", "first_row, document, rows, crc, spans, codes"), first, key, rows, crc, spans, codes)
        first += rows
    }
    database.run("DROP TABLE passages")
    database.run("ALTER TABLE compacted RENAME TO passages")
    database.execute("DELETE FROM tombstones")
    database.execute("DELETE FROM segments")
}
