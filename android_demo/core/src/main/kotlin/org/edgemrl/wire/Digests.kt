package org.edgemrl.wire

import java.security.MessageDigest
import org.edgemrl.bundle.decodeBase64
import org.edgemrl.bundle.hex

/** The header of a refusal that says what was refused. */
internal const val SEEN = "Edge-MRL-Seen"
private val SEEN_HEADERS = listOf("authorization", "edge-mrl-copy", "edge-mrl-protocol", "edge-mrl-space")
private const val SEEN_DIGITS = 16
private const val ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

private fun sha256(data: ByteArray) = MessageDigest.getInstance("SHA-256").digest(data)

/** Base64 with padding (RFC 4648). Android has java.util.Base64 from API 26 on only. */
internal fun encodeBase64(data: ByteArray): String {
    val out = StringBuilder((data.size + 2) / 3 * 4)
    for (start in data.indices step 3) {
        val count = minOf(3, data.size - start)
        var bits = 0
        for (i in 0 until 3) bits = bits shl 8 or if (i < count) data[start + i].toInt() and 255 else 0
        for (i in 0 until 4) out.append(if (i <= count) ALPHABET[bits shr (18 - 6 * i) and 63] else '=')
    }
    return out.toString()
}

/** The value of a Content-Digest or Repr-Digest header (RFC 9530). */
internal fun digest(data: ByteArray): String = "sha-256=:${encodeBase64(sha256(data))}:"

/** Whether a digest header belongs to these bytes; digests of other algorithms are ignored. */
internal fun matchesDigest(data: ByteArray, value: String?): Boolean {
    for (part in (value ?: "").split(",")) {
        val name = part.trim().substringBefore("=")
        val rest = part.trim().substringAfter("=", "")
        if (name == "sha-256" && rest.startsWith(":") && rest.endsWith(":")) {
            val given = if (rest.length < 2) null else decodeBase64(rest.substring(1, rest.length - 1))
            return given != null && given.contentEquals(sha256(data))
        }
    }
    return false
}

/** 16 hex digits of the SHA-256 of those headers, by lower-case name, that a refusal may be due to. */
internal fun seenHeaders(headers: Map<String, String>): String {
    val lines = SEEN_HEADERS.filter { it in headers }.joinToString("") { "$it: ${headers.getValue(it).trim()}\n" }
    return hex(sha256(lines.toByteArray(Charsets.ISO_8859_1))).take(SEEN_DIGITS)
}
