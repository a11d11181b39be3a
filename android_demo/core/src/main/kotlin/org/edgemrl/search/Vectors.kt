package org.edgemrl.search

import kotlin.math.sqrt
import org.edgemrl.UsageException
import org.edgemrl.codes.CODE_MAX
import org.edgemrl.codes.length
import org.edgemrl.codes.unit
import org.edgemrl.idProblem
import org.edgemrl.shorten
import org.edgemrl.store.Binding
import org.edgemrl.store.Store
import org.edgemrl.store.View

/**
 * A full vector as a query.
 *
 * @param vector D elements, of any length.
 * @param code makes a code of a full vector of unit length.
 */
internal fun queryOf(vector: FloatArray, binding: Binding, code: (FloatArray) -> ByteArray): QueryVectors {
    if (vector.size != binding.fullDim) throw noVector("float[${vector.size}]", binding)
    var squares = 0.0
    for (value in vector) squares += value.toDouble() * value
    val length = sqrt(squares)
    // A comparison with NaN is false.
    if (!(length > 0 && length < Double.POSITIVE_INFINITY)) throw UsageException("the vector is zero or not finite, expected one with a direction")
    val full = FloatArray(vector.size) { (vector[it] / length).toFloat() }
    return QueryVectors(code(full), full)
}

/** A code as a query. */
internal fun queryOf(code: ByteArray, binding: Binding): QueryVectors {
    if (code.size != binding.dim) throw noVector("int8[${code.size}]", binding)
    return QueryVectors(code)
}

private fun noVector(given: String, binding: Binding): UsageException {
    val full = binding.fullDim?.let { "float[$it], a full vector, or " }.orEmpty()
    return UsageException("the vector is $given, expected ${full}int8[${binding.dim}], a code")
}

/** The documents that are most like one that is stored, which is left out; it counts by the mean of its passages. */
internal fun similar(store: Store, id: String, options: SearchOptions): Results {
    requireVectorMode(options)
    idProblem(id)?.let { throw UsageException("document id ${shorten(id)}: $it") }
    return store.reading { view ->
        val query = queryOfDocument(view, id)
        // It is nearest to itself, or hardly farther than its nearest ones.
        val hits = answer(view, "", query, options.copy(k = options.k + 1)).filter { it.id != id }.take(options.k)
        Results(hits, view.names(view.damaged))
    }
}

internal fun requireVectorMode(options: SearchOptions) {
    if (options.mode != Mode.VECTOR) throw UsageException("a search by vector has mode VECTOR, not ${options.mode}")
}

private fun queryOfDocument(view: View, id: String): QueryVectors {
    val key = view.key(id) ?: throw UsageException("document ${shorten(id)} is not in the store: name one that can be found by its meaning")
    val place = view.places(listOf(key), partial = true)[key]
    view.requireSound(key, id)
    if (place == null || place.spans.isEmpty()) {
        throw UsageException("document ${shorten(id)} has no passages: name one that can be found by its meaning")
    }
    val first = place.firstRow.toInt()
    val levels = view.codes.levels(IntArray(place.spans.size) { first + it })
    val fulls = view.fulls(listOf(key))[key]
    view.requireSound(key, id)
    return QueryVectors(middle(levels), fulls?.let { some -> unit(mean(some.map { unit(it) })) })
}

/** The code between several, of their mean length: codes around a centre are not free of scale. */
private fun middle(levels: List<ByteArray>): ByteArray {
    val lengths = levels.map { length(it) }
    var sum = 0f
    for (length in lengths) sum += length
    val length = sum / lengths.size
    val direction = unit(mean(levels.map { unit(it) }))
    return ByteArray(direction.size) {
        Math.rint((direction[it] * length).toDouble()).coerceIn(-CODE_MAX.toDouble(), CODE_MAX.toDouble()).toInt().toByte()
    }
}

private fun mean(vectors: List<FloatArray>): FloatArray = FloatArray(vectors[0].size) { i ->
    var sum = 0f
    for (vector in vectors) sum += vector[i]
    sum / vectors.size
}
