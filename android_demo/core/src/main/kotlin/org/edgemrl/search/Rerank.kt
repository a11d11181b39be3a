package org.edgemrl.search

import kotlin.math.PI
import kotlin.math.exp
import kotlin.math.sqrt
import org.edgemrl.EdgeMrlException
import org.edgemrl.UsageException
import org.edgemrl.store.Store
import org.edgemrl.wire.MAX_IDS

/** The doubt up to which a search that asks a server only in doubt keeps the local order; see [doubt]. */
public const val DEFAULT_MARGIN: Double = 0.25

/** How long a search waits for a server, in seconds. */
private const val DEADLINE_S = 0.15

/** How far the scores of codes are from those of full vectors, as a standard deviation. */
private const val NOISE = 0.05

/** With fewer documents that both have scored, one scale cannot be told from the other. */
private const val LEAST_COMMON = 5

/** The series below has all digits up to here; the function is nothing beyond. */
private const val ERF_END = 6.0

/** What a search can ask for scores by full vectors: a [org.edgemrl.sync.SyncClient]. */
public fun interface Scorer {
    /**
     * Cosines of a query and the best passage of each document, for those that are known, within a time.
     *
     * @param ids at most 1,000 documents.
     * @param query the query's full vector, float32[D].
     * @param deadlineS seconds until there must be an answer.
     * @throws org.edgemrl.NetworkException if there is none; at the deadline at the latest.
     */
    public fun rerank(ids: List<String>, query: FloatArray, deadlineS: Double): Map<String, Double>
}

/**
 * Who orders the best 100 documents of a search by full vectors.
 *
 * @property scorer who is asked; null for the server that the store is enrolled with.
 * @property onlyInDoubt ask only if the local scores leave the order in doubt.
 * @property deadlineS how long that may take, in seconds. Without an answer by then the local order is returned.
 * @throws UsageException if the deadline is no time.
 */
public data class Rerank(
    public val scorer: Scorer? = null,
    public val onlyInDoubt: Boolean = false,
    public val deadlineS: Double = DEADLINE_S,
) {
    init {
        if (!(deadlineS >= 0 && deadlineS < Double.POSITIVE_INFINITY)) throw UsageException("deadlineS is $deadlineS, expected seconds")
    }
}

/** @throws UsageException if the options ask for another order. */
internal fun requireRerankable(options: SearchOptions) {
    if (options.mode != Mode.VECTOR) throw UsageException("rerank needs mode VECTOR, not ${options.mode}")
    if (options.diversity != 0.0) throw UsageException("rerank orders by score alone, and diversity does not: leave one of them out")
}

/** The options of the search whose hits are then ordered anew. */
internal fun shortlistOf(options: SearchOptions): SearchOptions = options.copy(k = maxOf(options.k, RESCORE_DEPTH))

/**
 * Has a shortlist ordered by somebody who has the full vectors; the local order if that fails.
 *
 * @param found the shortlist by local scores, from the best.
 * @param k the number of hits to return at most.
 * @param margin the doubt up to which the local order is kept and nobody is asked; null always asks.
 * @param ask gives scores of the documents that the other side has, by id.
 * @param own gives scores of the documents whose full vectors are here, by id.
 */
internal fun reorder(
    found: Results,
    k: Int,
    margin: Double?,
    ask: (List<String>) -> Map<String, Double>,
    own: (List<String>) -> Map<String, Double>,
): Results {
    val local = found.copy(hits = found.hits.take(k))
    if (found.hits.isEmpty()) return local
    if (margin != null && doubt(found.hits.map { it.score }) <= margin) return local.copy(reason = "the local order is not in doubt")
    val theirs = try {
        ask(found.hits.take(MAX_IDS).map { it.id })
    } catch (e: EdgeMrlException) {
        return local.copy(reason = e.message)
    }
    val scores = merge(found.hits.map { it.id to it.score }, theirs, own) ?: return local.copy(reason = "the server knows too few of these documents")
    // Equal scores stay in the local order.
    val scored = found.hits.map { it.copy(score = scores.getValue(it.id)) }.sortedByDescending { it.score }
    return found.copy(hits = scored.take(k), rankedBy = RankedBy.SERVER)
}

/**
 * One scale for all: the server's scores, and for documents that it lacks the nearest to them. Where this store has
 * the full vectors, the score is exact; else it is what the straight line through the documents that both have
 * scored says.
 *
 * @return scores by id; null where too few documents are on the server to compare.
 */
internal fun merge(
    local: List<Pair<String, Double>>,
    server: Map<String, Double>,
    own: (List<String>) -> Map<String, Double>,
): Map<String, Double>? {
    val scores = HashMap(server)
    fun missing() = local.map { it.first }.filter { it !in scores }
    missing().let { if (it.isNotEmpty()) scores += own(it) }
    val left = missing()
    if (left.isEmpty()) return scores
    val both = local.mapNotNull { (id, score) -> scores[id]?.let { score to it } }
    if (both.size < LEAST_COMMON) return null
    val x = both.sumOf { it.first } / both.size
    val y = both.sumOf { it.second } / both.size
    val spread = both.sumOf { (it.first - x) * (it.first - x) }
    val slope = if (spread > 0) both.sumOf { (it.first - x) * (it.second - y) } / spread else 1.0
    val byId = local.toMap()
    for (id in left) scores[id] = y + slope * (byId.getValue(id) - x)
    return scores
}

/**
 * How many documents are to be expected above the first one, once the full vectors decide. Each score is taken as the
 * full vector's with an error of a standard deviation, so that the j-th overtakes the first with the probability that
 * a normal variable of twice the variance exceeds their distance.
 *
 * @param scores local scores of the shortlist, from the best.
 * @return 0 for one document or none; the more, the less the local order says.
 */
internal fun doubt(scores: List<Double>): Double = scores.drop(1).sumOf { 0.5 * (1 - erf((scores[0] - it) / (2 * NOISE))) }

/** The error function: all terms of the series are positive (Abramowitz and Stegun, 7.1.6). */
internal fun erf(x: Double): Double {
    if (x < 0) return -erf(-x)
    if (x >= ERF_END) return 1.0
    var term = x
    var sum = x
    var n = 0
    while (term > sum * 1e-17) {
        n++
        term *= 2 * x * x / (2 * n + 1)
        sum += term
    }
    return 2 / sqrt(PI) * exp(-x * x) * sum
}

/** Cosines of a query, float32[D] of unit length, and the best passage of each document whose full vectors are here, by id. */
internal fun exactScores(store: Store, ids: List<String>, query: FloatArray): Map<String, Double> = store.reading { view ->
    val keys = ids.mapNotNull { id -> view.key(id)?.let { it to id } }.toMap()
    view.fulls(keys.keys).filter { it.value.isNotEmpty() }.map { (key, vectors) -> keys.getValue(key) to vectors.maxOf { cosine(it, query) } }.toMap()
}

/** The cosine of a vector and one of unit length. */
internal fun cosine(vector: FloatArray, unit: FloatArray): Double {
    var dot = 0.0
    var square = 0.0
    for (i in vector.indices) {
        dot += vector[i].toDouble() * unit[i]
        square += vector[i].toDouble() * vector[i]
    }
    return dot / maxOf(sqrt(square), 1e-12)
}
