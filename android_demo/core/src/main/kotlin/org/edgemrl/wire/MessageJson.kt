package org.edgemrl.wire

import org.edgemrl.json.join
import org.edgemrl.store.pythonFloat

/** JSON without spaces, with the bytes that Python's `json.dumps(..., ensure_ascii=False)` writes. */
internal fun messageJson(value: Any?): String = StringBuilder().also { put(it, value) }.toString()

private fun put(out: StringBuilder, value: Any?) {
    when (value) {
        is Double -> out.append(pythonFloat(value))
        is String -> quote(out, value)
        is List<*> -> join(out, '[', ']', value) { put(out, it) }
        is Map<*, *> -> join(out, '{', '}', value.entries) { (name, item) ->
            quote(out, name as String)
            out.append(':')
            put(out, item)
        }
        else -> out.append(value)
    }
}

/** A text in quotes. Only `"`, `\` and controls are escaped, the short way where there is one. */
internal fun quote(out: StringBuilder, text: String) {
    out.append('"')
    for (c in text) {
        when (c) {
            '"', '\\' -> out.append('\\').append(c)
            '\n' -> out.append("\\n")
            '\r' -> out.append("\\r")
            '\t' -> out.append("\\t")
            '\b' -> out.append("\\b")
            '\u000c' -> out.append("\\f")
            else -> if (c < ' ') out.append("\\u").append(c.code.toString(16).padStart(4, '0')) else out.append(c)
        }
    }
    out.append('"')
}
