package org.edgemrl.store

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import java.util.zip.CRC32
import org.edgemrl.Document
import org.edgemrl.Span
import org.edgemrl.UsageException
import org.edgemrl.clean
import org.edgemrl.codes.Packing
import org.edgemrl.shorten

/**
 * Which codes a store has. Codes of another embedding space or code are never stored.
 *
 * @property spaceId the embedding space.
 * @property codeId head, dimensions and scale.
 * @property dim dimensions of a code.
 * @property scale the value that the code 127 stands for.
 * @property bundle absolute path of the bundle that was last used.
 * @property fullDim dimensions of a full vector; null if the bundle gives none.
 * @property packing how an int8 code is packed when it is stored.
 */
public data class Binding(
    public val spaceId: String,
    public val codeId: String,
    public val dim: Int,
    public val scale: Double,
    public val bundle: String,
    public val fullDim: Int? = null,
    public val packing: Packing = Packing(),
) {
    /** Embedding space and code: codes can be compared if both are equal. */
    public val code: Pair<String, String> get() = spaceId to codeId

    override fun toString(): String = "space ${spaceId.take(12)}, code ${codeId.take(12)}, $dim dimensions"
}

/**
 * A document, ready to be stored.
 *
 * @property spans places of its n passages in its text.
 * @property codes n int8 codes of `dim` elements; the store packs them as it keeps them.
 * @property full n full vectors of `fullDim` elements, where the store keeps them.
 */
public class Entry(
    public val document: Document,
    public val spans: List<Span>,
    public val codes: List<ByteArray>,
    public val full: List<FloatArray>? = null,
)

/** How many documents and passages a store holds. */
public data class Counts(public val documents: Long, public val passages: Long)

/** SHA-256 of a text in UTF-8. A text with the same hash is not embedded again. */
public fun textHash(text: String): ByteArray =
    MessageDigest.getInstance("SHA-256").digest(clean(text).toByteArray(Charsets.UTF_8))

/** The columns of a document, in the order that [soundDocument] takes. */
internal const val DOCUMENT_COLUMNS = "key, id, metadata, source, hash, crc, text"

/** The columns of a document's passages, in the order that [soundPassages] takes. */
internal const val PASSAGE_COLUMNS = "first_row, document, rows, spans, codes, crc"

/** A row of a table: null, Long, Double, String, ByteArray, or [BadText] where text is no UTF-8. */
internal typealias Row = Array<Any?>

/** Text whose bytes are no UTF-8: damage made them so. */
internal class BadText(val bytes: ByteArray) {
    override fun toString(): String = String(bytes, Charsets.UTF_8)
}

/** CRC-32 of values, each as a byte for its type and its bytes (FORMAT.md, "Checksums"). */
internal fun checksum(vararg values: Any?): Long = checksum(values.asList())

internal fun checksum(values: List<Any?>): Long {
    val crc = CRC32()
    for (value in values) put(crc, value)
    return crc.value
}

private fun put(crc: CRC32, value: Any?) {
    when (value) {
        null -> crc.update(0)
        is Boolean -> put(crc, 1, if (value) 1L else 0L)
        is Int -> put(crc, 1, value.toLong())
        is Long -> put(crc, 1, value)
        is Double -> put(crc, 2, java.lang.Double.doubleToLongBits(value + 0.0))
        is String -> value.toByteArray(Charsets.UTF_8).let { put(crc, 3, it) }
        is BadText -> put(crc, 3, value.bytes)
        is ByteArray -> put(crc, 4, value)
        else -> throw IllegalArgumentException("${value.javaClass.name} has no checksum")
    }
}

private fun put(crc: CRC32, type: Int, bits: Long) {
    crc.update(type)
    crc.update(ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(bits).array())
}

private fun put(crc: CRC32, type: Int, bytes: ByteArray) {
    put(crc, type, bytes.size.toLong())
    crc.update(bytes)
}

/** The checksum of a row of `passages`: of its numbers, its spans and its codes. */
internal fun passageCheck(firstRow: Long, key: Long, rows: Long, spans: ByteArray, codes: ByteArray): Long {
    val crc = CRC32()
    crc.update(ByteBuffer.allocate(24).order(ByteOrder.LITTLE_ENDIAN).putLong(firstRow).putLong(key).putLong(rows).array())
    crc.update(spans)
    crc.update(codes)
    return crc.value
}

/** CRC-32 of bytes, started at a document's key, as `fulls` has it. */
internal fun keyedCheck(key: Long, bytes: ByteArray): Long {
    // Java's CRC-32 cannot be started at a value, so the start is folded into the first four bytes.
    val crc = CRC32()
    if (bytes.size >= 4) {
        val head = ByteArray(4) { (bytes[it].toInt() xor (key.toInt() ushr 8 * it)).toByte() }
        // A register of key is one of 0 whose first four bytes are changed by key: CRC is linear.
        crc.update(head)
        crc.update(bytes, 4, bytes.size - 4)
        return crc.value
    }
    var register = key.toInt().inv()
    for (byte in bytes) {
        register = register xor (byte.toInt() and 255)
        repeat(8) { register = (register ushr 1) xor (0xEDB88320L.toInt() and -(register and 1)) }
    }
    return register.inv().toLong() and 0xFFFFFFFFL
}

/** Whether a row of `documents` is what was written. */
internal fun soundDocument(row: Row): Boolean {
    val (key, id, metadata, source, hash) = row
    val text = row[6]
    if (key !is Long || id !is String || metadata !is String || text !is String || hash !is ByteArray) return false
    if (source != null && source !is String) return false
    return checksum(key, id, metadata, source, hash) == row[5] && textHash(text).contentEquals(hash)
}

/** Whether a row of `passages` is what was written. */
internal fun soundPassages(row: Row): Boolean {
    val (first, key, rows, spans, codes) = row
    if (first !is Long || key !is Long || rows !is Long || spans !is ByteArray || codes !is ByteArray) return false
    return passageCheck(first, key, rows, spans, codes) == row[5] && spans.size.toLong() == 8 * rows
}

internal fun encodeSpans(spans: List<Span>): ByteArray {
    val data = ByteBuffer.allocate(8 * spans.size).order(ByteOrder.LITTLE_ENDIAN)
    for (span in spans) data.putInt(span.start).putInt(span.end)
    return data.array()
}

internal fun decodeSpans(data: ByteArray): List<Span> {
    val numbers = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN).asIntBuffer()
    return List(data.size / 8) { Span(numbers[2 * it], numbers[2 * it + 1]) }
}

/** The codes of a document's passages, as a store keeps them. @throws UsageException if one has another size. */
internal fun encodeCodes(entry: Entry, binding: Binding): ByteArray {
    if (entry.codes.size != entry.spans.size || entry.codes.any { it.size != binding.dim }) {
        throw UsageException(
            "codes of document ${shorten(entry.document.id)} are int8${entry.codes.map { it.size }.take(3)} for " +
                "${entry.spans.size} passages, expected int8[${entry.spans.size}, ${binding.dim}]",
        )
    }
    val size = binding.packing.bytes(binding.dim)
    val data = ByteArray(size * entry.codes.size)
    entry.codes.forEachIndexed { i, code -> binding.packing.pack(code).copyInto(data, i * size) }
    return data
}
