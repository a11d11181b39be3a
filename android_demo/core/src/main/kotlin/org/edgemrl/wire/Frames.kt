package org.edgemrl.wire

import java.io.ByteArrayOutputStream
import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException
import org.edgemrl.Span
import org.edgemrl.WireException
import org.edgemrl.bundle.brief
import org.edgemrl.bundle.hasLoneSurrogate
import org.edgemrl.json.Json
import org.edgemrl.json.JsonException
import org.edgemrl.shorten

/** The value of the header Edge-MRL-Protocol. */
internal const val PROTOCOL = "1"
internal const val CONTENT_TYPE = "application/vnd.edge-mrl"

/** Limits of one push. */
internal const val MAX_ITEMS = 512
internal const val MAX_BODY_BYTES = 1 shl 20

/** Most ids in one rerank request. */
internal const val MAX_IDS = 1_000
internal const val MAX_PASSAGES = 65_535
private const val LENGTH_BYTES = 4

/** The type of a frame's vectors, by its name on the wire. */
internal enum class VectorType(val label: String, val bytes: Int) {
    FLOAT16("float16", 2), FLOAT32("float32", 4), INT8("int8", 1), UINT8("uint8", 1)
}

/** Vectors as they travel: [data] has rows of [dim] little-endian values; float16, float32 or int8 [n, dim], or uint8[n, bytes]. */
internal class Vectors(val type: VectorType, val dim: Int, val data: ByteArray) {
    private val rowBytes = type.bytes * dim

    /** n. */
    val size: Int get() = data.size / rowBytes

    fun rows(first: Int, count: Int): Vectors = Vectors(type, dim, data.copyOfRange(first * rowBytes, (first + count) * rowBytes))

    fun row(number: Int): ByteArray = data.copyOfRange(number * rowBytes, (number + 1) * rowBytes)

    fun none(): Vectors = Vectors(type, dim, ByteArray(0))

    companion object {
        /** No vectors of full ones' type. */
        fun noFull(dim: Int): Vectors = Vectors(VectorType.FLOAT16, dim, ByteArray(0))
    }
}

/** A frame: its JSON object without the keys that describe the vectors, and the vectors. */
internal class Message(val header: Map<String, Any?>, val vectors: Vectors)

/**
 * A document in a frame.
 *
 * @property stamp the stamp of its version.
 * @property vectors one for each passage; none if it was deleted or has no passages.
 * @property device the device that wrote the version; null in a push, where the token says it.
 * @property text its text, or null if text is not sent.
 * @property metadata its metadata, or null if metadata is not sent.
 * @property spans start and end of each passage in the text, in code points; empty without text.
 * @property problem why its text or metadata cannot be stored; it then has neither. Null if all is well.
 */
internal class Item(
    val id: String,
    val stamp: Long,
    val vectors: Vectors,
    val deleted: Boolean = false,
    val device: String? = null,
    val text: String? = null,
    val metadata: Map<String, Any?>? = null,
    val spans: List<Span> = emptyList(),
    val problem: String? = null,
) {
    val version: Version get() = Version(stamp, device ?: "")
}

/** A document in a frame that cannot be read, while the others of the frame can. */
internal class UnreadableItem(val id: String, val stamp: Long, val device: String?, val deleted: Boolean, val problem: String) {
    val version: Version get() = Version(stamp, device ?: "")
}

/** The documents of a frame that can be read, and the others. */
internal class ReadableItems(val items: List<Item>, val unreadable: List<UnreadableItem>)

/** Writes a frame. [header] has JSON values by name, without `dtype` and `dim`. */
internal fun encodeMessage(header: Map<String, Any?>, vectors: Vectors): ByteArray {
    val text = messageJson(header + mapOf("dtype" to vectors.type.label, "dim" to vectors.dim))
    if (hasLoneSurrogate(text)) throw WireException("a message with a lone surrogate: expected Unicode text")
    val data = text.toByteArray(Charsets.UTF_8)
    val out = ByteArrayOutputStream(LENGTH_BYTES + data.size + vectors.data.size)
    for (i in 0 until LENGTH_BYTES) out.write(data.size ushr (8 * i))
    out.write(data, 0, data.size)
    out.write(vectors.data, 0, vectors.data.size)
    return out.toByteArray()
}

/** Reads a frame. @throws WireException if the bytes are not one. */
internal fun decodeMessage(data: ByteArray): Message {
    if (data.size < LENGTH_BYTES) throw WireException("a frame of ${data.size} bytes: expected at least $LENGTH_BYTES")
    var size = 0L
    for (i in 0 until LENGTH_BYTES) size = size or (data[i].toLong() and 255 shl (8 * i))
    val start = LENGTH_BYTES + size
    if (start > data.size) throw WireException("a frame's header has $size bytes, only ${data.size - LENGTH_BYTES} are there")
    val header = LinkedHashMap(parse(data, start.toInt()))
    val kind = header.remove("dtype")
    val dim = header.remove("dim")
    val type = VectorType.values().find { it.label == kind }
        ?: throw WireException("dtype ${shorten(kind)}: expected one of ${VectorType.values().joinToString { it.label }}")
    if (dim !is Long || dim !in 1..MAX_PASSAGES) throw WireException("dim ${shorten(dim)}: expected a number from 1 to $MAX_PASSAGES")
    val left = data.size - start.toInt()
    val step = type.bytes * dim.toInt()
    if (left % step != 0) throw WireException("$left bytes of vectors: not a multiple of $step")
    return Message(header, Vectors(type, dim.toInt(), data.copyOfRange(start.toInt(), data.size)))
}

/** Writes a frame of documents; [like] has the type and dimensions of vectors, for frames without any. */
internal fun encodeItems(header: Map<String, Any?>, items: List<Item>, like: Vectors): ByteArray {
    val some = items.map { it.vectors }.filter { it.size > 0 }
    val all = ByteArrayOutputStream()
    for (one in some) all.write(one.data, 0, one.data.size)
    val shape = some.firstOrNull() ?: like
    return encodeMessage(header + mapOf("items" to items.map { describe(it) }), Vectors(shape.type, shape.dim, all.toByteArray()))
}

/** The documents of a frame. @throws WireException if an item breaks the specification, or there are more than [most]. */
internal fun decodeItems(message: Message, most: Int = MAX_ITEMS): List<Item> {
    var at = 0
    val items = itemRows(message, most).mapIndexed { place, row ->
        try {
            readItem(row, message.vectors, at).also { at += it.vectors.size }
        } catch (e: WireException) {
            throw WireException("item $place: ${e.message}", e)
        }
    }
    checkAllUsed(message, at)
    return items
}

/**
 * The documents of a frame that can be read, and the others by id, version and reason.
 *
 * @throws WireException if the list of documents is none, or of an item not even id, version and number of
 *     vectors can be read, so that the vectors behind it belong to nobody.
 */
internal fun decodeReadableItems(message: Message, most: Int = MAX_ITEMS): ReadableItems {
    val items = ArrayList<Item>()
    val unreadable = ArrayList<UnreadableItem>()
    var at = 0
    for ((place, row) in itemRows(message, most).withIndex()) {
        try {
            val item = readItem(row, message.vectors, at)
            at += item.vectors.size
            if (item.problem == null) items.add(item) else unreadable.add(UnreadableItem(item.id, item.stamp, item.device, item.deleted, item.problem))
        } catch (e: WireException) {
            val (named, count) = outline(row, place, e)
            unreadable.add(named)
            at += count
        }
    }
    checkAllUsed(message, at)
    return ReadableItems(items, unreadable)
}

private fun itemRows(message: Message, most: Int): List<*> {
    val rows = message.header["items"] as? List<*> ?: throw WireException("items: expected a list")
    if (rows.size > most) throw WireException("${rows.size} items, expected at most $most")
    return rows
}

private fun checkAllUsed(message: Message, count: Int) {
    if (count != message.vectors.size) throw WireException("the items have $count vectors, the frame ${message.vectors.size}")
}

private fun parse(data: ByteArray, end: Int): Map<String, Any?> {
    val header = try {
        // A new decoder reports what is not UTF-8, halves of characters too.
        Json.parseMessage(Charsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(data, LENGTH_BYTES, end - LENGTH_BYTES)).toString())
    } catch (e: CharacterCodingException) {
        throw WireException("a frame's header is not JSON: it is not UTF-8", e)
    } catch (e: JsonException) {
        throw WireException("a frame's header is not JSON: ${brief(e.message)}", e)
    }
    @Suppress("UNCHECKED_CAST")
    return header as? Map<String, Any?> ?: throw WireException("a frame's header: expected an object")
}
