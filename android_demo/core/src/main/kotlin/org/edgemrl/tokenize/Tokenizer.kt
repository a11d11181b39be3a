package org.edgemrl.tokenize

import org.edgemrl.bundle.Bundle
import org.edgemrl.bundle.Part
import org.edgemrl.bundle.postProcessorParts
import org.edgemrl.bundle.refuseTokenizer

/**
 * Where the tokens of a text are, without special tokens.
 *
 * @property ids token ids, int32[n].
 * @property starts where each token begins in the text, in code points.
 * @property words the number of each token's word: tokens of one word are neighbours.
 */
public class Places internal constructor(public val ids: IntArray, public val starts: IntArray, public val words: IntArray)

/**
 * A bundle's tokenizer. It gives the ids that the library `tokenizers` gives for the same file, on every
 * device. Safe to share between threads.
 */
public class Tokenizer internal constructor(parsed: Any?, private val maxTokens: Int) {
    private val normalizers: List<Normalizer>
    private val preTokenizers: List<PreTokenizer>
    private val added: AddedTokens
    private val model: Model
    private val before = ArrayList<Int>()
    private val after = ArrayList<Int>()
    private val room: Int
    private val trims = ArrayList<Trim>()

    init {
        val file = Part(parsed, "it")
        normalizers = normalizersOf(file)
        preTokenizers = preTokenizersOf(file)
        model = modelOf(file)
        added = AddedTokens(file, normalizers, model)
        for (part in postProcessorParts(file)) around(part)
        this.room = maxTokens - before.size - after.size
        if (room < 0) refuseTokenizer("it puts more than $maxTokens tokens around a text")
    }

    /**
     * Token ids as the graph gets them: with special tokens, truncated, not padded.
     *
     * @param text any text, prompt included. Half of a character is read as U+FFFD.
     * @return int64[n], n at most the manifest's `max_tokens`.
     */
    public fun ids(text: String): LongArray {
        val tokens = tokens(text)
        tokens.shorten(room)
        val found = LongArray(before.size + tokens.size + after.size)
        for (i in before.indices) found[i] = before[i].toLong()
        for (i in 0 until tokens.size) found[before.size + i] = tokens.ids[i].toLong()
        for (i in after.indices) found[before.size + tokens.size + i] = after[i].toLong()
        return found
    }

    /** The tokens of a text of any length, without special tokens, and where they are. */
    public fun places(text: String): Places {
        val tokens = tokens(text)
        for (trim in trims) trim.apply(tokens)
        return Places(tokens.ids.copyOf(tokens.size), tokens.starts.copyOf(tokens.size), tokens.words.copyOf(tokens.size))
    }

    private fun tokens(text: String): Tokens {
        val found = Tokens()
        var word = 0
        for (piece in added.split(Normalized.of(text), normalizers)) {
            if (piece.id >= 0) {
                found.add(piece.id, start(piece.text), piece.text.ends[piece.text.size - 1], word++)
                continue
            }
            for (one in preTokenizers.fold(listOf(piece.text)) { words, step -> step.apply(words) }) {
                if (one.size > 0) model.tokenize(one, word++, found)
            }
        }
        return found
    }

    /** Where an added token begins: behind the spaces that it took along, where the library takes them off. */
    private fun start(text: Normalized): Int {
        if (trims.isEmpty()) return text.starts[0]
        var count = 0
        while (count < text.size && Unicode.has(text.points[count], Unicode.SPACE)) count++
        return minOf(text.starts[0] + count, text.ends[text.size - 1])
    }

    /** Reads what a post-processor puts around a text. */
    private fun around(part: Part) {
        when (val kind = part.text("type")) {
            "TemplateProcessing" -> {
                val named = part.part("special_tokens")
                var side = before
                for (entry in part.list("single").map { Part(it, "a template") }) {
                    if (entry.has("Sequence")) {
                        side = after
                    } else {
                        val token = Part(named[entry.part("SpecialToken").text("id")], "a special token")
                        side.addAll(token.list("ids").map { (it as? Long ?: refuseTokenizer("a special token has no id")).toInt() })
                    }
                }
            }
            "BertProcessing", "RobertaProcessing" -> {
                before.add(idOf(part.list("cls")))
                after.add(idOf(part.list("sep")))
                if (kind == "RobertaProcessing") trim(part)
            }
            "ByteLevel" -> trim(part)
            else -> unsupported("the post-processor $kind")
        }
    }

    private fun trim(part: Part) {
        if (part.flag("trim_offsets", true)) trims.add(Trim(model, part.flag("add_prefix_space", true)))
    }

    private fun idOf(pair: List<*>): Int = (pair.getOrNull(1) as? Long ?: refuseTokenizer("a special token has no id")).toInt()

    public companion object {
        /**
         * Makes the tokenizer of a bundle.
         *
         * @throws org.edgemrl.TokenizerException if it has a part that this release does not support; the message
         *     names it.
         */
        @JvmStatic
        public fun of(bundle: Bundle): Tokenizer = Tokenizer(bundle.tokenizer, bundle.manifest.maxTokens)
    }
}

/** Moves the starts of tokens behind the spaces that they begin with, as the library's part for bytes does. */
private class Trim(model: Model, private val prefix: Boolean) {
    private val spaces: Map<Int, Int> = model.tokens().mapNotNull { (token, id) ->
        val count = token.takeWhile { it.code == BYTE_SPACE || Unicode.has(it.code, Unicode.SPACE) }.length
        if (count == 0) null else Pair(id, count)
    }.toMap()

    fun apply(tokens: Tokens) {
        for (i in 0 until tokens.size) {
            var count = spaces[tokens.ids[i]] ?: continue
            // What was put before the text has no place in it.
            if (prefix && (i == 0 || tokens.starts[i] == 0)) count--
            tokens.move(i, minOf(tokens.starts[i] + count, tokens.ends[i]))
        }
    }
}
