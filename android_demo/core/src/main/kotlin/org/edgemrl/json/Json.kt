package org.edgemrl.json

import java.math.BigInteger

/** Text that is not JSON, or JSON that readers could understand differently. */
public class JsonException(message: String) : IllegalArgumentException(message)

/**
 * A strict and bounded reader and writer of JSON (RFC 8259).
 *
 * Values are `null`, [Boolean], [Long] or [BigInteger] (numbers without fraction and exponent), [Double]
 * (all other numbers), [String], [List], and [Map] with the order of the text. A name that an object
 * has twice is refused: readers disagree about it, so that what one of them checked another does not read.
 */
public object Json {
    private const val DEEPEST = 200

    /** About what Python's own limit of recursion lets through. */
    private const val DEEPEST_MESSAGE = 950

    /** Parses one value. @throws JsonException if the text is not JSON, or nested too deeply. */
    public fun parse(text: String): Any? = Reader(text, DEEPEST, repeated = false).document()

    /**
     * Parses one value as Python's `json` does: of a name that an object has twice the last value counts. For
     * messages, of which two programs must read the same.
     */
    internal fun parseMessage(text: String): Any? = Reader(text, DEEPEST_MESSAGE, repeated = true).document()

    /** Writes a value with `,` and `:` alone between its parts; text stays as it is, but for `"`, `\` and controls. */
    public fun write(value: Any?): String = StringBuilder().also { put(it, value) }.toString()

    private fun put(out: StringBuilder, value: Any?) {
        when (value) {
            null, is Boolean, is Int, is Long, is BigInteger -> out.append(value)
            is Double -> {
                if (value.isNaN() || value.isInfinite()) throw JsonException("JSON has no number for $value")
                out.append(value)
            }
            is String -> quote(out, value)
            is List<*> -> join(out, '[', ']', value) { put(out, it) }
            is Map<*, *> -> join(out, '{', '}', value.entries) { (name, item) ->
                quote(out, name as String)
                out.append(':')
                put(out, item)
            }
            else -> throw JsonException("${value.javaClass.name} has no JSON")
        }
    }

    private fun quote(out: StringBuilder, text: String) {
        out.append('"')
        for (c in text) {
            when {
                c == '"' || c == '\\' -> out.append('\\').append(c)
                c < ' ' -> out.append("\\u").append(c.code.toString(16).padStart(4, '0'))
                else -> out.append(c)
            }
        }
        out.append('"')
    }

    private class Reader(private val text: String, private val deepest: Int, private val repeated: Boolean) {
        private var at = 0

        fun document(): Any? {
            val value = value(0)
            blank()
            if (at < text.length) fail("one value was expected, and more follows")
            return value
        }

        private fun fail(what: String): Nothing = throw JsonException("$what (character $at)")

        private fun blank() {
            while (at < text.length && text[at] in " \t\r\n") at++
        }

        private fun take(c: Char) {
            if (at >= text.length || text[at] != c) fail("'$c' was expected")
            at++
        }

        private fun value(depth: Int): Any? {
            if (depth > deepest) fail("nested more than $deepest times")
            blank()
            if (at >= text.length) fail("the text ends too early")
            return when (text[at]) {
                '{' -> members(depth)
                '[' -> items(depth)
                '"' -> string()
                't' -> word("true", true)
                'f' -> word("false", false)
                'n' -> word("null", null)
                else -> number()
            }
        }

        private fun word(word: String, value: Any?): Any? {
            if (!text.startsWith(word, at)) fail("'$word' was expected")
            at += word.length
            return value
        }

        private fun members(depth: Int): Map<String, Any?> {
            val found = LinkedHashMap<String, Any?>()
            take('{')
            blank()
            if (at < text.length && text[at] == '}') return found.also { at++ }
            while (true) {
                blank()
                val name = string()
                if (!repeated && name in found) fail("an object has a name twice")
                blank()
                take(':')
                found[name] = value(depth + 1)
                blank()
                if (at < text.length && text[at] == ',') at++ else return found.also { take('}') }
            }
        }

        private fun items(depth: Int): List<Any?> {
            val found = ArrayList<Any?>()
            take('[')
            blank()
            if (at < text.length && text[at] == ']') return found.also { at++ }
            while (true) {
                found.add(value(depth + 1))
                blank()
                if (at < text.length && text[at] == ',') at++ else return found.also { take(']') }
            }
        }

        private fun string(): String {
            take('"')
            val start = at
            while (at < text.length && text[at] != '"' && text[at] != '\\' && text[at] >= ' ') at++
            if (at < text.length && text[at] == '"') return text.substring(start, at++)
            val out = StringBuilder(text.substring(start, at))
            while (true) {
                if (at >= text.length) fail("a string does not end")
                val c = text[at++]
                when {
                    c == '"' -> return out.toString()
                    c == '\\' -> out.append(escape())
                    c < ' ' -> fail("a control character within a string")
                    else -> out.append(c)
                }
            }
        }

        private fun escape(): Char {
            if (at >= text.length) fail("a string does not end")
            return when (val c = text[at++]) {
                '"', '\\', '/' -> c
                'b' -> '\b'
                'f' -> '\u000c'
                'n' -> '\n'
                'r' -> '\r'
                't' -> '\t'
                'u' -> {
                    if (at + 4 > text.length) fail("a string does not end")
                    val digits = text.substring(at, at + 4)
                    if (!digits.all { it in '0'..'9' || it in 'a'..'f' || it in 'A'..'F' }) fail("four hexadecimal digits were expected")
                    at += 4
                    digits.toInt(16).toChar()
                }
                else -> fail("'\\$c' is no escape")
            }
        }

        private fun number(): Any {
            val start = at
            if (at < text.length && text[at] == '-') at++
            val first = at
            digits()
            if (text[first] == '0' && at > first + 1) fail("a number begins with 0")
            var whole = true
            if (at < text.length && text[at] == '.') {
                whole = false
                at++
                digits()
            }
            if (at < text.length && (text[at] == 'e' || text[at] == 'E')) {
                whole = false
                at++
                if (at < text.length && (text[at] == '+' || text[at] == '-')) at++
                digits()
            }
            val found = text.substring(start, at)
            if (!whole) return found.toDouble()
            return found.toLongOrNull() ?: if (found.length <= 4300) BigInteger(found) else fail("a number of ${found.length} digits")
        }

        private fun digits() {
            val start = at
            while (at < text.length && text[at] in '0'..'9') at++
            if (at == start) fail("a digit was expected")
        }
    }
}

/** Writes items between two brackets, with commas between them. */
internal inline fun <T> join(out: StringBuilder, open: Char, close: Char, items: Collection<T>, each: (T) -> Unit) {
    out.append(open)
    items.forEachIndexed { i, item ->
        if (i > 0) out.append(',')
        each(item)
    }
    out.append(close)
}
