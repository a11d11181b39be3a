package org.edgemrl.tokenize

import org.edgemrl.bundle.Part
import org.edgemrl.bundle.preTokenizerParts
import org.edgemrl.bundle.refuseTokenizer

/** Takes a text apart into words. Each word's tokens are made on their own. */
internal fun interface PreTokenizer {
    fun apply(words: List<Normalized>): List<Normalized>
}

/** The steps of tokenizer.json's pre-tokenizer, in order. */
internal fun preTokenizersOf(file: Part): List<PreTokenizer> = preTokenizerParts(file).map { part ->
    when (val kind = part.text("type")) {
        "BertPreTokenizer" -> byClass(alone = Unicode.PUNCTUATION)
        "WhitespaceSplit" -> byClass(alone = 0)
        "Split" -> split(part)
        "Punctuation" -> punctuation(part)
        "ByteLevel" -> byteLevel(part)
        "Metaspace" -> metaspace(part)
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

private fun split(part: Part): PreTokenizer {
    val pattern = Pattern(part["pattern"])
    val behavior = part.text("behavior")
    val invert = part.flag("invert", false)
    return PreTokenizer { words -> words.flatMap { splitBy(it, pattern.matches(it), behavior, invert) } }
}

private fun punctuation(part: Part): PreTokenizer {
    val behavior = if (part.has("behavior")) part.text("behavior") else "Isolated"
    return PreTokenizer { words -> words.flatMap { splitBy(it, places(it) { p -> Unicode.has(p, Unicode.PUNCTUATION) }, behavior, false) } }
}

/** Where single characters of a kind are: start, end, start, end. */
private inline fun places(word: Normalized, kind: (Int) -> Boolean): IntArray {
    val found = ArrayList<Int>()
    for (i in 0 until word.size) {
        if (kind(word.points[i])) {
            found.add(i)
            found.add(i + 1)
        }
    }
    return found.toIntArray()
}

/** GPT-2's pattern, which the library's part of this name has built in. */
private const val GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/** The character that stands for each byte in a vocabulary of GPT-2's kind: printable ones for themselves. */
private val BYTES: IntArray = IntArray(256).also { table ->
    var other = 256
    for (byte in 0..255) {
        val printable = byte in 0x21..0x7E || byte in 0xA1..0xAC || byte in 0xAE..0xFF
        table[byte] = if (printable) byte else other++
    }
}

/** The character that stands for a space in such a vocabulary. */
internal val BYTE_SPACE: Int = BYTES[' '.code]

private fun byteLevel(part: Part): PreTokenizer {
    val prefix = part.flag("add_prefix_space", true)
    val pattern = if (part.flag("use_regex", true)) Pattern(mapOf("Regex" to GPT2)) else null
    val space = Normalized.of(" ")
    return PreTokenizer { words ->
        words.flatMap { word ->
            val whole = if (prefix && word.points[0] != ' '.code) prepended(word, space) else word
            if (pattern == null) listOf(whole) else splitBy(whole, pattern.matches(whole), "Isolated", false)
        }.map { asBytes(it) }
    }
}

private fun asBytes(word: Normalized): Normalized = word.each { i ->
    val point = word.points[i]
    if (point < 0x80) {
        add(BYTES[point], word.starts[i], word.ends[i])
    } else {
        for (byte in String(Character.toChars(point)).toByteArray(Charsets.UTF_8)) {
            add(BYTES[byte.toInt() and 0xFF], word.starts[i], word.ends[i])
        }
    }
}

/** SentencePiece's words: each begins with a mark that stands for the space before it. */
private fun metaspace(part: Part): PreTokenizer {
    val mark = Normalized.of(part.text("replacement"))
    if (mark.size != 1) refuseTokenizer("its mark for spaces is not one character")
    val scheme = if (part.has("prepend_scheme")) part.text("prepend_scheme") else if (part.flag("add_prefix_space", true)) "always" else "never"
    if (scheme !in listOf("always", "first", "never")) refuseTokenizer("its mark for spaces has an unknown scheme")
    val split = part.flag("split", true)
    return PreTokenizer { words ->
        words.flatMap { word ->
            var now = replaced(word, places(word) { it == ' '.code }, mark)
            val wanted = scheme == "always" || (scheme == "first" && word.origin == 0)
            if (wanted && now.points[0] != mark.points[0]) now = prepended(now, mark)
            if (split) splitBy(now, places(now) { it == mark.points[0] }, "MergedWithNext", false) else listOf(now)
        }
    }
}
