package org.edgemrl.tokenize

import org.edgemrl.bundle.Part
import org.edgemrl.bundle.normalizerParts
import org.edgemrl.bundle.refuseTokenizer

/** The steps of tokenizer.json's normalizer, in order. */
internal fun normalizersOf(file: Part): List<Normalizer> = normalizerParts(file).map { part ->
    when (val kind = part.text("type")) {
        "BertNormalizer" -> bert(part)
        "Lowercase" -> Normalizer(::lowercase)
        "NFD" -> Normalizer { decompose(it, false) }
        "NFKD" -> Normalizer { decompose(it, true) }
        "NFC" -> Normalizer { compose(decompose(it, false)) }
        "NFKC" -> Normalizer { compose(decompose(it, true)) }
        "StripAccents" -> Normalizer { without(it, Unicode.COMBINING) }
        "Replace" -> replacing(part)
        "Precompiled" -> CharacterMap(part)
        "Prepend" -> Normalized.of(part.text("prepend")).let { before -> Normalizer { prepended(it, before) } }
        "Strip" -> {
            val left = part.flag("strip_left", true)
            val right = part.flag("strip_right", true)
            Normalizer { stripped(it, left, right) }
        }
        else -> unsupported("the normalizer $kind")
    }
}

/** Refuses a part that bundles may have and this release does not have. */
internal fun unsupported(what: String): Nothing =
    refuseTokenizer("it has $what, which the core in Kotlin does not support yet")

private fun bert(part: Part): Normalizer {
    val clean = part.flag("clean_text", true)
    val apart = part.flag("handle_chinese_chars", true)
    val lower = part.flag("lowercase", true)
    val strip = if (part["strip_accents"] == null) lower else part.flag("strip_accents", false)
    return Normalizer { text ->
        var now = text
        if (clean) now = cleaned(now)
        if (apart) now = spaced(now)
        if (strip) now = without(decompose(now, false), Unicode.MARK)
        if (lower) now = lowercase(now)
        now
    }
}

private fun cleaned(text: Normalized): Normalized = text.each { i ->
    val flags = Unicode.flags(text.points[i])
    if (flags and Unicode.REMOVED == 0) {
        add(if (flags and Unicode.BLANK != 0) ' '.code else text.points[i], text.starts[i], text.ends[i])
    }
}

/** Puts spaces around ideographs, each of which is a word. */
private fun spaced(text: Normalized): Normalized = text.each { i ->
    val apart = Unicode.has(text.points[i], Unicode.IDEOGRAPH)
    if (apart) add(' '.code, text.starts[i], text.ends[i])
    add(text.points[i], text.starts[i], text.ends[i])
    if (apart) add(' '.code, text.starts[i], text.ends[i])
}

private fun without(text: Normalized, flags: Int): Normalized = text.each { i ->
    if (!Unicode.has(text.points[i], flags)) add(text.points[i], text.starts[i], text.ends[i])
}

private fun lowercase(text: Normalized): Normalized = text.each { i ->
    val lower = Unicode.lower(text.points[i])
    if (lower == null) {
        add(text.points[i], text.starts[i], text.ends[i])
    } else {
        for (point in lower) add(point, text.starts[i], text.ends[i])
    }
}
