package org.edgemrl.demo.notes

import java.text.BreakIterator
import java.util.Locale
import org.edgemrl.Document
import org.edgemrl.Index
import org.edgemrl.codes.Packing
import org.edgemrl.codes.Scorer

/** The words of a text in lower case, without order. */
internal fun words(text: String): Set<String> =
    text.lowercase(Locale.ROOT).split(NO_WORD).filterTo(HashSet()) { it.isNotEmpty() }

private val NO_WORD = Regex("[^\\p{L}\\p{M}\\p{N}]+")

/** Where the sentences of a part of a text are, whole where the part cuts them; a line's end ends one. Blank ones are left out. */
internal fun sentences(text: String, part: IntRange = text.indices): List<IntRange> {
    val cuts = BreakIterator.getSentenceInstance(Locale.ROOT)
    val found = ArrayList<IntRange>()
    var line = text.lastIndexOf('\n', part.first - 1) + 1
    while (line <= part.last) {
        val newline = text.indexOf('\n', line).let { if (it < 0) text.length else it }
        cuts.setText(text.substring(line, newline))
        var start = cuts.first()
        var end = cuts.next()
        while (end != BreakIterator.DONE) {
            val place = line + start until line + end
            val within = place.first <= part.last && place.last >= part.first
            if (within && text.substring(place).isNotBlank()) found.add(place)
            start = end
            end = cuts.next()
        }
        line = newline + 1
    }
    return found
}

/** The sentence with most of the words, or of their beginnings; the first of those. Null if none has any. */
internal fun bestSentence(text: String, words: Set<String>): IntRange? {
    fun hits(place: IntRange): Int = words(text.substring(place)).let { own -> words.count { word -> own.any { it.startsWith(word) } } }
    return sentences(text).maxByOrNull { hits(it) }?.takeIf { hits(it) > 0 }
}

/**
 * Finds the sentence of a passage whose meaning is nearest to a query. Sentences that were looked at are remembered,
 * since the next letter of a query asks for the same ones.
 */
internal class NearestSentence(private val index: Index) {
    private val known = object : LinkedHashMap<String, ByteArray>(16, 0.75f, true) {
        override fun removeEldestEntry(eldest: Map.Entry<String, ByteArray>) = size > MOST_KNOWN
    }

    /** The nearest one of each passage, given as a text and a part of it; null where there is only one. */
    fun find(query: String, passages: List<Pair<String, IntRange>>): List<IntRange?> = index.withEncoder { encoder ->
        val places = passages.map { (text, part) -> sentences(text, part).take(MOST_SENTENCES) }
        val fresh = passages.indices
            .flatMap { i -> places[i].map { passages[i].first.substring(it) } }
            .filterTo(LinkedHashSet()) { it !in known }
            .mapIndexed { i, text -> Document("$i", text) }
        for (entry in encoder.embed(fresh, index.store.rule, false)) entry.codes.firstOrNull()?.let { known[entry.document.text] = it }
        val scorer = Scorer(encoder.encodeQuery(query).coarse, Packing())
        passages.indices.map { i ->
            places[i].maxByOrNull { place -> known[passages[i].first.substring(place)]?.let { scorer.cosine(it) } ?: -1.0 }
        }
    }

    private companion object {
        const val MOST_KNOWN = 2_000
        const val MOST_SENTENCES = 12
    }
}
