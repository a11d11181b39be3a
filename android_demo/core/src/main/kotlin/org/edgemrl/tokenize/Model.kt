package org.edgemrl.tokenize

import org.edgemrl.bundle.Part
import org.edgemrl.bundle.refuseTokenizer

/** Tokens of a text: ids, and of each the place in the text and the number of its word. */
internal class Tokens(capacity: Int = 64) {
    var size = 0
        private set
    var ids = IntArray(capacity)
        private set
    var starts = IntArray(capacity)
        private set
    var ends = IntArray(capacity)
        private set
    var words = IntArray(capacity)
        private set

    fun add(id: Int, start: Int, end: Int, word: Int) {
        if (size == ids.size) {
            ids = ids.copyOf(2 * size)
            starts = starts.copyOf(2 * size)
            ends = ends.copyOf(2 * size)
            words = words.copyOf(2 * size)
        }
        ids[size] = id
        starts[size] = start
        ends[size] = end
        words[size++] = word
    }

    /** Moves a token's start. */
    fun move(token: Int, start: Int) {
        starts[token] = start
    }

    /** Takes tokens back, so that so many are left. */
    fun shorten(count: Int) {
        size = minOf(size, count)
    }
}

/** Makes tokens of one word. */
internal interface Model {
    /** Number of tokens in its vocabulary. */
    val size: Int

    /** The id of a token of its vocabulary. */
    fun id(token: String): Int?

    /** All tokens of its vocabulary, with their ids. */
    fun tokens(): List<Pair<String, Int>>

    fun tokenize(word: Normalized, number: Int, into: Tokens)
}

/** The model of tokenizer.json. */
internal fun modelOf(file: Part): Model {
    val model = file.part("model")
    return when (val kind = model.text("type")) {
        "WordPiece" -> WordPiece(model)
        "BPE" -> Bpe(model)
        "Unigram" -> Unigram(model)
        else -> unsupported("the model $kind")
    }
}

/** Ids by token. */
internal fun vocabularyOf(model: Part): Map<String, Int> {
    val found = HashMap<String, Int>()
    for ((token, id) in model.part("vocab").values) found[token as String] = (id as Long).toInt()
    return found
}

/** Longest pieces first, from the left; a word that is not made of pieces is one unknown token. */
internal class WordPiece(model: Part) : Model {
    private val first = vocabularyOf(model)
    private val later = HashMap<String, Int>()
    private val unknown = first[model.text("unk_token")] ?: refuseTokenizer("its token for unknown words is not in its vocabulary")
    private val mostChars = model.whole("max_input_chars_per_word", 100).toInt()
    private val longest: Int

    init {
        val prefix = if (model.has("continuing_subword_prefix")) model.text("continuing_subword_prefix") else "##"
        for ((token, id) in first) if (token.startsWith(prefix)) later[token.substring(prefix.length)] = id
        longest = first.keys.maxOf { it.length }
    }

    override val size: Int get() = first.size

    override fun id(token: String): Int? = first[token]

    override fun tokens(): List<Pair<String, Int>> = first.toList()

    override fun tokenize(word: Normalized, number: Int, into: Tokens) {
        val kept = into.size
        if (word.size > mostChars) return unknown(word, number, into)
        val text = word.text()
        var at = 0 // in UTF-16 units
        var point = 0
        while (at < text.length) {
            val vocabulary = if (at == 0) first else later
            var end = minOf(text.length, at + longest)
            var id: Int? = null
            while (end > at) {
                id = vocabulary[text.substring(at, end)]
                if (id != null) break
                end--
            }
            if (id == null) {
                into.shorten(kept)
                return unknown(word, number, into)
            }
            val last = point + text.codePointCount(at, end)
            into.add(id, word.starts[point], word.ends[last - 1], number)
            at = end
            point = last
        }
    }

    private fun unknown(word: Normalized, number: Int, into: Tokens) =
        into.add(unknown, word.starts[0], word.ends[word.size - 1], number)
}
