package org.edgemrl.search

import org.edgemrl.codes.unit
import org.edgemrl.store.CodeTable

/** Candidates for each document that is to be returned, and the least number of them. */
private const val PER_ANSWER = 5
private const val LEAST_CANDIDATES = 50

/** How many of the best documents k different ones are chosen from. */
internal fun candidates(k: Int): Int = maxOf(PER_ANSWER * k, LEAST_CANDIDATES)

/**
 * Chooses documents one by one: near to the query, and far from those that were chosen before. The next one has
 * the largest `(1 - diversity) * score - diversity * nearest`, where `nearest` is the largest cosine of its best
 * passage's code and those of the chosen ones (maximal marginal relevance: Carbonell and Goldstein, SIGIR 1998).
 *
 * @param matches the best documents, from the best.
 * @param diversity from 0, the order of the scores, to 1, which looks at the differences alone.
 * @return at most [k] matches, in the order in which they were chosen.
 */
internal fun diversify(matches: List<Match>, table: CodeTable, k: Int, diversity: Double): List<Match> {
    val vectors = vectors(matches, table)
    val nearest = DoubleArray(matches.size) { Double.NEGATIVE_INFINITY }
    val left = matches.indices.toMutableList()
    val chosen = ArrayList<Match>()
    while (chosen.size < k && left.isNotEmpty()) {
        // Of equals the first, as it comes from the better one.
        val best = left.maxByOrNull { if (chosen.isEmpty()) matches[it].score else (1 - diversity) * matches[it].score - diversity * nearest[it] }!!
        chosen.add(matches[best])
        left.remove(best)
        for (i in left) nearest[i] = maxOf(nearest[i], dot(vectors[i], vectors[best]))
    }
    return chosen
}

/** The codes of the matches' passages, of length 1. */
private fun vectors(matches: List<Match>, table: CodeTable): List<FloatArray> {
    val rows = matches.map { it.row }.sorted().toIntArray()
    val levels = table.levels(rows)
    val byRow = rows.indices.associate { rows[it] to unit(levels[it]) }
    return matches.map { byRow.getValue(it.row) }
}

private fun dot(a: FloatArray, b: FloatArray): Double {
    var sum = 0.0
    for (i in a.indices) sum += a[i].toDouble() * b[i]
    return sum
}
