package org.edgemrl.wire

import org.edgemrl.Span
import org.edgemrl.WireException
import org.edgemrl.bundle.hasLoneSurrogate
import org.edgemrl.bundle.points
import org.edgemrl.idProblem
import org.edgemrl.shorten
import org.edgemrl.store.metadataProblem
import org.edgemrl.textProblem

private const val MAX_ID_BYTES = 512
private const val MAX_COUNT = 0xFFFFFFFFL
private val ITEM_KEYS = setOf("id", "v", "n", "del", "by", "text", "meta", "spans")
private val CONTENT = setOf("n", "text", "meta", "spans")

/** Checks that a value is a document's id that can be sent. @throws WireException if it is not. */
internal fun checkId(value: Any?): String {
    val problem = if (value is String) idProblem(value) else "expected text"
    if (value !is String || problem != null) throw WireException("id ${shorten(value)}: $problem")
    val size = value.toByteArray(Charsets.UTF_8).size
    if (size > MAX_ID_BYTES) throw WireException("an id of $size bytes, expected at most $MAX_ID_BYTES")
    return value
}

/** An item as a row of a frame's JSON. */
internal fun describe(item: Item): Map<String, Any?> {
    val row = LinkedHashMap<String, Any?>()
    row["id"] = item.id
    row["v"] = formatStamp(item.stamp)
    item.device?.let { row["by"] = it }
    if (item.deleted) return row.also { it["del"] = true }
    row["n"] = item.vectors.size
    if (item.text != null) {
        row["text"] = item.text
        row["spans"] = item.spans.flatMap { listOf(it.start, it.end) }
    }
    item.metadata?.let { row["meta"] = it }
    return row
}

/** Reads a row; its vectors begin with the number [at]. @throws WireException if it breaks the specification. */
internal fun readItem(row: Any?, vectors: Vectors, at: Int): Item {
    if (row !is Map<*, *>) throw WireException("expected an object")
    row.keys.find { it !in ITEM_KEYS }?.let { throw WireException("unknown key ${shorten(it)}") }
    val id = checkId(row["id"])
    val stamp = parseStamp(row["v"])
    val device = row["by"]
    if (device != null && !isDevice(device)) throw WireException("by: expected text")
    val deleted = if ("del" in row) row["del"] else false
    if (deleted !is Boolean) throw WireException("del: expected true or false")
    val count = if ("n" in row) row["n"] else 0L
    if (!isCount(count) || count as Long > MAX_PASSAGES || (deleted && row.keys.any { it in CONTENT })) {
        throw WireException("n: expected the number of vectors, and no n in a deletion")
    }
    if (count > vectors.size - at) throw WireException("$count vectors, only ${vectors.size - at} are left")
    val some = vectors.rows(at, count.toInt())
    val content = readContent(row, count.toInt())
    val problem = problemOf(content)
    if (problem != null) return Item(id, stamp, some, deleted, device as String?, problem = problem)
    return Item(id, stamp, some, deleted, device as String?, content.text, content.metadata, content.spans)
}

private class Content(val text: String?, val metadata: Map<String, Any?>?, val spans: List<Span>)

private fun readContent(row: Map<*, *>, count: Int): Content {
    val text = row["text"]
    val metadata = row["meta"]
    val flat = if ("spans" in row) row["spans"] else emptyList<Any?>()
    if (text != null && text !is String) throw WireException("text: expected text")
    if (metadata != null && metadata !is Map<*, *>) throw WireException("meta: expected an object")
    if (flat !is List<*> || !flat.all { isCount(it) }) throw WireException("spans: expected a list of offsets")
    if (text == null && flat.isNotEmpty()) throw WireException("spans: expected no spans without text")
    val numbers = flat.map { it as Long }
    if (text is String) {
        val length = points(text)
        val inside = numbers.size == 2 * count && (0 until count).all { numbers[2 * it] <= numbers[2 * it + 1] && numbers[2 * it + 1] <= length }
        if (!inside) throw WireException("spans: expected start and end, in the text, of each passage")
    }
    @Suppress("UNCHECKED_CAST")
    return Content(text, metadata as Map<String, Any?>?, List(numbers.size / 2) { Span(numbers[2 * it].toInt(), numbers[2 * it + 1].toInt()) })
}

/** Why text or metadata cannot be stored: JSON can express more than databases can hold. */
private fun problemOf(content: Content): String? {
    if (content.text != null && hasLoneSurrogate(content.text)) return "the text has a lone surrogate, expected Unicode text"
    return content.metadata?.let { metadataProblem(it) }
}

/** Which document a row is about and how many vectors it has, where the rest cannot be read. */
internal fun outline(row: Any?, place: Int, error: WireException): Pair<UnreadableItem, Int> {
    val said = "item $place: ${error.message}"
    if (row !is Map<*, *>) throw WireException(said, error)
    val count = if ("n" in row) row["n"] else 0L
    if (!isCount(count) || count as Long > MAX_PASSAGES) throw WireException(said, error)
    try {
        val device = row["by"].takeIf { isDevice(it) } as String?
        return UnreadableItem(checkId(row["id"]), parseStamp(row["v"]), device, row["del"] == true, error.message ?: "") to count.toInt()
    } catch (e: WireException) {
        throw WireException("item $place: ${e.message}", e)
    }
}

/** Whether a value can be a device's name in any database. */
private fun isDevice(value: Any?): Boolean = value is String && points(value) <= MAX_ID_BYTES && textProblem(value) == null

private fun isCount(value: Any?): Boolean = value is Long && value in 0..MAX_COUNT
