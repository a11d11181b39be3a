package org.edgemrl.search

import org.edgemrl.BindingException
import org.edgemrl.DamagedException
import org.edgemrl.Document
import org.edgemrl.Span
import org.edgemrl.UsageException
import org.edgemrl.store.Place
import org.edgemrl.store.Store
import org.edgemrl.store.View
import org.edgemrl.store.words

/** The setting that holds the stages of a store's searches, as text. */
private const val SEARCH_STAGES = "funnel"

/** Documents of each ranking that a hybrid search fuses; a lower rank adds less than 1/160. */
private const val HYBRID_DEPTH = 100

/** Documents that are rescored by full vectors. */
internal const val RESCORE_DEPTH = 100

/** The constant of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009). */
private const val RRF_K = 60

/** What a search ranks by: meaning, words (BM25), or both. */
public enum class Mode { VECTOR, KEYWORD, HYBRID }

/**
 * How to search.
 *
 * @property k the number of documents to return at most.
 * @property filter which documents are searched, by their metadata: `{"lang": "en", "year": {"$gte": 2020}}`;
 *   null for all.
 * @property mode what is ranked by.
 * @property exact score every code; by default only the rows that the 1-bit stage passes on.
 * @property width rows that the 1-bit stage passes on; null takes the store's own stages, or 5,000.
 * @property stages which codes are compared, and for how many rows; null takes the store's own.
 * @property diversity from 0, the best documents, to 1: how much more a document counts that differs from those
 *   above it (maximal marginal relevance). Needs mode [Mode.VECTOR].
 * @throws UsageException if a value is out of its range, or [width] and [stages] are both given.
 */
public data class SearchOptions(
    public val k: Int = 10,
    public val filter: Map<String, Any?>? = null,
    public val mode: Mode = Mode.VECTOR,
    public val exact: Boolean = false,
    public val width: Int? = null,
    public val stages: Funnel? = null,
    public val diversity: Double = 0.0,
) {
    init {
        if (k < 1) throw UsageException("k is $k, expected at least 1")
        if (width != null && width < 1) throw UsageException("width is $width, expected at least 1")
        if (width != null && stages != null) throw UsageException("width and stages are both given: stages have widths of their own")
        if (!(diversity >= 0 && diversity <= 1)) throw UsageException("diversity is $diversity, expected a number from 0 to 1")
        if (diversity != 0.0 && mode != Mode.VECTOR) throw UsageException("diversity needs mode VECTOR, not $mode")
    }
}

/**
 * A query's vectors.
 *
 * @property coarse int8, dim elements.
 * @property full float32, D elements of unit length, if the bundle gives full vectors.
 */
public class QueryVectors(public val coarse: ByteArray, public val full: FloatArray? = null)

/**
 * A document found by a search, with the passage that answers best.
 *
 * @property text the passage.
 * @property start the passage's start in the document's text, in code points.
 * @property end its end.
 * @property score in mode [Mode.VECTOR] the cosine of query and passage; in [Mode.KEYWORD] BM25; in
 *   [Mode.HYBRID] the sum of 1 / (60 + rank) over both rankings.
 */
public data class Hit(
    public val id: String,
    public val text: String,
    public val start: Int,
    public val end: Int,
    public val score: Double,
    public val metadata: Map<String, Any?>,
)

/** Who ordered the hits of a search: this store's codes, or a server's full vectors. */
public enum class RankedBy { LOCAL, SERVER }

/**
 * The hits of one search, from the best.
 *
 * @property hits equal scores come in the order of their ids.
 * @property damaged ids of documents that were left out because they are not what was stored.
 * @property rankedBy who ordered them.
 * @property reason why the order is the local one, if a server could have been asked: a sentence for people. Null if
 *   nobody was to be asked, or if the server ordered the hits.
 */
public data class Results(
    public val hits: List<Hit>,
    public val damaged: List<String> = emptyList(),
    public val rankedBy: RankedBy = RankedBy.LOCAL,
    public val reason: String? = null,
)

private class Ranked(val key: Long, val row: Int?, val score: Double)

/**
 * Answers a query from a store, given its vectors.
 *
 * @param query the words; a keyword search needs them alone.
 * @param vectors the query's vectors; null only in mode [Mode.KEYWORD].
 * @throws UsageException if the filter cannot be understood, or the store cannot be searched by the stages.
 * @throws DamagedException if what all documents share is not what was stored.
 */
public fun search(store: Store, query: String, vectors: QueryVectors?, options: SearchOptions = SearchOptions()): Results =
    search(store, query, vectors, options, null)

/** The same; with [code], the embedding space and code of the vectors, they are compared with the store's. */
internal fun search(store: Store, query: String, vectors: QueryVectors?, options: SearchOptions, code: Pair<String, String>?): Results {
    if (vectors == null && options.mode != Mode.KEYWORD) throw UsageException("a search by meaning needs the query's vectors")
    if (vectors != null && vectors.coarse.size != store.binding.dim) {
        throw UsageException("the query's code has ${vectors.coarse.size} dimensions, the store's codes have ${store.binding.dim}")
    }
    return store.reading { view ->
        if (code != null && code != store.binding.code) {
            throw BindingException("${store.path} has been changed to another bundle, ${store.binding.bundle}: open the index again with it")
        }
        Results(answer(view, query, vectors, options), view.names(view.damaged))
    }
}

/** The stages that a store's searches were tuned to; null for the default ones. */
public fun tuned(store: Store): Funnel? = store.reading { tunedFunnel(it) }

/** Keeps stages for the searches of a store, until its bundle is changed; null for the default ones. */
public fun tune(store: Store, stages: Funnel?) {
    if (stages != null) {
        store.reading { view ->
            stages.check(view.layout)
            if (stages.rescored != null && !view.keepsFull) throw UsageException("the funnel $stages ends with full vectors: none are kept")
        }
    }
    store.setSetting(SEARCH_STAGES, stages?.toString())
}

private fun tunedFunnel(view: View): Funnel? = view.setting(SEARCH_STAGES)?.let { Funnel.of(it) }

/** The hits of one search in a state of a store. */
internal fun answer(view: View, query: String, vectors: QueryVectors?, options: SearchOptions): List<Hit> {
    while (true) {
        // Those that were found to be damaged are left out, and others take their places.
        val before = view.damaged.toSet()
        val ranking = rank(view, query, vectors, options.copy(k = options.k + before.size)).filter { it.key !in before }.take(options.k)
        val documents = view.documents(ranking.map { it.key })
        options.filter?.let { where -> for (document in documents.values) view.requireMatch(where, document.metadata) }
        val (byRow, byWord) = ranking.partition { it.row != null }
        val places = view.places(byRow.map { it.key }) + view.places(byWord.map { it.key }, partial = true)
        if (view.damaged != before) continue
        return ranking.map { hit(it, query, documents.getValue(it.key), places[it.key]) }
    }
}

/** A document with its best passage; with its whole text if it has no passages. */
private fun hit(found: Ranked, query: String, document: Document, place: Place?): Hit {
    val text = document.text
    if (place == null) return Hit(document.id, text, 0, text.codePointCount(0, text.length), found.score, document.metadata)
    val position = if (found.row == null) bestPassage(text, place.spans, query) else (found.row - place.firstRow).toInt()
    val span = place.spans.getOrNull(position) ?: throw DamagedException("the passages of document '${document.id}' are not where they were")
    return Hit(document.id, cut(text, span), span.start, span.end, found.score, document.metadata)
}

/** The part of a text that a span in code points names; what lies beyond the text is left out. */
private fun cut(text: String, span: Span): String {
    val size = text.codePointCount(0, text.length)
    val start = text.offsetByCodePoints(0, minOf(span.start, size))
    return text.substring(start, text.offsetByCodePoints(start, (minOf(span.end, size) - minOf(span.start, size)).coerceAtLeast(0)))
}

/** The index of the passage that has most of the query's words; of equals, the first. */
private fun bestPassage(text: String, spans: List<Span>, query: String): Int {
    val wanted = words(query)
    val found = spans.map { span -> words(cut(text, span)).count { it in wanted } }
    return found.indexOf(found.maxOrNull() ?: 0)
}

private fun rank(view: View, query: String, vectors: QueryVectors?, options: SearchOptions): List<Ranked> {
    if (options.mode == Mode.KEYWORD || vectors == null) return byKeyword(view, query, options.k, options)
    if (options.mode == Mode.VECTOR) return byVector(view, vectors, options.k, options)
    val depth = maxOf(options.k, HYBRID_DEPTH)
    val rankings = listOf(byVector(view, vectors, depth, options), byKeyword(view, query, depth, options))
    val rows = rankings[0].associate { it.key to it.row }
    val scores = LinkedHashMap<Long, Double>()
    for (ranking in rankings) ranking.forEachIndexed { i, one -> scores[one.key] = (scores[one.key] ?: 0.0) + 1.0 / (RRF_K + i + 1) }
    return scores.entries.sortedWith(compareBy({ -it.value }, { it.key })).take(options.k).map { Ranked(it.key, rows[it.key], it.value) }
}

private fun byKeyword(view: View, query: String, k: Int, options: SearchOptions): List<Ranked> =
    view.keywordMatches(query, k, options.filter).map { (key, score) -> Ranked(key, null, score) }

private fun byVector(view: View, vectors: QueryVectors, wanted: Int, options: SearchOptions): List<Ranked> {
    val k = if (options.diversity > 0) candidates(wanted) else wanted
    val funnel = funnelOf(view, options)
    val rescore = view.keepsFull && vectors.full != null
    val deep = if (rescore) maxOf(k, funnel.rescored ?: RESCORE_DEPTH) else k
    var matches = nearestSelected(view, vectors, deep, options, funnel)
    if (rescore) matches = rescored(view, vectors, matches)
    if (options.diversity > 0) matches = diversify(matches.take(k), view.codes, wanted, options.diversity)
    return matches.take(wanted).map { Ranked(it.key, it.row, it.score) }
}

/**
 * The k nearest documents that the filter selects: of the nearest, if enough of these match it. Only where few do,
 * all that match are looked up first, and searched alone.
 */
private fun nearestSelected(view: View, vectors: QueryVectors, k: Int, options: SearchOptions, funnel: Funnel): List<Match> {
    fun search(k: Int, keys: Set<Long>?): List<Match> = nearest(vectors.coarse, view.codes, k, options.exact, keys, funnel)
    val where = options.filter ?: return search(k, null)
    val depth = view.judgedDepth(k)
    val near = search(depth, null)
    val found = view.firstMatching(where, near.map { it.key }, k)
    if (found == null || (found.size < k && near.size == depth)) return search(k, view.select(where))
    val chosen = found.toSet()
    return near.filter { it.key in chosen }
}

/** The stages that were asked for; else those that the store is tuned to; else the default ones. */
private fun funnelOf(view: View, options: SearchOptions): Funnel {
    val funnel = options.stages
    if (funnel?.rescored != null && !view.keepsFull) {
        throw UsageException("the funnel $funnel ends with full vectors, but the store keeps none")
    }
    if (funnel != null) return funnel
    return (if (options.width == null) tunedFunnel(view) else null) ?: Funnel.default(view.layout, options.width ?: DEFAULT_WIDTH, view.codes.rows)
}

/** The matches by the cosine of their full vectors; unchanged if one of them has none. */
private fun rescored(view: View, vectors: QueryVectors, found: List<Match>): List<Match> {
    val keys = found.map { it.key }
    val fulls = view.fulls(keys)
    val places = view.places(keys)
    val matches = found.filter { it.key !in view.damaged }
    val query = vectors.full
    if (query == null || !matches.all { it.key in fulls }) return matches
    return matches.map { match ->
        val vector = fulls.getValue(match.key)[(match.row - places.getValue(match.key).firstRow).toInt()]
        Match(match.key, match.row, cosine(vector, query))
    }.sortedByDescending { it.score }
}
