package org.edgemrl.store.replica

import org.edgemrl.Document
import org.edgemrl.VERSION
import org.edgemrl.clean
import org.edgemrl.store.Database
import org.edgemrl.store.Store
import org.edgemrl.store.checksum
import org.edgemrl.store.decodeMetadata
import org.edgemrl.store.insertInto
import org.edgemrl.wire.Version
import org.edgemrl.wire.Wall
import org.edgemrl.wire.groupOf

/** The reason of what arrived, and cannot be read or stored. */
internal const val UNREADABLE = "unreadable"

/** The reason of what a server has lost, and this device could not send for the one that wrote it. */
internal const val LOST = "lost"
internal const val WITHHELD_COLUMNS = "id, stamp, device, deleted, reason, detail, since_ms, program, metadata, text, again"

/** Characters of a detail that are kept. */
internal const val DETAIL_CHARS = 500

/**
 * A version of another device that is not here, and why.
 *
 * @property sinceMs since when, in milliseconds since 1970; 0 for now.
 * @property program the version of the program that could not store it; empty for this one.
 * @property document what was here of it, if it is kept.
 * @property again whether it is to be asked for again.
 */
internal data class Withheld(
    val id: String,
    val version: Version,
    val deleted: Boolean,
    val reason: String,
    val detail: String = "",
    val sinceMs: Long = 0,
    val program: String = "",
    val document: Document? = null,
    val again: Boolean = false,
)

/** Metadata, as it is stored, and text of a document. */
internal class Kept(val metadata: String, val text: String)

/** The first code points of a text. */
internal fun cut(text: String, most: Int): String =
    if (text.codePointCount(0, text.length) <= most) text else text.substring(0, text.offsetByCodePoints(0, most))

/** Writes what is withheld; it replaces what was withheld of the same documents. [kept] is what was here, by id. */
internal fun writeWithheld(database: Database, letters: List<Withheld>, kept: Map<String, Kept> = emptyMap()) {
    val rows = letters.map { one ->
        val here = kept[one.id]
        listOf<Any?>(
            one.id, one.version.stamp, one.version.device, if (one.deleted) 1L else 0L, one.reason, cut(clean(one.detail), DETAIL_CHARS),
            if (one.sinceMs != 0L) one.sinceMs else Wall.nowMs(), one.program.ifEmpty { VERSION }, here?.metadata, here?.text, if (one.again) 1L else 0L,
        )
    }
    database.many(insertInto("withheld", "$WITHHELD_COLUMNS, crc", replace = true), rows.map { it + checksum(it) })
}

/** What is withheld of some documents, or of all, ordered by id, without rows that are damaged. */
internal fun listWithheld(database: Database, ids: Collection<String>? = null): List<Withheld> =
    withheldRows(database, ids).filter { sound(it) }.map { row ->
        val text = row[9]
        val document = if (text is String) Document(row[0] as String, text, decodeMetadata(row[8] as String)) else null
        Withheld(
            row[0] as String, Version(row[1] as Long, row[2] as String), row[3] != 0L, row[4] as String, row[5] as String, row[6] as Long,
            row[7] as String, document, row[10] != 0L,
        )
    }

/** Ids of rows that are not what was written, as they are now. */
internal fun damagedWithheld(database: Database): List<String> = withheldRows(database, null).filterNot { sound(it) }.map { clean(it[0].toString()) }

private fun sound(row: Array<Any?>): Boolean = checksum(row.asList().dropLast(1)) == row.last()

private fun withheldRows(database: Database, ids: Collection<String>?): List<Array<Any?>> =
    if (ids == null) {
        database.rows("SELECT $WITHHELD_COLUMNS, crc FROM withheld ORDER BY id")
    } else {
        database.select("$WITHHELD_COLUMNS, crc", "id", ids, "withheld").sortedWith { a, b -> org.edgemrl.ByCodePoint.compare(a[0].toString(), b[0].toString()) }
    }

/** Forgets what is not withheld any more: versions that are here now, or newer ones, by id. */
internal fun forgetWithheld(database: Database, versions: Map<String, Version>) {
    database.many(
        "DELETE FROM withheld WHERE id = ? AND (stamp, device) <= (?, ?)",
        versions.map { (id, version) -> listOf(id, version.stamp, version.device) },
    )
}

/** Forgets what is withheld of some documents, or of all; returns how many versions. */
internal fun dropWithheld(database: Database, ids: Collection<String>?): Int =
    if (ids == null) database.execute("DELETE FROM withheld") else ids.sumOf { database.execute("DELETE FROM withheld WHERE id = ?", it) }

/** Has the next sync ask for versions that are withheld. */
internal fun askAgain(database: Database, ids: Collection<String>): Unit = mark(database, listWithheld(database, ids), again = true)

/**
 * Has the groups pulled again of what could not be stored here, where there is hope: a person asked for it,
 * or another version of the program failed, and this one may not.
 */
internal fun askForUnreadable(store: Store) {
    val query = "SELECT id FROM withheld WHERE reason = ? AND (again OR program <> ?)"
    val names = store.lending { database, _ -> database.rows(query, UNREADABLE, VERSION).map { it[0] as String } }
    if (names.isEmpty()) return
    store.changing { database ->
        mark(database, listWithheld(database, names).map { it.copy(program = VERSION) }, again = false)
        addPending(database, names.map { groupOf(it) })
    }
}

private fun mark(database: Database, letters: List<Withheld>, again: Boolean) {
    for (one in letters) {
        val (metadata, text) = database.row("SELECT metadata, text FROM withheld WHERE id = ?", one.id)!!
        val kept = if (text is String) mapOf(one.id to Kept(metadata as String, text)) else emptyMap()
        writeWithheld(database, listOf(one.copy(again = again)), kept)
    }
}
