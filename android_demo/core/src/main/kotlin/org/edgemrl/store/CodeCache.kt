package org.edgemrl.store

import java.io.File
import java.io.IOException
import java.security.SecureRandom
import java.util.BitSet
import org.edgemrl.DamagedException
import org.edgemrl.StoreException

/** Rows that wait in SQLite before they go to the file: filing them costs two syncs, once for so many rows. */
private const val STAGE_ROWS = 4_096

/**
 * Keeps a store's code file in sync with its database, and makes code tables from both.
 *
 * The database holds how many rows of which file count, and the checksums of its columns; a file that does
 * not agree is made again from the database (FORMAT.md, "Code file").
 */
internal class CodeCache(private val store: File, private val database: Database, binding: Binding, private val writable: Boolean) {
    val layout = Layout(binding.dim, binding.packing)
    private val kind = binding.packing.kind.label
    private val file = StoreFile.beside(store, "-codes")
    private var open: CodeFile? = null
    private val verified = HashMap<Int, Pair<Int, LongArray>>()
    private var state: State? = null
    private var table: CodeTable? = null
    private var dead = BitSet()
    private var found = false
    private var retryAt = 0L

    /** Why the file is not read or written, in words; null if it is. */
    var problem: String? = null
        private set

    /** Rows read so far that belong to no sound document, though they are not deleted. */
    var lost = BitSet()
        private set

    /** Keys of documents whose passages were read and are not what was stored. */
    val unsound = HashSet<Long>()

    /** Whether damage was found in the file. */
    val damaged: Boolean get() = found || (table?.repaired ?: 0) > 0

    /** The codes at a state that a transaction shows. @throws DamagedException if the database's rows cannot be trusted. */
    fun table(at: State): CodeTable {
        found = damaged
        table?.let { if (state == at) return it }
        table = null
        readDead()
        val blocks = ArrayList<CodeBlock>()
        val usable = at.filed > 0 && usable(at)
        for (first in 0 until at.filed.toInt() step SEGMENT_ROWS) {
            val count = minOf(SEGMENT_ROWS, at.filed.toInt() - first)
            val segment = if (usable) read(first / SEGMENT_ROWS, count) else null
            if (segment == null) found = true
            blocks.add(CodeBlock(first, count, segment ?: load(first, first + count), segment != null))
        }
        for (first in at.filed.toInt() until at.nextRow.toInt() step SEGMENT_ROWS) {
            val after = minOf(first + SEGMENT_ROWS.toLong(), at.nextRow).toInt()
            blocks.add(CodeBlock(first, after - first, load(first, after), false))
        }
        if (dead.length() > at.nextRow) throw DamagedException("rows are deleted that were never there")
        if (lost.clone().let { (it as BitSet).apply { andNot(dead) } }.cardinality() > 0) unsound.addAll(damagedKeys().filterIsInstance<Long>())
        state = at
        return CodeTable(layout, blocks, (dead.clone() as BitSet).apply { or(lost) }, this).also { table = it }
    }

    /** Makes the file again if it does not agree with the database. Call it outside a transaction. */
    fun heal() {
        found = damaged
        val now = readState(database)
        if (now.filed > 0 && !found && !usable(now)) found = true
        if (found || now.nextRow - now.filed >= 2 * STAGE_ROWS) roll()
    }

    /** Writes waiting rows to the file if there are enough of them. Call it outside a transaction. */
    fun keepUp(now: State) {
        if (now.nextRow - now.filed >= STAGE_ROWS) roll()
    }

    /** Writes all rows to the file, if that is possible now; the store works without it. */
    fun roll(): Boolean {
        if (!writable || readState(database).nextRow < retryAt) return false
        val failed: Exception = try {
            database.transaction("IMMEDIATE") { rollNow() }
            problem = null
            found = false
            return true
        } catch (e: IOException) {
            e
        } catch (e: CodeFileException) {
            e
        } catch (e: StoreException) {
            e
        }
        // A cache that cannot be written now: the rows stay where they are, and a put that was committed has succeeded.
        problem = "${file.name}: ${failed.message}"
        retryAt = readState(database).nextRow + STAGE_ROWS
        forget()
        return false
    }

    /** Removes the file, because rows got new numbers; who has it open can read it. */
    fun remove() {
        forget()
        retryAt = 0
        try {
            CodeFile.requireOurs(file)
            file.delete()
        } catch (e: CodeFileException) {
            problem = "${file.name}: ${e.message}"
        }
    }

    /** Reads which rows are deleted; [load] needs it. */
    fun readDead() {
        dead = readDead(database)
        lost = BitSet()
        unsound.clear()
    }

    /** Why the file is not in use, in words; null if it is in use or not needed yet. */
    fun inspect(now: State): String? = if (now.filed > 0 && usable(now)) null else if (now.filed > 0 || problem != null) problem else null

    /** Keys of documents whose passages are not what was stored. */
    fun damagedKeys(): List<Any?> {
        val keys = ArrayList<Any?>()
        database.each("SELECT $PASSAGE_COLUMNS FROM passages") { if (!sound(it)) keys.add(it[1]) }
        return keys
    }

    /** Compares every row of the file with the database; returns what is wrong. */
    fun verify(now: State): List<String> {
        val file = if (now.filed > 0 && usable(now)) open else null
        if (file == null) return emptyList() // it is behind: the next write makes it again
        dead = readDead(database)
        val problems = ArrayList<String>()
        for (first in 0 until now.filed.toInt() step SEGMENT_ROWS) {
            val count = minOf(SEGMENT_ROWS, now.filed.toInt() - first)
            try {
                val wrong = compare(file, first, count)
                if (wrong > 0) problems.add("${this.file.name}: $wrong rows from $first on are damaged")
            } catch (e: CodeFileException) {
                return listOf("${this.file.name}: ${e.message}")
            }
        }
        found = found || problems.isNotEmpty()
        return problems
    }

    private fun compare(file: CodeFile, first: Int, count: Int): Int {
        val filed = file.segment(first / SEGMENT_ROWS, count)
        val codes = ByteArray(count * layout.stride)
        if (layout.stride > 0) file.codes(first / SEGMENT_ROWS, IntArray(count) { it }, codes, 0)
        val wanted = load(first, first + count)
        return (0 until count).count { i ->
            val live = !dead[first + i] && !lost[first + i]
            val same = filed.keys[i] == wanted.keys[i] && filed.checks[i] == wanted.checks[i] &&
                (0 until layout.bitColumns).all { filed.bits[it * filed.capacity + i] == wanted.bits[it * wanted.capacity + i] } &&
                (0 until layout.stride).all { codes[i * layout.stride + it] == wanted.codes!![i * layout.stride + it] }
            live && !same
        }
    }

    /**
     * Reads rows from SQLite; deleted ones are zeros, and so are those that damage has lost.
     *
     * @throws DamagedException if two documents have the same row, or one has a deleted row.
     */
    fun load(first: Int, after: Int): Segment {
        val segment = Segment(layout, after - first)
        if (layout.stride > 0) segment.codes = ByteArray((after - first) * layout.stride)
        val covered = BitSet(after - first)
        val query = "SELECT $PASSAGE_COLUMNS FROM passages WHERE first_row < ? AND first_row >= " +
            "ifnull((SELECT max(first_row) FROM passages WHERE first_row <= ?), 0) ORDER BY first_row"
        database.each(query, listOf(after, first)) { row ->
            if (sound(row)) {
                val start = row[0] as Long
                for (i in 0 until (row[2] as Long).toInt()) {
                    val at = (start + i - first).toInt()
                    if (at !in 0 until after - first) continue
                    if (covered[at]) throw DamagedException("two documents have row ${first + at}")
                    if (dead[first + at]) throw DamagedException("row ${first + at} is deleted and is not")
                    covered.set(at)
                    segment.put(at, first.toLong() + at, (row[1] as Long).toInt(), row[4] as ByteArray, i * layout.codeBytes)
                }
            } else {
                (row[1] as? Long)?.let { unsound.add(it) }
            }
        }
        // As in Python, rows that nobody has are filed as codes of zeros.
        val zeros = ByteArray(layout.codeBytes)
        for (i in 0 until after - first) {
            if (covered[i]) continue
            segment.put(i, first.toLong() + i, 0, zeros, 0)
            if (!dead[first + i]) lost.set(first + i)
        }
        segment.check(first.toLong(), after - first)
        return segment
    }

    /** Ids of documents by key. @throws DamagedException if there is no document with one of the keys. */
    fun names(keys: Collection<Long>): Map<Long, String> {
        val found = database.select("key, id", "key", keys).associate { it[0] as Long to it[1].toString() }
        if (found.size < keys.toSet().size) throw DamagedException("there are codes without a document")
        return found
    }

    /** Copies codes out of the file. */
    fun fileCodes(number: Int, rows: IntArray, out: ByteArray, offset: Int) {
        (open ?: throw CodeFileException("it is closed")).codes(number, rows, out, offset)
    }

    fun close(): Unit = forget()

    private fun sound(row: Row): Boolean = soundPassages(row) && (row[4] as ByteArray).size.toLong() == row[2] as Long * layout.codeBytes

    /** A segment of the file whose columns have the right checksums, or null. */
    private fun read(number: Int, rows: Int): Segment? {
        val file = open ?: return null
        val segment = try {
            file.segment(number, rows)
        } catch (_: CodeFileException) {
            return null
        }
        var (done, sums) = verified[number] ?: (0 to LongArray(layout.columns))
        if (done > rows) { // an older state than the one seen before: start over
            done = 0
            sums = LongArray(layout.columns)
        }
        if (done < rows) {
            sums = segment.checksums(done, rows, sums)
            if (!sums.contentEquals(checksums(number))) {
                file.forget(number)
                return null
            }
            verified[number] = rows to sums
        }
        return segment
    }

    private fun checksums(number: Int): LongArray {
        val data = database.row("SELECT checksums FROM segments WHERE segment = ?", number)?.get(0) as? ByteArray
        if (data == null || data.size != 4 * layout.columns) return LongArray(0)
        val sums = little(data)
        return LongArray(layout.columns) { sums.getInt(4 * it).toLong() and 0xFFFFFFFFL }
    }

    private fun usable(now: State): Boolean {
        open?.let { if (it.generation.contentEquals(now.generation)) return true }
        forgetFile()
        return try {
            open = CodeFile.open(file, layout, now.generation)
            true
        } catch (e: CodeFileException) {
            problem = "${file.name}: ${e.message}"
            false
        }
    }

    private fun rollNow() {
        val bound = database.row("SELECT dim, stored FROM binding")!!
        if (bound[0] != layout.dim.toLong() || bound[1] != kind) return // another process has just changed the bundle
        val now = readState(database)
        readDead()
        val rows = (now.filed % SEGMENT_ROWS).toInt()
        val intact = !found && now.filed > 0 && usable(now) && (rows == 0 || read((now.filed / SEGMENT_ROWS).toInt(), rows) != null)
        if (!intact) return rebuild(now)
        val file = CodeFile.open(this.file, layout, now.generation, write = true)
        try {
            append(file, now.filed, now.nextRow)
            file.sync()
        } finally {
            file.close()
        }
        writeState(database, now.with(filed = now.nextRow))
    }

    private fun rebuild(now: State) {
        val generation = ByteArray(GENERATION_BYTES).also { SecureRandom().nextBytes(it) }
        val file = CodeFile.create(this.file, layout, generation)
        var done = false
        try {
            database.execute("DELETE FROM segments")
            append(file, 0, now.nextRow)
            file.install(this.file)
            done = true
        } finally {
            if (!done) file.discard()
        }
        forget()
        writeState(database, now.with(filed = now.nextRow, generation = generation))
    }

    private fun append(file: CodeFile, from: Long, after: Long) {
        var first = from
        while (first < after) {
            val number = (first / SEGMENT_ROWS).toInt()
            val stop = minOf(after, (number + 1L) * SEGMENT_ROWS)
            val sums = if (first % SEGMENT_ROWS > 0) checksums(number) else LongArray(layout.columns)
            val rows = load(first.toInt(), stop.toInt())
            if (lost.length() > first) throw DamagedException("some of its passages are not what was stored")
            val count = (stop - first).toInt()
            file.append(rows, count, first)
            val after = rows.checksums(0, count, sums)
            val data = java.nio.ByteBuffer.allocate(4 * layout.columns).order(java.nio.ByteOrder.LITTLE_ENDIAN)
            for (sum in after) data.putInt(sum.toInt())
            database.execute(insertInto("segments", "segment, checksums", replace = true), number, data.array())
            first = stop
        }
    }

    private fun forget() {
        table = null
        state = null
        forgetFile()
    }

    private fun forgetFile() {
        verified.clear()
        open?.close()
        open = null
    }
}
