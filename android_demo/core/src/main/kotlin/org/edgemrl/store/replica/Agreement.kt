package org.edgemrl.store.replica

import org.edgemrl.store.Database
import org.edgemrl.store.checksum
import org.edgemrl.store.insertInto
import org.edgemrl.wire.Sums
import org.edgemrl.wire.formatStamp
import org.edgemrl.wire.parseHex

private const val AGREEMENT_COLUMNS = "sums, pending, there, here, tries, next_ms, differs"

/**
 * How far a store agrees with its server.
 *
 * @property sums the sums of the live versions here.
 * @property pending groups whose documents are to be pulled again.
 * @property there the server's sum when the difference was explained by what waits here; 0 for none.
 * @property here the sum here, then.
 * @property tries how often in a row groups that differ were pulled again, in vain.
 * @property nextMs when they may be pulled again, in milliseconds since 1970.
 * @property differs how many groups differed after the last try.
 */
internal data class Agreement(
    val sums: Sums,
    val pending: Set<Int> = emptySet(),
    val there: Long = 0,
    val here: Long = 0,
    val tries: Long = 0,
    val nextMs: Long = 0,
    val differs: Long = 0,
)

/** How far this store agrees with its server; with sums made again if they cannot be trusted. */
internal fun readAgreement(database: Database): Agreement {
    val row = database.row("SELECT $AGREEMENT_COLUMNS, crc FROM agreement")?.asList()
    val sums = if (row == null || checksum(row.dropLast(1)) != row.last()) null else Sums.read(row[0] as ByteArray)
    if (row == null || sums == null) return Agreement(makeSums(database))
    val pending = (row[1] as ByteArray).mapTo(HashSet()) { it.toInt() and 255 }
    val (there, here) = listOf(row[2], row[3]).map { parseHex(it as String) }
    return Agreement(sums, pending, there, here, row[4] as Long, row[5] as Long, row[6] as Long)
}

internal fun writeAgreement(database: Database, now: Agreement) {
    val pending = now.pending.sorted().let { some -> ByteArray(some.size) { some[it].toByte() } }
    val values = listOf<Any?>(now.sums.bytes, pending, formatStamp(now.there), formatStamp(now.here), now.tries, now.nextMs, now.differs)
    database.execute(insertInto("agreement", "id, $AGREEMENT_COLUMNS, crc", replace = true), 1, *values.toTypedArray(), checksum(values))
}

/** The sums of the live versions, from those versions that are what was written. */
internal fun makeSums(database: Database): Sums {
    val sums = Sums()
    database.each("SELECT $VERSION_COLUMNS, crc FROM versions") { row ->
        if (row[3] == 0L && checksum(row.asList().dropLast(1)) == row[6]) sums.add(row[0] as String, row[1] as Long, row[2] as String)
    }
    return sums
}

/**
 * Counts other versions of documents in the sums of live ones (FORMAT.md, "Agreement"). Call it before they
 * are written.
 *
 * @param after rows of [VERSION_COLUMNS] from now on; a document without one has none.
 */
internal fun moveSums(database: Database, ids: Collection<String>, after: List<List<Any?>>) {
    val rows = database.select("$VERSION_COLUMNS, crc", "id", ids, "versions").map { it.asList() }
    if (rows.any { checksum(it.dropLast(1)) != it.last() }) {
        database.execute("DELETE FROM agreement") // nobody knows what was counted for it
        return
    }
    val before = rows.map { it.subList(0, 4) }.toSet()
    val later = after.map { it.subList(0, 4) }.toSet()
    val gone = (before - later).filter { it[3] == 0L }
    val come = (later - before).filter { it[3] == 0L }
    if (gone.isEmpty() && come.isEmpty()) return
    val now = readAgreement(database)
    for ((id, stamp, device) in gone) now.sums.remove(id as String, stamp as Long, device as String)
    for ((id, stamp, device) in come) now.sums.add(id as String, stamp as Long, device as String)
    writeAgreement(database, now)
}

/** Has the next sync pull groups again. */
internal fun addPending(database: Database, groups: Collection<Int>) {
    val now = readAgreement(database)
    if (!now.pending.containsAll(groups)) writeAgreement(database, now.copy(pending = now.pending + groups))
}
