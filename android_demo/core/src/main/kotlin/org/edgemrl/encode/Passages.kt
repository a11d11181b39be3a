package org.edgemrl.encode

import org.edgemrl.PassageRule
import org.edgemrl.Span
import org.edgemrl.UsageException

/** Longest passage by default, in tokens; and one part in so many of the room that stays free. */
private const val DEFAULT_TOKENS = 254
private const val SLACK = 32

/** By default a passage shares one eighth of its tokens with the one before it. */
private const val OVERLAP = 8

/** A border moves left to the start of its word by at most so many characters. */
private const val WORD_CHARS = 40

/** Characters that are tokenised together. */
private const val BLOCK_CHARS = 20_000

/**
 * Chooses how a new store splits documents: the given values, checked, or values that fit the model.
 *
 * @param maxTokens most tokens in a passage; null for what the model reads, at most 254, less a 32nd.
 * @param overlap tokens that a passage shares with the one before it; null for an eighth of them.
 * @throws UsageException if the model cannot read so many tokens, or the overlap is not below them.
 */
@JvmOverloads
public fun passageRule(encoder: Encoder, maxTokens: Int? = null, overlap: Int? = null): PassageRule {
    val reads = encoder.bundle.manifest.maxTokens
    val room = reads - encoder.ids("").size
    val most = maxTokens ?: Math.max(1, Math.min(room, DEFAULT_TOKENS)).let { it - it / SLACK }
    if (maxTokens != null && maxTokens !in 1..room) {
        throw UsageException("passages of $maxTokens tokens: this bundle reads 1 to $room ($reads with the special tokens)")
    }
    val shared = overlap ?: (most / OVERLAP)
    if (shared !in 0 until most) throw UsageException("an overlap of $shared tokens: expected 0 to ${most - 1}")
    return PassageRule(most, shared)
}

/**
 * Splits a text into passages. A border is at the start of a word if one is near.
 *
 * @return the passages in order; together they cover the text. Empty for a text without tokens.
 * @throws UsageException if the rule's overlap is negative or not below its tokens.
 */
public fun splitPassages(encoder: Encoder, text: String, rule: PassageRule): List<Span> {
    val points = pointsOf(text)
    val spans = spans(encoder, points, rule)
    if (spans.size < 2) return spans
    return spans.map { Span(wordStart(points, it.start), wordStart(points, it.end)) }.filter { it.start < it.end }
}

/** Splits a text by tokens alone, between the tokenizer's words where a word fits into a passage. */
public fun tokenSpans(encoder: Encoder, text: String, rule: PassageRule): List<Span> =
    spans(encoder, pointsOf(text), rule)

private fun spans(encoder: Encoder, text: IntArray, rule: PassageRule): List<Span> {
    val (maxTokens, overlap) = rule
    if (overlap !in 0 until maxTokens) throw UsageException("overlap is $overlap, expected 0 to ${maxTokens - 1} (below maxTokens)")
    val tokens = TokenStarts()
    for ((first, after) in blocks(text)) tokens.add(encoder, text, first, after)
    val found = ArrayList<Span>()
    var first = 0
    var after = 0
    while (after < tokens.size) {
        after = tokens.firstOfWord(first + maxTokens, first)
        val end = if (after < tokens.size) tokens.starts[after] else text.size
        found.add(Span(if (found.isEmpty()) 0 else tokens.starts[first], end))
        first = tokens.firstOfWord(Math.max(after - overlap, first + 1), first)
    }
    return found
}

/** Where the tokens of a text start, and the number of each one's word. */
private class TokenStarts {
    var size = 0
    var starts = IntArray(256)
    private var words = IntArray(256)
    private var count = 0

    fun add(encoder: Encoder, text: IntArray, first: Int, after: Int) {
        val places = encoder.places(String(text, first, after - first))
        val more = places.ids.size
        while (size + more > starts.size) {
            starts = starts.copyOf(2 * starts.size)
            words = words.copyOf(2 * words.size)
        }
        for (i in 0 until more) {
            starts[size + i] = places.starts[i] + first
            words[size + i] = places.words[i] + count
        }
        size += more
        count += if (more == 0) 1 else places.words[more - 1] + 1
    }

    /** The first token of the word that [token] is part of; [token] itself if that is not above [above]. */
    fun firstOfWord(token: Int, above: Int): Int {
        if (token >= size) return size
        var start = token
        while (start > above && start > 0 && words[start] == words[start - 1]) start--
        return if (start > above) start else token
    }
}

/** Parts of a text that are tokenised one by one; each ends in front of a space if there is one. */
private fun blocks(text: IntArray): List<Pair<Int, Int>> {
    val found = ArrayList<Pair<Int, Int>>()
    var first = 0
    while (text.size - first > BLOCK_CHARS) {
        var after = first + BLOCK_CHARS
        while (after > first + BLOCK_CHARS / 2 && !(isSpace(text[after]) && !isSpace(text[after - 1]))) after--
        if (after == first + BLOCK_CHARS / 2) after = first + BLOCK_CHARS // no spaces, as in Chinese
        found.add(Pair(first, after))
        first = after
    }
    found.add(Pair(first, text.size))
    return found
}

/** Where the word at a position starts. Later positions give no earlier starts: order is kept. */
private fun wordStart(text: IntArray, position: Int): Int {
    if (position >= text.size) return position
    for (start in position downTo Math.max(0, position - WORD_CHARS) + 1) if (isSpace(text[start - 1])) return start
    return position
}

/** White space as Python's str.isspace has it. */
private fun isSpace(point: Int): Boolean = when (point) {
    in 0x09..0x0D, in 0x1C..0x20, 0x85, 0xA0, 0x1680, in 0x2000..0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000 -> true
    else -> false
}

/** The texts of passages, whose places are in code points. */
internal fun partsOf(text: String, spans: List<Span>): List<String> {
    val points = pointsOf(text)
    return spans.map { String(points, it.start, it.end - it.start) }
}

private fun pointsOf(text: String): IntArray {
    val found = IntArray(text.codePointCount(0, text.length))
    var at = 0
    for (i in found.indices) {
        val point = text.codePointAt(at)
        found[i] = if (point in 0xD800..0xDFFF) 0xFFFD else point
        at += Character.charCount(point)
    }
    return found
}
