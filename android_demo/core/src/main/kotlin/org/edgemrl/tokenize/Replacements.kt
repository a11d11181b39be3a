package org.edgemrl.tokenize

import org.edgemrl.bundle.Part
import org.edgemrl.bundle.decodeBase64
import org.edgemrl.bundle.decodeUtf8
import org.edgemrl.bundle.refuseTokenizer

/** Puts other text in the place of each match of a pattern. */
internal fun replacing(part: Part): Normalizer {
    val pattern = Pattern(part["pattern"])
    val content = Normalized.of(part.text("content"))
    return Normalizer { text -> replaced(text, pattern.matches(text), content) }
}

internal fun replaced(text: Normalized, matches: IntArray, content: Normalized): Normalized {
    if (matches.isEmpty()) return text
    val out = Normalized.Builder(text.size)
    var at = 0
    for (i in matches.indices step 2) {
        while (at < matches[i]) out.add(text.points[at], text.starts[at], text.ends[at++])
        at = matches[i + 1]
        for (n in 0 until content.size) out.add(content.points[n], text.starts[at - 1], text.ends[at - 1])
    }
    while (at < text.size) out.add(text.points[at], text.starts[at], text.ends[at++])
    return out.build(text.origin)
}

/** Puts text before another one, unless that is empty. */
internal fun prepended(text: Normalized, before: Normalized): Normalized {
    if (text.size == 0) return text
    val out = Normalized.Builder(text.size + before.size)
    for (i in 0 until before.size) out.add(before.points[i], text.starts[0], text.ends[0])
    for (i in 0 until text.size) out.add(text.points[i], text.starts[i], text.ends[i])
    return out.build(text.origin)
}

internal fun stripped(text: Normalized, left: Boolean, right: Boolean): Normalized {
    var start = 0
    var end = text.size
    if (left) while (start < end && Unicode.has(text.points[start], Unicode.SPACE)) start++
    if (right) while (end > start && Unicode.has(text.points[end - 1], Unicode.SPACE)) end--
    return text.slice(start, end)
}

/**
 * SentencePiece's map of characters: a double array (Darts) from UTF-8 to texts. It is asked for a whole
 * character as users see it (a grapheme), if that is short, else for each code point.
 */
internal class CharacterMap(part: Part) : Normalizer {
    private val units: IntArray
    private val texts: ByteArray
    private val made = HashMap<Int, IntArray>()

    init {
        val data = (part["precompiled_charsmap"] as? String)?.let { decodeBase64(it) } ?: ByteArray(0)
        fun number(at: Int): Int = (0..3).fold(0) { sum, i -> sum or ((data[at + i].toInt() and 0xFF) shl (8 * i)) }
        units = if (data.isEmpty()) IntArray(0) else IntArray(number(0) / 4) { number(4 + 4 * it) }
        texts = if (data.isEmpty()) ByteArray(0) else data.copyOfRange(4 + 4 * units.size, data.size)
    }

    override fun apply(text: Normalized): Normalized {
        val change = Change(text.size)
        var start = 0
        while (start < text.size) {
            val end = graphemeEnd(text, start)
            val whole = if (bytes(text, start, end) < MOST_GRAPHEME_BYTES) find(text, start, end) else null
            if (whole != null) {
                change.replace(end - start, whole)
            } else {
                for (i in start until end) {
                    val one = find(text, i, i + 1)
                    if (one == null) change.keep(text.points[i]) else change.replace(1, one)
                }
            }
            start = end
        }
        return if (change.changed) change.apply(text) else text
    }

    private fun bytes(text: Normalized, start: Int, end: Int): Int {
        var sum = 0
        for (i in start until end) {
            val point = text.points[i]
            sum += if (point < 0x80) 1 else if (point < 0x800) 2 else if (point < 0x10000) 3 else 4
        }
        return sum
    }

    /** What the first entry is that a text begins with; null if there is none. */
    private fun find(text: Normalized, start: Int, end: Int): IntArray? {
        if (units.isEmpty()) return null
        var at = offset(units[0])
        for (byte in text.text(start, end).toByteArray(Charsets.UTF_8)) {
            val label = byte.toInt() and 0xFF
            if (label == 0) return null
            at = at xor label
            val unit = units.getOrNull(at) ?: refuseTokenizer("its map of characters is damaged")
            if (unit and LABEL != label) return null
            at = at xor offset(unit)
            if (unit ushr 8 and 1 == 1) {
                return text(units.getOrNull(at) ?: refuseTokenizer("its map of characters is damaged"))
            }
        }
        return null
    }

    private fun offset(unit: Int): Int = (unit ushr 10) shl ((unit and (1 shl 9)) ushr 6)

    private fun text(unit: Int): IntArray = synchronized(made) {
        made.getOrPut(unit) {
            val start = unit and Int.MAX_VALUE
            var end = start
            if (start > texts.size) refuseTokenizer("its map of characters is damaged")
            while (end < texts.size && texts[end] != 0.toByte()) end++
            val found = Normalized.of(decodeUtf8(texts, start, end) ?: refuseTokenizer("its map of characters is damaged"))
            found.points.copyOf(found.size)
        }
    }

    /** A list of characters and how each changes the length, as the library keeps it: places follow from that. */
    private class Change(capacity: Int) {
        private var points = IntArray(capacity + 8)
        private var changes = IntArray(capacity + 8)
        private var size = 0
        var changed = false

        fun keep(point: Int) = add(point, 0)

        fun replace(count: Int, made: IntArray) {
            changed = true
            for ((i, point) in made.withIndex()) add(point, if (i < count) 0 else 1)
            if (made.size < count && size > 0) changes[size - 1] += made.size - count
        }

        private fun add(point: Int, change: Int) {
            if (size == points.size) {
                points = points.copyOf(2 * size)
                changes = changes.copyOf(2 * size)
            }
            points[size] = point
            changes[size++] = change
        }

        fun apply(text: Normalized): Normalized {
            val out = Normalized.Builder(size)
            var at = 0
            for (i in 0 until size) {
                val from = if (changes[i] > 0) at - 1 else at
                if (from in 0 until text.size) out.add(points[i], text.starts[from], text.ends[from]) else out.add(points[i], text.origin, text.origin)
                if (changes[i] <= 0) at += 1 - changes[i]
            }
            return out.build(text.origin)
        }
    }

    private companion object {
        const val MOST_GRAPHEME_BYTES = 6
        const val LABEL = (1 shl 31) or 0xFF
    }
}

/** Where a grapheme ends (UAX 29). Pairs that are longer than the map's entries anyway count as two. */
private fun graphemeEnd(text: Normalized, start: Int): Int {
    var end = start + 1
    while (end < text.size && joined(text.points[end - 1], text.points[end])) end++
    return end
}

private fun joined(left: Int, right: Int): Boolean {
    if (left == '\r'.code && right == '\n'.code) return true
    if (Unicode.has(left, Unicode.CONTROL) || Unicode.has(right, Unicode.CONTROL)) return false
    return Unicode.has(right, Unicode.EXTENDS) || Unicode.has(left, Unicode.PREPENDS) || jamo(left, right)
}

/** Whether two parts of a Hangul syllable are one character. */
private fun jamo(left: Int, right: Int): Boolean {
    if (right < 0x1100) return false
    val syllable = left in 0xAC00..0xD7A3
    val open = syllable && (left - 0xAC00) % 28 == 0
    val lead = left in 0x1100..0x115F || left in 0xA960..0xA97C
    val vowel = right in 0x1160..0x11A7 || right in 0xD7B0..0xD7C6
    val trail = right in 0x11A8..0x11FF || right in 0xD7CB..0xD7FB
    if (lead) return vowel || right in 0x1100..0x115F || right in 0xA960..0xA97C || right in 0xAC00..0xD7A3
    if (open || left in 0x1160..0x11A7 || left in 0xD7B0..0xD7C6) return vowel || trail
    return (syllable || left in 0x11A8..0x11FF || left in 0xD7CB..0xD7FB) && trail
}
