package org.edgemrl.bundle

import java.security.MessageDigest
import org.edgemrl.FormatException
import org.edgemrl.json.Json
import org.edgemrl.json.JsonException

/** A text for a message, shortened: what is wrong may be megabytes long. */
internal fun brief(value: Any?, most: Int = 300): String {
    val text = value.toString()
    return if (text.length <= most) text else "${text.take(most - 40)}… (${text.length} characters)"
}

/** Number of a text's code points. */
internal fun points(text: String): Int = text.codePointCount(0, text.length)

/** Whether a text has a half of a character (a lone surrogate), which UTF-8 cannot encode. */
internal fun hasLoneSurrogate(text: String): Boolean {
    var at = 0
    while (at < text.length) {
        val point = text.codePointAt(at)
        if (point in 0xD800..0xDFFF) return true
        at += Character.charCount(point)
    }
    return false
}

internal fun sha256(data: ByteArray): String = hex(MessageDigest.getInstance("SHA-256").digest(data))

internal fun hex(data: ByteArray): String {
    val out = StringBuilder(2 * data.size)
    for (byte in data) {
        out.append("0123456789abcdef"[(byte.toInt() shr 4) and 15]).append("0123456789abcdef"[byte.toInt() and 15])
    }
    return out.toString()
}

/**
 * Parses a file's JSON. Lone surrogates are let through, as texts of golden.json may have them.
 *
 * @throws FormatException if it is not JSON.
 */
internal fun parseJson(data: ByteArray, name: String): Any? {
    val text = decodeUtf8(data) ?: throw FormatException("$name is not valid JSON (it is not UTF-8): copy the bundle again")
    try {
        return Json.parse(text)
    } catch (e: JsonException) {
        throw FormatException("$name is not valid JSON (${brief(e.message)}): copy the bundle again", e)
    } catch (e: NumberFormatException) { // an exponent that nothing can have
        throw FormatException("$name is not valid JSON (${brief(e.message)}): copy the bundle again", e)
    }
}

/**
 * Decodes UTF-8 as Python's "surrogatepass" does: strict, but for lone surrogates.
 *
 * @return null if the bytes are something else.
 */
internal fun decodeUtf8(data: ByteArray, start: Int = 0, end: Int = data.size): String? {
    val out = StringBuilder(end - start)
    var at = start
    while (at < end) {
        val first = data[at++].toInt() and 0xFF
        if (first < 0x80) {
            out.append(first.toChar())
            continue
        }
        val more = if (first in 0xC2..0xDF) 1 else if (first in 0xE0..0xEF) 2 else if (first in 0xF0..0xF4) 3 else return null
        if (at + more > end) return null
        var point = first and (0x3F shr more)
        repeat(more) {
            val next = data[at++].toInt() and 0xFF
            if (next and 0xC0 != 0x80) return null
            point = point shl 6 or (next and 0x3F)
        }
        if (point < LEAST[more] || point > Character.MAX_CODE_POINT) return null
        out.appendCodePoint(point)
    }
    return out.toString()
}

/** The least code point that a character of 1, 2, 3 or 4 bytes may have. */
private val LEAST = intArrayOf(0, 0x80, 0x800, 0x10000)

private const val BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

/**
 * Decodes base64 (RFC 4648, with padding). Android has java.util.Base64 from API 26 on only.
 *
 * @return null if the text is something else.
 */
internal fun decodeBase64(text: String): ByteArray? {
    if (text.length % 4 != 0) return null
    val padding = if (text.endsWith("==")) 2 else if (text.endsWith("=")) 1 else 0
    val out = ByteArray(text.length / 4 * 3 - padding)
    var bits = 0
    var size = 0
    for (i in 0 until text.length - padding) {
        val value = BASE64.indexOf(text[i])
        if (value < 0) return null
        bits = bits shl 6 or value
        if (i % 4 == 0) continue
        out[size++] = (bits shr (6 - 2 * (i % 4))).toByte()
    }
    return out
}
