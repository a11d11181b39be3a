package org.edgemrl.store

import java.util.BitSet
import org.edgemrl.DamagedException

/** Rows whose deletion is noted in one row of `tombstones`: 1 KiB, which a commit can rewrite. */
private const val BLOCK_ROWS = 8_192

private const val STATE_COLUMNS = "changes, next_key, next_row, filed, generation"

/** Bytes that name a code file. */
internal const val GENERATION_BYTES = 16

/**
 * The counters of a store that change with each write.
 *
 * @property changes grows with every transaction that changes codes.
 * @property nextKey the key of the next new document.
 * @property nextRow the number of the next passage's row.
 * @property filed rows below this number are in the code file.
 * @property generation 16 bytes that name the code file.
 */
internal class State(val changes: Long, val nextKey: Long, val nextRow: Long, val filed: Long, val generation: ByteArray) {
    fun with(
        changes: Long = this.changes,
        nextKey: Long = this.nextKey,
        nextRow: Long = this.nextRow,
        filed: Long = this.filed,
        generation: ByteArray = this.generation,
    ): State = State(changes, nextKey, nextRow, filed, generation)

    override fun equals(other: Any?): Boolean =
        other is State && changes == other.changes && nextKey == other.nextKey && nextRow == other.nextRow &&
            filed == other.filed && generation.contentEquals(other.generation)

    override fun hashCode(): Int = changes.hashCode()
}

/** Reads the store's state. @throws DamagedException if it is not what was written. */
internal fun readState(database: Database): State {
    val row = database.row("SELECT $STATE_COLUMNS, crc FROM state") ?: throw DamagedException("its state is missing")
    val (changes, key, next, filed, generation) = row
    if (checksum(row.asList().subList(0, 5)) != row[5]) throw DamagedException("its state cannot be trusted")
    return State(changes as Long, key as Long, next as Long, filed as Long, generation as ByteArray)
}

internal fun writeState(database: Database, state: State) {
    val values = arrayOf<Any?>(state.changes, state.nextKey, state.nextRow, state.filed, state.generation)
    database.execute(insertInto("state", "id, $STATE_COLUMNS, crc", replace = true), 1, *values, checksum(*values))
}

/** Marks rows as deleted: the first row of each range, and how many rows it has. */
internal fun addTombstones(database: Database, ranges: List<Pair<Long, Long>>) {
    val blocks = LinkedHashMap<Long, BitSet>()
    for ((first, count) in ranges) {
        for (row in first until first + count) {
            blocks.getOrPut(row / BLOCK_ROWS) { readBlock(database, row / BLOCK_ROWS) }.set((row % BLOCK_ROWS).toInt())
        }
    }
    for ((block, bits) in blocks) writeBlock(database, block, bits)
}

/** The deleted rows. Where damage has lost which, they are those that nobody has. */
internal fun readDead(database: Database): BitSet {
    val dead = BitSet()
    for ((block, bits, crc) in database.rows("SELECT block, bits, crc FROM tombstones ORDER BY block")) {
        val some = blockBits(database, block as Long, bits, crc)
        var row = some.nextSetBit(0)
        while (row >= 0) {
            dead.set((block * BLOCK_ROWS + row).toInt())
            row = some.nextSetBit(row + 1)
        }
    }
    return dead
}

/** Blocks of tombstones that are not what was written. */
internal fun damagedTombstones(database: Database): List<Any?> =
    database.rows("SELECT block, bits, crc FROM tombstones ORDER BY block").filterNot { soundBlock(it[0], it[1], it[2]) }.map { it[0] }

/** Makes all tombstones again: the rows below [nextRow] that no document has. */
internal fun rewriteTombstones(database: Database, nextRow: Long) {
    database.execute("DELETE FROM tombstones")
    for (block in 0 until (nextRow + BLOCK_ROWS - 1) / BLOCK_ROWS) {
        val bits = unused(database, block, nextRow)
        if (!bits.isEmpty) writeBlock(database, block, bits)
    }
}

private fun readBlock(database: Database, block: Long): BitSet {
    val found = database.row("SELECT bits, crc FROM tombstones WHERE block = ?", block) ?: return BitSet()
    return blockBits(database, block, found[0], found[1])
}

private fun blockBits(database: Database, block: Long, bits: Any?, crc: Any?): BitSet {
    if (soundBlock(block, bits, crc)) return BitSet.valueOf(bits as ByteArray)
    return unused(database, block, database.row("SELECT next_row FROM state")!![0] as Long)
}

private fun soundBlock(block: Any?, bits: Any?, crc: Any?): Boolean =
    bits is ByteArray && bits.size * 8 == BLOCK_ROWS && checksum(block, bits) == crc

/** Which rows of a block below [nextRow] no document has. */
private fun unused(database: Database, block: Long, nextRow: Long): BitSet {
    val start = block * BLOCK_ROWS
    val bits = BitSet()
    bits.set(0, (nextRow - start).coerceIn(0, BLOCK_ROWS.toLong()).toInt())
    val query = "SELECT first_row, rows FROM passages WHERE first_row < ? AND first_row + rows > ?"
    for ((first, rows) in database.rows(query, start + BLOCK_ROWS, start)) {
        val from = (first as Long - start).coerceIn(0, BLOCK_ROWS.toLong())
        val to = (first + rows as Long - start).coerceIn(from, BLOCK_ROWS.toLong())
        bits.clear(from.toInt(), to.toInt())
    }
    return bits
}

private fun writeBlock(database: Database, block: Long, bits: BitSet) {
    val data = bits.toByteArray().copyOf(BLOCK_ROWS / 8)
    database.execute(insertInto("tombstones", "block, crc, bits", replace = true), block, checksum(block, data), data)
}
