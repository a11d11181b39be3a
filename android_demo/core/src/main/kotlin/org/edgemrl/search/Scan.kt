package org.edgemrl.search

import java.util.BitSet
import org.edgemrl.ByCodePoint
import org.edgemrl.codes.Packing
import org.edgemrl.codes.Scorer
import org.edgemrl.codes.WORD_BITS
import org.edgemrl.store.CodeTable
import org.edgemrl.store.Gathered

/** Up to this many times the width, all rows are scored. */
private const val EXACT_BELOW = 4L

/** Rows whose codes are gathered at a time. */
private const val ROWS_AT_A_TIME = 8_192

/** Distances of 255 and 256 dimensions end as Python's bytes do: the first three words count at most 190. */
private const val MOST_BYTE = 254
private const val MOST_BYTE_WORDS = 4
private const val MOST_BEFORE_LAST = MOST_BYTE - WORD_BITS

/** Candidates are at most this many times the width, however many rows have the same distance. */
private const val TIES = 3L

/**
 * A document that was found by its codes.
 *
 * @property key the document's key.
 * @property row the row of its best passage; of equals, the first.
 * @property score cosine of that passage's code and the query's, in [-1, 1].
 */
internal class Match(val key: Long, val row: Int, val score: Double)

/**
 * Finds the [k] documents whose best passage is nearest to a query: 1-bit codes of all rows, then whole codes
 * of the best. Distances and dot products are whole numbers, so the result is the same on every machine.
 *
 * @param query int8, dim elements.
 * @param exact score every row by its whole code.
 * @param keys the documents to search; null for all.
 * @return from the best; equal scores in the order of the ids.
 */
internal fun nearest(query: ByteArray, table: CodeTable, k: Int, exact: Boolean, keys: Set<Long>?, funnel: Funnel): List<Match> {
    funnel.check(table.layout)
    val mask = table.selected(keys)
    val candidates = mask.cardinality()
    if (candidates == 0) return emptyList()
    if (exact || funnel.coarse.isEmpty() || candidates <= EXACT_BELOW * maxOf(funnel.shortlist, k)) {
        return best(rowsOf(mask, candidates), query, table, k)
    }
    return narrowed(query, table, mask, candidates, k, funnel)
}

private fun rowsOf(mask: BitSet, count: Int): IntArray {
    val rows = IntArray(count)
    var row = -1
    for (i in rows.indices) {
        row = mask.nextSetBit(row + 1)
        rows[i] = row
    }
    return rows
}

private fun narrowed(query: ByteArray, table: CodeTable, mask: BitSet, candidates: Int, k: Int, funnel: Funnel): List<Match> {
    val all = rowsOf(mask, candidates)
    val first = funnel.coarse[0]
    val distances = distances(query, table, all, first.dims)
    var widths = funnel.coarse.map { maxOf(it.width ?: 0, k).toLong() }
    while (true) {
        widths = widths.map { minOf(it, candidates.toLong()) }
        var rows = closest(all, distances, first.dims, widths[0])
        for ((stage, width) in funnel.coarse.drop(1).zip(widths.drop(1))) {
            rows = if (stage.bits == 1) {
                closest(rows, distancesOf(query, table, rows, stage.dims), stage.dims, width)
            } else {
                highest(rows, prefixScores(query, table, rows, stage.dims), width)
            }
        }
        val matches = best(rows, query, table, k)
        // Documents of many passages may fill the candidates: widen the stages until k are found.
        if (matches.size == k || widths.last() == candidates.toLong()) return matches
        widths = widths.map { 4 * it }
    }
}

/** Hamming distances of the 1-bit codes of rows over all of the table, in ascending order. */
private fun distances(query: ByteArray, table: CodeTable, rows: IntArray, dims: Int): IntArray {
    val words = table.layout.queryBits(query).copyOf((dims + WORD_BITS - 1) / WORD_BITS)
    val clipped = words.size == MOST_BYTE_WORDS && dims > MOST_BYTE
    val found = IntArray(rows.size)
    var at = 0
    for (block in table.blocks) {
        val bits = block.segment.bits
        val capacity = block.segment.capacity
        while (at < rows.size && rows[at] < block.first + block.rows) {
            val row = rows[at] - block.first
            var distance = 0
            for (word in words.indices) {
                if (clipped && word == MOST_BYTE_WORDS - 1) distance = minOf(distance, MOST_BEFORE_LAST)
                distance += java.lang.Long.bitCount(bits[word * capacity + row] xor words[word])
            }
            found[at++] = distance
        }
    }
    return found
}

/** Hamming distances of some rows in a later stage, where nothing is clipped. */
private fun distancesOf(query: ByteArray, table: CodeTable, rows: IntArray, dims: Int): IntArray {
    val words = table.layout.queryBits(query).copyOf((dims + WORD_BITS - 1) / WORD_BITS)
    val found = IntArray(rows.size)
    var at = 0
    for (block in table.blocks) {
        while (at < rows.size && rows[at] < block.first + block.rows) {
            val row = rows[at] - block.first
            found[at++] = words.indices.sumOf { java.lang.Long.bitCount(block.segment.bits[it * block.segment.capacity + row] xor words[it]) }
        }
    }
    return found
}

/** The rows within the least distance that at least [width] rows have, ascending. */
private fun closest(rows: IntArray, distances: IntArray, dims: Int, width: Long): IntArray {
    val counts = IntArray(dims + 1)
    for (distance in distances) counts[distance]++
    var low = 0
    var within = counts[0].toLong()
    while (low < dims && within < width) within += counts[++low]
    val most = TIES * width
    if (within <= most) return IntArray(within.toInt()).also { fill(it, rows) { i -> distances[i] <= low } }
    var level = most - (within - counts[low])
    return IntArray(most.toInt()).also { fill(it, rows) { i -> distances[i] < low || distances[i] == low && level-- > 0 } }
}

private inline fun fill(into: IntArray, rows: IntArray, chosen: (Int) -> Boolean) {
    var at = 0
    for (i in rows.indices) if (chosen(i)) into[at++] = rows[i]
}

/** The rows of the [width] highest scores, ascending; of equals, the first. */
private fun highest(rows: IntArray, scores: DoubleArray, width: Long): IntArray {
    if (width >= scores.size) return rows
    val least = scores.copyOf().also { it.sort() }[scores.size - width.toInt()]
    var level = width - scores.count { it > least }
    return IntArray(width.toInt()).also { fill(it, rows) { i -> scores[i] > least || scores[i] == least && level-- > 0 } }
}

/** Cosines over the first dimensions of the levels of rows. */
private fun prefixScores(query: ByteArray, table: CodeTable, rows: IntArray, dims: Int): DoubleArray {
    val scorer = Scorer(query.copyOf(dims), Packing())
    val scores = DoubleArray(rows.size)
    each(table, rows) { gathered, i, at -> scores[at] = scorer.cosine(table.levels(gathered, i)) }
    return scores
}

private inline fun each(table: CodeTable, rows: IntArray, action: (Gathered, Int, Int) -> Unit) {
    for (from in rows.indices step ROWS_AT_A_TIME) {
        val to = minOf(from + ROWS_AT_A_TIME, rows.size)
        val gathered = table.gather(rows, from, to)
        for (i in 0 until to - from) action(gathered, i, from + i)
    }
}

/** The [k] best documents among some rows; the rows of one document are adjacent. */
private fun best(rows: IntArray, query: ByteArray, table: CodeTable, k: Int): List<Match> {
    val scorer = Scorer(query, table.layout.packing)
    val planes = table.layout.stride == 0
    val found = ArrayList<Match>()
    var last: Match? = null
    each(table, rows) { gathered, i, at ->
        val score = if (planes) scorer.cosine(gathered.words, i, gathered.keys.size) else scorer.cosine(gathered.bytes, i * table.layout.stride)
        val key = gathered.keys[i].toLong() and 0xFFFFFFFFL
        val before = last
        if (before == null || before.key != key) {
            last = Match(key, rows[at], score).also { found.add(it) }
        } else if (score > before.score) {
            last = Match(key, rows[at], score).also { found[found.size - 1] = it }
        }
    }
    // Everything with the score of the k-th stays, so that ids decide between equals.
    val least = if (k < found.size) DoubleArray(found.size) { found[it].score }.also { it.sort() }[found.size - k] else Double.NEGATIVE_INFINITY
    val chosen = found.filter { it.score >= least }.sortedByDescending { it.score }
    if (chosen.zipWithNext().none { (a, b) -> a.score == b.score }) return chosen.take(k)
    val names = table.names(chosen.map { it.key })
    return chosen.sortedWith { a, b ->
        if (a.score != b.score) b.score.compareTo(a.score) else ByCodePoint.compare(names.getValue(a.key), names.getValue(b.key))
    }.take(k)
}
