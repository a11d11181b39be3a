package org.edgemrl.bundle

import org.edgemrl.GraphException

/** Bytes of one element, by TensorProto.DataType; types of less than a byte are never external here. */
private val ELEMENT_BYTES = mapOf(
    1 to 4, 2 to 1, 3 to 1, 4 to 2, 5 to 2, 6 to 4, 7 to 8, 9 to 1, 10 to 2, 11 to 8, 12 to 4, 13 to 8, 16 to 2,
).mapKeys { it.key.toLong() }
private const val MOST_NODES = 100_000
private const val MOST_DEPTH = 4
private const val MOST_READS = 4
private const val VARINT = 0
private const val FIXED64 = 1
private const val BYTES = 2
private const val FIXED32 = 5
private const val EXTERNAL = 1L

/**
 * A weight that lies in another file of the bundle.
 *
 * @property offset its first byte in that file.
 * @property length its number of bytes.
 */
internal class External(val name: String, val location: String, val offset: Long, val length: Long)

/**
 * Reads a graph file strictly, and checks that it is one that a bundle may have: whatever this reader does
 * not know, or could understand otherwise than ONNX Runtime, it refuses.
 *
 * @param data the bytes of model.onnx.
 * @param sizes bytes of the files that it may read, by name.
 * @return weights in other files.
 * @throws GraphException if it is damaged, has parts that no bundle has, or reads another file.
 */
internal fun readGraph(data: ByteArray, sizes: Map<String, Long>): List<External> {
    val reader = GraphReader(data, sizes)
    reader.model(Extent(0, data.size))
    val total = reader.externals.fold(0.0) { sum, one -> sum + one.length }
    val there = sizes.values.fold(0.0) { sum, size -> sum + size }
    if (total > MOST_READS * there) refuse("it reads ${total.toLong()} bytes of files that have ${there.toLong()}")
    return reader.externals
}

private fun refuse(what: String): Nothing = throw GraphException("model.onnx cannot be opened: $what; export the model again")

private class Extent(val start: Int, val end: Int)

/** A field's value: a number, or the span of its bytes. */
private class Field(val number: Int, val value: Long, val span: Extent?)

/** What a message may have: types of its fields by number, and those that are given once. */
private class Shape(what: String, known: String, once: String = "") {
    val name = what
    val types: Map<Int, IntArray> = known.split(' ').associate { it.drop(1).toInt() to TYPES.getValue(it[0]) }
    val once: Set<Int> = once.split(' ').filter { it.isNotEmpty() }.mapTo(HashSet()) { it.toInt() }

    private companion object {
        val TYPES = mapOf(
            'v' to intArrayOf(VARINT),
            's' to intArrayOf(BYTES),
            'f' to intArrayOf(FIXED32),
            '*' to intArrayOf(VARINT, FIXED64, BYTES, FIXED32),
        )
    }
}

private val MODEL = Shape("the model", "v1 s2 s3 s4 v5 s6 s7 s8 s14")
private val GRAPHS = Shape("the graph", "s1 s2 s5 s10 s11 s12 s13 s14 s16")
private val NODE = Shape("a node", "s1 s2 s3 s4 s5 s6 s7 s8 s9", "3 4 7 8")
private val ATTRIBUTE = Shape("an attribute", "s1 f2 v3 s4 s5 s6 *7 *8 s9 s10 s13 v20", "1 3 4 5 6")
private val TENSOR = Shape("a tensor", "*1 v2 *4 *5 s6 *7 s8 s9 *10 *11 s12 s13 v14 s16", "2 8 9 14")
private val ENTRY = Shape("the place of a weight", "s1 s2", "1 2")

/** Walks through the messages of onnx.proto. Each method reads one kind of message in a span of the bytes. */
private class GraphReader(private val data: ByteArray, private val sizes: Map<String, Long>) {
    val externals = ArrayList<External>()
    private val names = HashSet<String>()
    private var nodes = 0
    private var depth = 0
    private var at = 0

    /** ModelProto. Training (20) and functions (25) are refused. */
    fun model(span: Extent) {
        var graphs = 0
        fields(span, MODEL) { field ->
            if (field.number == 7) {
                graphs++
                graph(field.span!!)
            }
        }
        if (graphs != 1) refuse("it has $graphs graphs, expected 1")
    }

    /** GraphProto. Sparse initializers (15) are refused. */
    private fun graph(span: Extent) = fields(span, GRAPHS) { field ->
        if (field.number == 1) node(field.span!!) else if (field.number == 5) tensor(field.span!!, depth == 0)
    }

    private fun node(span: Extent) {
        if (++nodes > MOST_NODES) refuse("it has more than $MOST_NODES nodes")
        var kind = ""
        var domain = ""
        fields(span, NODE) { field ->
            when (field.number) {
                4 -> kind = text(field)
                7 -> domain = text(field)
                5 -> attribute(field.span!!)
                8 -> if (text(field).isNotEmpty()) refuse("a node calls a function")
            }
        }
        if (kind !in OPERATORS[domain].orEmpty()) {
            refuse("it has the operator ${brief("$domain.$kind".trimStart('.'))}, which no bundle has")
        }
    }

    /** AttributeProto. Lists of graphs (11), sparse tensors (22, 23) and references (21) are refused. */
    private fun attribute(span: Extent) = fields(span, ATTRIBUTE) { field ->
        when (field.number) {
            5, 10 -> tensor(field.span!!, false)
            6 -> { // a branch of If; its weights are inside it
                if (++depth > MOST_DEPTH) refuse("its graphs lie more than $MOST_DEPTH deep in each other")
                graph(field.span!!)
                depth--
            }
        }
    }

    /** TensorProto. Only a weight of the graph itself may lie in another file. */
    private fun tensor(span: Extent, weight: Boolean) {
        var name = ""
        var type = 0L
        var external = false
        val dims = ArrayList<Long>()
        val entries = LinkedHashMap<String, String>()
        fields(span, TENSOR) { field ->
            when (field.number) {
                1 -> numbers(field, dims)
                2 -> type = field.value
                8 -> name = text(field)
                13 -> entry(field.span!!, entries)
                14 -> external = field.value == EXTERNAL
            }
        }
        if (weight && !names.add(name)) refuse("two weights have the name ${brief(name)}")
        if ((external || entries.isNotEmpty()) && !(weight && external)) refuse("a constant of a node lies in another file")
        if (external) externals.add(external(name, type, dims, entries))
    }

    /** StringStringEntryProto of a tensor's external data. */
    private fun entry(span: Extent, entries: MutableMap<String, String>) {
        var key = ""
        var text = ""
        fields(span, ENTRY) { field -> if (field.number == 1) key = text(field) else text = text(field) }
        if (key !in listOf("location", "offset", "length") || key in entries) refuse("the place of a weight says ${brief(key)}")
        entries[key] = text
    }

    /** Checks where a weight lies: in a file of the manifest, and inside it. */
    private fun external(name: String, type: Long, dims: List<Long>, entries: Map<String, String>): External {
        val location = entries["location"].orEmpty()
        val size = sizes[location] ?: refuse(
            "it reads the file ${brief(location)}, which is not one of the bundle's weights (${sizes.keys.sorted().joinToString()})",
        )
        val numbers = listOf(entries["offset"] ?: "0", entries["length"].orEmpty())
        // Digits alone: other readers take signs, blanks and hexadecimal numbers differently.
        if (!numbers.all { text -> text.isNotEmpty() && text.length < 19 && text.all { it in '0'..'9' } }) {
            refuse("the place of the weight ${brief(name)} is no number")
        }
        val (offset, length) = numbers.map { it.toLong() }
        val element = ELEMENT_BYTES[type]
        if (element == null || dims.any { it < 0 }) refuse("the weight ${brief(name)} has an unknown type or shape")
        var bytes = element.toDouble()
        var exact = element.toLong()
        for (dim in dims) {
            bytes *= dim.toDouble()
            exact *= dim
        }
        if (bytes > 1e18 || length != exact || offset + length > size) {
            refuse("the weight ${brief(name)} does not fit into $location, which has $size bytes")
        }
        return External(name, location, offset, length)
    }

    /** Gives each field of a message to a step; refuses what the message may not have. */
    private inline fun fields(span: Extent, shape: Shape, step: (Field) -> Unit) {
        var seen = 0L
        var place = span.start
        while (place < span.end) {
            at = place
            val key = varint(span.end)
            val wire = (key and 7).toInt()
            val number = (key ushr 3).let { if (it > 1000) 1000 else it.toInt() }
            if (shape.types[number]?.contains(wire) != true || (number < 64 && seen shr number and 1L != 0L)) {
                refuse("${shape.name} has the unknown field ${key ushr 3} (type $wire)")
            }
            if (number in shape.once) seen = seen or (1L shl number)
            val field = if (wire == VARINT) Field(number, varint(span.end), null) else bytes(number, wire, span.end, shape)
            place = at
            step(field)
        }
    }

    private fun bytes(number: Int, wire: Int, end: Int, shape: Shape): Field {
        val size = if (wire == FIXED64) 8L else if (wire == FIXED32) 4L else varint(end)
        if (size < 0 || size > end - at) refuse("${shape.name} is cut short")
        val span = Extent(at, at + size.toInt())
        at = span.end
        return Field(number, 0, span)
    }

    /** A number of one to ten bytes. */
    private fun varint(end: Int): Long {
        var value = 0L
        var shift = 0
        while (shift < 70 && at < end) {
            val byte = data[at++].toInt()
            if (shift < 64) value = value or ((byte.toLong() and 0x7F) shl shift)
            if (byte >= 0) return value
            shift += 7
        }
        refuse("a number is cut short or too long")
    }

    private fun numbers(field: Field, into: MutableList<Long>) {
        val span = field.span
        if (span == null) {
            into.add(field.value)
            return
        }
        at = span.start
        while (at < span.end) into.add(varint(span.end))
    }

    private fun text(field: Field): String {
        val text = decodeUtf8(data, field.span!!.start, field.span.end)
        if (text == null || hasLoneSurrogate(text)) refuse("a name is not UTF-8")
        return text
    }
}
