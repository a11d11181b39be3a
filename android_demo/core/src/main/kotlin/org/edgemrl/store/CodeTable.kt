package org.edgemrl.store

import java.util.BitSet

/**
 * A block of consecutive rows. Those from the file are a segment's.
 *
 * @property first the first row's number.
 * @property rows how many.
 * @property filed whether the codes come from the file; then each is compared with its check when it is used.
 */
internal class CodeBlock(val first: Int, val rows: Int, var segment: Segment, var filed: Boolean)

/**
 * Codes of some rows, side by side.
 *
 * @property bytes their codes, [Layout.stride] bytes each; empty for planes.
 * @property words for planes: word `i` of row `r` lies at `i * keys.size + r`.
 * @property keys their documents.
 */
internal class Gathered(val bytes: ByteArray, val words: LongArray, val keys: IntArray)

/**
 * All codes of a store in one state, addressed by the rows' numbers.
 *
 * @property dead rows that are deleted, or lost to damage.
 */
internal class CodeTable(val layout: Layout, val blocks: List<CodeBlock>, val dead: BitSet, private val cache: CodeCache) {
    /** Row numbers in use, those of deleted rows included. */
    val rows: Int = blocks.sumOf { it.rows }

    /** Rows that are not deleted. */
    val live: Int get() = rows - dead.cardinality()

    /** How many blocks were taken from the database, because those in the file are damaged. */
    var repaired = 0
        private set

    /** Ids of documents by key. */
    fun names(keys: Collection<Long>): Map<Long, String> = cache.names(keys)

    /** The rows that are not deleted; of some documents, where [keys] are given. */
    fun selected(keys: Set<Long>?): BitSet {
        val mask = BitSet(rows)
        if (keys == null) {
            mask.set(0, rows)
        } else {
            for (block in blocks) for (i in 0 until block.rows) if (block.segment.keys[i].toLong() and 0xFFFFFFFFL in keys) mask.set(block.first + i)
        }
        mask.andNot(dead)
        return mask
    }

    /** Codes and keys of rows, given in ascending order, compared with their checks. */
    fun gather(rows: IntArray, from: Int = 0, to: Int = rows.size): Gathered {
        val count = to - from
        val found = Gathered(ByteArray(count * layout.stride), if (layout.stride == 0) LongArray(count * layout.bitColumns) else LongArray(0), IntArray(count))
        var at = from
        for (block in blocks) {
            val start = at
            while (at < to && rows[at] < block.first + block.rows) at++
            if (at > start) gatherBlock(block, IntArray(at - start) { rows[start + it] - block.first }, found, start - from)
        }
        return found
    }

    /** The levels that the codes of rows stand for, int8[dim] each (`Packing.unpack`); rows in ascending order. */
    fun levels(rows: IntArray): List<ByteArray> {
        val gathered = gather(rows)
        return rows.indices.map { levels(gathered, it) }
    }

    /** The levels of one of the gathered codes. */
    fun levels(gathered: Gathered, row: Int): ByteArray {
        if (layout.stride > 0) return layout.packing.unpack(gathered.bytes, layout.dim, row * layout.stride)
        return layout.packing.unpack(planeBytes(gathered, row), layout.dim)
    }

    /** The bytes of a code that is kept as planes, as the database holds them. */
    private fun planeBytes(gathered: Gathered, row: Int): ByteArray {
        val size = (layout.dim + 7) / 8
        return ByteArray(layout.planes * size) {
            val word = gathered.words[(it / size * layout.words + it % size / 8) * gathered.keys.size + row]
            (word ushr 8 * (it % size % 8)).toByte()
        }
    }

    private fun gatherBlock(block: CodeBlock, local: IntArray, found: Gathered, offset: Int) {
        val sound = try {
            copy(block, local, found, offset)
            !block.filed || agrees(block, local, found, offset)
        } catch (_: CodeFileException) { // cut short, or its medium fails
            false
        }
        if (sound) return
        block.segment = cache.load(block.first, block.first + block.rows)
        block.filed = false
        repaired++
        gatherBlock(block, local, found, offset)
    }

    private fun copy(block: CodeBlock, local: IntArray, found: Gathered, offset: Int) {
        val segment = block.segment
        local.forEachIndexed { i, row -> found.keys[offset + i] = segment.keys[row] }
        if (layout.stride == 0) {
            for (word in 0 until layout.bitColumns) {
                val column = word * segment.capacity
                local.forEachIndexed { i, row -> found.words[word * found.keys.size + offset + i] = segment.bits[column + row] }
            }
            return
        }
        val codes = segment.codes
        if (codes == null) {
            cache.fileCodes(block.first / SEGMENT_ROWS, local, found.bytes, offset * layout.stride)
        } else {
            local.forEachIndexed { i, row -> codes.copyInto(found.bytes, (offset + i) * layout.stride, row * layout.stride, (row + 1) * layout.stride) }
        }
    }

    private fun agrees(block: CodeBlock, local: IntArray, found: Gathered, offset: Int): Boolean {
        val bytes = little(found.bytes)
        for (i in local.indices) {
            val row = block.first.toLong() + local[i]
            val key = found.keys[offset + i]
            val check = if (layout.stride > 0) {
                layout.check(bytes, (offset + i) * layout.stride, key, row)
            } else {
                layout.check(found.words, offset + i, found.keys.size, key, row)
            }
            if (check != block.segment.checks[local[i]]) return false
        }
        return true
    }
}
