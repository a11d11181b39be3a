package org.edgemrl.tokenize

import org.edgemrl.EncoderException
import org.edgemrl.bundle.Part
import org.edgemrl.bundle.refuseTokenizer

/** How much less an unknown character counts than the least likely token. */
private const val UNKNOWN_PENALTY = 10.0

private fun cannot(): Nothing =
    throw EncoderException("the bundle's tokenizer cannot read this text: it has no token for unknown characters")

/** The likeliest of all ways to make a word of tokens (Kudo, arXiv 1804.10959), by Viterbi's algorithm. */
internal class Unigram(model: Part) : Model {
    private val unknown: Int? = (model["unk_id"] as? Long)?.toInt()
    private val bytes = model.flag("byte_fallback", false)
    private val ids = HashMap<String, Int>()
    private val sorted: Array<String>
    private val scores: DoubleArray
    private val least: Double

    init {
        val entries = model.list("vocab").map { it as? List<*> ?: refuseTokenizer("a token has no score") }
        scores = DoubleArray(entries.size) { i ->
            (entries[i].getOrNull(1) as? Number)?.toDouble() ?: refuseTokenizer("a token has no score")
        }
        for ((id, entry) in entries.withIndex()) ids[entry[0] as String] = id
        sorted = ids.keys.filter { it.isNotEmpty() }.sorted().toTypedArray()
        least = scores.minOrNull() ?: 0.0
    }

    override val size: Int get() = scores.size

    override fun id(token: String): Int? = ids[token]

    override fun tokens(): List<Pair<String, Int>> = ids.toList()

    override fun tokenize(word: Normalized, number: Int, into: Tokens) {
        val text = word.text()
        val path = Path(text.length)
        var start = 0
        while (start < text.length) {
            val single = Character.charCount(text.codePointAt(start))
            var alone = false
            each(text, start) { end ->
                val id = ids.getValue(text.substring(start, end))
                path.offer(start, end, id, scores[id])
                if (end - start == single) alone = true
            }
            if (!alone) {
                path.offer(start, start + single, unknown ?: cannot(), least - UNKNOWN_PENALTY)
            }
            start += single
        }
        pieces(path, text, word, number, into)
    }

    /** Tokens that a text has at a place, shortest first. */
    private inline fun each(text: String, start: Int, step: (Int) -> Unit) {
        var low = 0
        var high = sorted.size
        var end = start
        while (end < text.length) {
            val depth = end - start
            low = bound(low, high, depth, text[end].code)
            high = bound(low, high, depth, text[end].code + 1)
            end++
            if (low >= high) return
            if (sorted[low].length == depth + 1) step(end)
        }
    }

    /** The first of some tokens whose character at a depth is not below [least]. */
    private fun bound(from: Int, to: Int, depth: Int, least: Int): Int {
        var low = from
        var high = to
        while (low < high) {
            val middle = (low + high) ushr 1
            val token = sorted[middle]
            if (token.length <= depth || token[depth].code < least) low = middle + 1 else high = middle
        }
        return low
    }

    /** Walks the best path from its end; unknown characters side by side are one token. */
    private fun pieces(path: Path, text: String, word: Normalized, number: Int, into: Tokens) {
        val borders = ArrayList<Int>()
        var end = text.length
        var fused = false
        borders.add(end)
        while (end > 0) {
            val isUnknown = path.ids[end] == unknown
            if (isUnknown && fused) borders.removeAt(borders.size - 1)
            fused = isUnknown
            end = path.starts[end]
            borders.add(end)
        }
        var point = 0
        for (i in borders.size - 1 downTo 1) {
            val piece = text.substring(borders[i], borders[i - 1])
            val last = point + piece.codePointCount(0, piece.length)
            add(piece, word.starts[point], word.ends[last - 1], number, into)
            point = last
        }
    }

    private fun add(piece: String, start: Int, end: Int, number: Int, into: Tokens) {
        val known = ids[piece]
        if (known != null) return into.add(known, start, end, number)
        if (bytes) {
            val parts = piece.toByteArray(Charsets.UTF_8).map { ids[String.format(java.util.Locale.ROOT, "<0x%02X>", it)] }
            if (parts.all { it != null }) {
                for (part in parts) into.add(part!!, start, end, number)
                return
            }
        }
        into.add(unknown ?: cannot(), start, end, number)
    }

    /** For each place of a text, the best way to get there. */
    private class Path(size: Int) {
        val starts = IntArray(size + 1) { -1 }
        val ids = IntArray(size + 1)
        private val scores = DoubleArray(size + 1)

        fun offer(start: Int, end: Int, id: Int, score: Double) {
            val sum = score + scores[start]
            if (starts[end] >= 0 && !(sum > scores[end])) return
            starts[end] = start
            ids[end] = id
            scores[end] = sum
        }
    }
}
