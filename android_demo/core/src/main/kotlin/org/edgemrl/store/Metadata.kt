package org.edgemrl.store

import java.math.BigDecimal
import java.math.BigInteger
import java.math.MathContext
import java.math.RoundingMode
import org.edgemrl.ByCodePoint
import org.edgemrl.UsageException
import org.edgemrl.json.Json
import org.edgemrl.json.JsonException
import org.edgemrl.shorten
import org.edgemrl.textProblem
import org.edgemrl.wire.messageJson
import org.edgemrl.wire.quote

private const val MAX_METADATA_BYTES = 1 shl 18
private const val MAX_LEVELS = 16
private const val MAX_VALUES = 2_048
private const val MAX_NAME_BYTES = 512
private const val MAX_NAMES_BYTES = 1 shl 16

/** What JSON adds around a name or a text, at least. */
private const val QUOTES = 2

/** A comparable value in metadata. Kinds: 0 null, 1 boolean, 2 number, 3 text. */
internal data class Field(val name: String, val kind: Int, val value: Any)

/**
 * Why a document cannot have this metadata, in words; null if it can (FORMAT.md, "Wire").
 *
 * The rules and their order are those of the Python package, so that both give the same messages.
 */
internal fun metadataProblem(metadata: Map<*, *>): String? {
    val walk = MetadataWalk()
    val problem = walk.visit(metadata, "", 0, 2)
    if (problem != null) return problem.takeIf { it.isNotEmpty() } ?: tooLarge()
    if (walk.values > 0 && messageJson(metadata).toByteArray(Charsets.UTF_8).size > MAX_METADATA_BYTES) return tooLarge()
    return null
}

private fun tooLarge(): String = "metadata has more than %,d bytes as JSON".format(java.util.Locale.ROOT, MAX_METADATA_BYTES)

/** Goes through metadata until a limit is passed; an empty problem stands for the limit of all bytes. */
private class MetadataWalk {
    var values = 0
    private var names = 0
    private var size = 0L

    fun visit(pairs: Map<*, *>, around: String, aroundBytes: Int, level: Int): String? {
        for ((key, value) in pairs) {
            var name = around
            var problem: String? = null
            var bytes = aroundBytes
            if (key !is String) {
                problem = "metadata has a name that is no text, expected text"
            } else if (key.codePointCount(0, key.length) > MAX_NAME_BYTES) {
                problem = "metadata has a name of more than $MAX_NAME_BYTES bytes, ${shorten(key)}"
            } else {
                problem = textProblem(key)?.let { "metadata has the name $it" }
                if (problem == null) {
                    name = if (aroundBytes > 0) "$around.$key" else key
                    bytes = utf8Size(key) + if (aroundBytes > 0) aroundBytes + 1 else 0
                }
            }
            (count(name, bytes, value, level, problem) ?: inside(name, bytes, value, level))?.let { return it }
        }
        return null
    }

    private fun inside(name: String, bytes: Int, value: Any?, level: Int): String? = when (value) {
        is Map<*, *> -> visit(value, name, bytes, level + 1)
        is List<*> -> value.asSequence().mapNotNull { item ->
            count(name, bytes, item, level + 1, null) ?: inside(name, bytes, item, level + 1)
        }.firstOrNull()
        else -> null
    }

    private fun count(name: String, bytes: Int, value: Any?, level: Int, known: String?): String? {
        values++
        val inner = value is Map<*, *> || value is List<*>
        val bad = if (inner) null else valueProblem(value)
        val problem = known ?: bad?.let { "metadata ${shorten(name)} is $it" }
        if (problem != null) return problem
        names += bytes
        size += QUOTES + ((value as? String)?.let { it.codePointCount(0, it.length) } ?: 0)
        return when {
            level - (if (inner) 0 else 1) > MAX_LEVELS -> "metadata ${shorten(name)} is deeper than $MAX_LEVELS levels: make it flatter"
            values > MAX_VALUES -> "metadata has more than %,d values".format(java.util.Locale.ROOT, MAX_VALUES)
            bytes > MAX_NAME_BYTES -> "metadata has a name of more than $MAX_NAME_BYTES bytes, ${shorten(name)}"
            names > MAX_NAMES_BYTES -> "the names of the metadata's values have more than %,d bytes".format(java.util.Locale.ROOT, MAX_NAMES_BYTES)
            size > MAX_METADATA_BYTES -> ""
            else -> null
        }
    }
}

private fun utf8Size(text: String): Int = text.toByteArray(Charsets.UTF_8).size

/** Why a single value cannot be in metadata or in a filter, in words; null if it can. */
internal fun valueProblem(value: Any?): String? = when (value) {
    null, is Boolean, is Int, is Long -> null
    is String -> textProblem(value)
    is BigInteger -> if (value.bitLength() < 64) null else "an integer of more than 64 bits: write it as a text or a float"
    is Double -> if (value.isNaN() || value.isInfinite()) "$value, expected a finite number" else null
    else -> "${value.javaClass.simpleName}, expected text, a number, true, false, null, a list or an object"
}

/** Metadata as JSON with sorted names, as Python writes it. @throws UsageException if a store cannot keep it. */
internal fun encodeMetadata(metadata: Map<String, Any?>, id: String): String {
    if (metadata.isEmpty()) return "{}"
    metadataProblem(metadata)?.let { throw UsageException("document ${shorten(id)}: $it") }
    return StringBuilder().also { pythonJson(it, metadata) }.toString()
}

/** Metadata as it was put. @throws JsonException if it is not JSON. */
internal fun decodeMetadata(text: String): Map<String, Any?> {
    @Suppress("UNCHECKED_CAST")
    return Json.parse(text) as? Map<String, Any?> ?: throw JsonException("an object was expected")
}

/** JSON as Python's `json.dumps(..., ensure_ascii=False, sort_keys=True)` writes it. */
internal fun pythonJson(out: StringBuilder, value: Any?) {
    when (value) {
        is Double -> out.append(pythonFloat(value))
        is String -> quote(out, value)
        is List<*> -> {
            out.append('[')
            value.forEachIndexed { i, item ->
                if (i > 0) out.append(", ")
                pythonJson(out, item)
            }
            out.append(']')
        }
        is Map<*, *> -> {
            out.append('{')
            value.keys.map { it as String }.sortedWith(ByCodePoint).forEachIndexed { i, name ->
                if (i > 0) out.append(", ")
                quote(out, name)
                out.append(": ")
                pythonJson(out, value[name])
            }
            out.append('}')
        }
        else -> out.append(value)
    }
}

/** A float as Python's `repr` writes it: the fewest digits that give it back. */
internal fun pythonFloat(value: Double): String {
    if (value == 0.0) return if (1 / value < 0) "-0.0" else "0.0"
    val exact = BigDecimal(value)
    var digits = 1
    var rounded = exact.round(MathContext(digits, RoundingMode.HALF_EVEN))
    while (rounded.toDouble() != value) {
        rounded = exact.round(MathContext(++digits, RoundingMode.HALF_EVEN))
    }
    val all = rounded.unscaledValue().abs().toString().trimEnd('0').ifEmpty { "0" }
    val exponent = rounded.precision() - rounded.scale() - 1
    val sign = if (value < 0) "-" else ""
    if (exponent < -4 || exponent >= 16) {
        val mantissa = if (all.length == 1) all else all[0] + "." + all.substring(1)
        val size = Math.abs(exponent).toString().padStart(2, '0')
        return "$sign${mantissa}e${if (exponent < 0) "-" else "+"}$size"
    }
    if (exponent < 0) return sign + "0." + "0".repeat(-exponent - 1) + all
    if (all.length <= exponent + 1) return sign + all + "0".repeat(exponent + 1 - all.length) + ".0"
    return sign + all.substring(0, exponent + 1) + "." + all.substring(exponent + 1)
}

/**
 * The comparable values in metadata, without repetition. Objects within are reached by dotted names; a list
 * counts as each of its values. Metadata beyond the limits, as older versions stored it, has none.
 */
internal fun fieldRows(metadata: Map<String, Any?>): List<Field> {
    if (metadata.isEmpty() || metadataProblem(metadata) != null) return emptyList()
    val found = LinkedHashMap<List<Any>, Field>()
    fun walk(name: String, value: Any?) {
        when (value) {
            is Map<*, *> -> for ((key, inner) in value) walk(if (name.isEmpty()) key as String else "$name.$key", inner)
            is List<*> -> for (inner in value) walk(name, inner)
            else -> {
                val field = fieldOf(name, value)
                val key = listOf(field.name, field.kind, comparable(field.value))
                if (key !in found) found[key] = field
            }
        }
    }
    walk("", metadata)
    return found.values.toList()
}

internal fun fieldOf(name: String, value: Any?): Field = when (value) {
    null -> Field(name, 0, 0L)
    is Boolean -> Field(name, 1, if (value) 1L else 0L)
    is Int -> Field(name, 2, value.toLong())
    is Long, is Double -> Field(name, 2, value)
    is BigInteger -> Field(name, 2, value.toLong())
    else -> Field(name, 3, value.toString())
}

/** Numbers so that equal ones are equal, whether they are whole numbers or floats. */
private fun comparable(value: Any): Any = when (value) {
    is Long -> BigDecimal(value).stripTrailingZeros()
    is Double -> BigDecimal(value).stripTrailingZeros()
    else -> value
}

/** Compares two numbers exactly. */
internal fun compareNumbers(a: Any, b: Any): Int = exact(a).compareTo(exact(b))

private fun exact(value: Any): BigDecimal = if (value is Long) BigDecimal(value) else BigDecimal(value as Double)
