package org.edgemrl.tokenize

import org.edgemrl.bundle.Part
import org.edgemrl.bundle.preTokenizerParts

/** Takes a text apart into words. Each word's tokens are made on their own. */
internal fun interface PreTokenizer {
    fun apply(words: List<Normalized>): List<Normalized>
}

/** The steps of tokenizer.json's pre-tokenizer, in order. */
internal fun preTokenizersOf(file: Part): List<PreTokenizer> = preTokenizerParts(file).map { part ->
    when (val kind = part.text("type")) {
        "BertPreTokenizer" -> byClass(alone = Unicode.PUNCTUATION)
        "WhitespaceSplit" -> byClass(alone = 0)
        else -> unsupported("the pre-tokenizer $kind")
    }
}

/** Splits at white space, which is left out, and around characters that stand alone. */
private fun byClass(alone: Int): PreTokenizer = PreTokenizer { words ->
    val found = ArrayList<Normalized>()
    for (word in words) {
        var start = 0
        for (i in 0 until word.size) {
            val flags = Unicode.flags(word.points[i])
            val single = flags and alone != 0
            if (!single && flags and Unicode.SPACE == 0) continue
            if (i > start) found.add(word.slice(start, i))
            if (single && flags and Unicode.SPACE == 0) found.add(word.slice(i, i + 1))
            start = i + 1
        }
        if (word.size > start) found.add(word.slice(start, word.size))
    }
    found
}
