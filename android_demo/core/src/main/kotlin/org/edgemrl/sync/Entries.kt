package org.edgemrl.sync

import kotlin.math.abs
import kotlin.math.sqrt
import org.edgemrl.Document
import org.edgemrl.NetworkException
import org.edgemrl.Span
import org.edgemrl.UsageException
import org.edgemrl.bundle.brief
import org.edgemrl.codes.Packing
import org.edgemrl.shorten
import org.edgemrl.store.Entry
import org.edgemrl.store.decodeFull
import org.edgemrl.store.replica.Pulled
import org.edgemrl.store.replica.UNREADABLE
import org.edgemrl.store.replica.Withheld
import org.edgemrl.wire.Item
import org.edgemrl.wire.UnreadableItem
import org.edgemrl.wire.VectorType

/** float16 vectors of unit length: rounding moves the length of 4,096 values by less than 0.1 %. */
private const val LENGTH_TOLERANCE = 0.01

/**
 * Makes entries of items that arrived.
 *
 * @param full whether items have full vectors, of which codes are made here.
 */
internal class Entries(private val bundle: StoreBundle, private val packing: Packing, private val full: Boolean) {
    private val dim = bundle.manifest.dim

    /**
     * Documents that can be stored, and the others.
     *
     * @throws NetworkException if the vectors of the whole page have another type or number of dimensions.
     */
    fun of(items: List<Item>, unreadable: List<UnreadableItem>): Pair<List<Pulled>, List<Withheld>> {
        checkKind(items)
        val others = unreadable.mapTo(ArrayList()) { Withheld(it.id, it.version, it.deleted, UNREADABLE, it.problem) }
        val pairs = ArrayList<Pulled>()
        for (item in items) {
            try {
                pairs.add(Pulled(item, if (item.deleted) null else entry(item)))
            } catch (e: RuntimeException) { // whatever it is, it is this document's alone
                others.add(withheld(item, e))
            }
        }
        return pairs to others
    }

    private fun checkKind(items: List<Item>) {
        val expected = if (full) {
            mapOf(VectorType.FLOAT16 to bundle.manifest.fullDim)
        } else {
            mapOf(VectorType.INT8 to dim, VectorType.UINT8 to packing.bytes(dim))
        }
        val wrong = items.find { it.vectors.size > 0 && expected[it.vectors.type] != it.vectors.dim } ?: return
        val kinds = expected.entries.joinToString(" or ") { (type, width) -> "${type.label}[n, $width]" }
        throw NetworkException("the server sent ${wrong.vectors.type.label}[n, ${wrong.vectors.dim}] for document ${shorten(wrong.id)}, expected $kinds")
    }

    /** A document as the store keeps it. */
    private fun entry(item: Item): Entry {
        val fulls = if (full) fullsOf(item) else null
        val codes = List(item.vectors.size) { number ->
            if (fulls != null) bundle.codeOf(fulls[number]) else codeOf(item.vectors.type, item.vectors.row(number))
        }
        val spans = if (item.text == null) List(codes.size) { Span(0, 0) } else item.spans
        return Entry(Document(item.id, item.text ?: "", item.metadata ?: emptyMap()), spans, codes, fulls)
    }

    private fun codeOf(type: VectorType, row: ByteArray): ByteArray = if (type == VectorType.UINT8) packing.representative(row, dim) else row

    private fun fullsOf(item: Item): List<FloatArray> {
        val fulls = decodeFull(item.vectors.data, item.vectors.dim, "fp16")
        // A comparison with what is not finite is false.
        val good = fulls.all { vector -> abs(sqrt(vector.sumOf { it.toDouble() * it }) - 1) <= LENGTH_TOLERANCE }
        if (!good) throw UsageException("a vector that is not finite, or not of unit length")
        return fulls
    }
}

/** A document that cannot be stored, as it is remembered. */
internal fun withheld(item: Item, error: Exception): Withheld =
    Withheld(item.id, item.version, item.deleted, UNREADABLE, brief(error.message ?: error.javaClass.simpleName))
