package org.edgemrl.tokenize

import org.edgemrl.bundle.Part

/**
 * Tokens that are found in a text before it is normalised, or before it is split into words.
 *
 * @property normalized whether the token is looked for in the normalised text.
 */
internal class AddedToken(
    val points: IntArray,
    val id: Int,
    val normalized: Boolean,
    val left: Boolean,
    val right: Boolean,
)

/** A part of a text: an added token's id, or -1 for text between them. */
internal class Piece(val id: Int, val text: Normalized)

/** The added tokens of tokenizer.json. Of several at one place the longest counts. */
internal class AddedTokens(file: Part, normalizers: List<Normalizer>, model: Model) {
    private val raw: Map<Int, List<AddedToken>>
    private val normalized: Map<Int, List<AddedToken>>

    init {
        // Of two with the same text the library keeps the last one.
        val last = LinkedHashMap<String, AddedToken>()
        var highest = -1
        for (entry in (file["added_tokens"] as? List<*>).orEmpty()) {
            val part = Part(entry, "an added token")
            val text = part.text("content")
            // The ids in the file do not count: the library finds or gives them in this way.
            val id = last[text]?.id ?: model.id(text) ?: if (highest >= model.size || model.size == 0) highest + 1 else model.size
            last[text] = read(part, id, normalizers)
            highest = maxOf(highest, id)
        }
        raw = byFirst(last.values.filter { !it.normalized })
        normalized = byFirst(last.values.filter { it.normalized })
    }

    /** Takes a text apart: each piece of text between tokens is normalised. */
    fun split(text: Normalized, normalizers: List<Normalizer>): List<Piece> {
        val found = ArrayList<Piece>()
        for (piece in find(text, raw)) {
            if (piece.id >= 0) {
                found.add(piece)
            } else {
                found.addAll(find(normalizers.fold(piece.text) { now, step -> step.apply(now) }, normalized))
            }
        }
        return found
    }

    private fun read(part: Part, id: Int, normalizers: List<Normalizer>): AddedToken {
        if (part.flag("single_word", false)) unsupported("an added token that is a single word")
        val normalized = part.flag("normalized", !part.flag("special", false))
        var text = Normalized.of(part.text("content"))
        if (normalized) text = normalizers.fold(text) { now, step -> step.apply(now) }
        return AddedToken(
            text.points.copyOf(text.size),
            id,
            normalized,
            part.flag("lstrip", false),
            part.flag("rstrip", false),
        )
    }

    private fun byFirst(tokens: List<AddedToken>): Map<Int, List<AddedToken>> =
        tokens.filter { it.points.isNotEmpty() }.groupBy { it.points[0] }
            .mapValues { (_, same) -> same.sortedByDescending { it.points.size } }

    private fun find(text: Normalized, tokens: Map<Int, List<AddedToken>>): List<Piece> {
        if (tokens.isEmpty()) return if (text.size == 0) emptyList() else listOf(Piece(-1, text))
        val found = ArrayList<Piece>()
        var done = 0
        var at = 0
        while (at < text.size) {
            val token = tokens[text.points[at]]?.firstOrNull { matches(it.points, text, at) }
            if (token == null) {
                at++
                continue
            }
            var start = at
            var end = at + token.points.size
            at = end
            if (token.left) while (start > done && isSpace(text, start - 1)) start--
            if (token.right) while (end < text.size && isSpace(text, end)) end++
            if (start > done) found.add(Piece(-1, text.slice(done, start)))
            found.add(Piece(token.id, text.slice(start, end)))
            done = end
            at = maxOf(at, end)
        }
        if (done == 0) return if (text.size == 0) emptyList() else listOf(Piece(-1, text))
        if (done < text.size) found.add(Piece(-1, text.slice(done, text.size)))
        return found
    }

    private fun isSpace(text: Normalized, at: Int): Boolean = Unicode.has(text.points[at], Unicode.SPACE)

    private fun matches(points: IntArray, text: Normalized, at: Int): Boolean {
        if (at + points.size > text.size) return false
        for (i in points.indices) if (text.points[at + i] != points[i]) return false
        return true
    }
}
