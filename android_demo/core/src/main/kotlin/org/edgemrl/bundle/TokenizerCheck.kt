package org.edgemrl.bundle

import java.math.BigInteger
import org.edgemrl.TokenizerException

private const val MOST_TOKENS = 4_000_000
private const val MOST_TOKEN_CHARS = 4_000
private const val MOST_ADDED = 100_000
private const val MOST_PARTS = 64
private const val MOST_WORD_CHARS = 1_000L
private const val MOST_GROWTH = 64.0
private const val MOST_REPLACEMENT_BYTES = 256
private val NORMALIZERS = setOf(
    "BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend",
    "Replace", "Strip", "StripAccents",
)
private val PRE_TOKENIZERS = setOf(
    "BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "FixedLength", "Metaspace", "Punctuation",
    "Split", "UnicodeScripts", "Whitespace", "WhitespaceSplit",
)
private val POST_PROCESSORS = setOf("BertProcessing", "ByteLevel", "RobertaProcessing", "TemplateProcessing")
private val DECODERS = setOf(
    "BPEDecoder", "ByteFallback", "ByteLevel", "CTC", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece",
)
private val MODELS = setOf("BPE", "Unigram", "WordLevel", "WordPiece")
private val LISTED = listOf("normalizers", "pretokenizers", "processors", "decoders")

internal fun refuseTokenizer(what: String): Nothing =
    throw TokenizerException("tokenizer.json cannot be opened: $what; export the model again")

/** A JSON object within tokenizer.json, whose values are taken out with their types checked. */
internal class Part(value: Any?, private val what: String = "a part") {
    val values: Map<*, *> = value as? Map<*, *> ?: refuseTokenizer("$what is no object")

    operator fun get(key: String): Any? = values[key]

    fun has(key: String): Boolean = key in values

    fun text(key: String): String = values[key] as? String ?: wrong(key)

    fun list(key: String): List<*> = values[key] as? List<*> ?: wrong(key)

    fun part(key: String): Part = Part(values[key], key)

    fun whole(key: String, otherwise: Long? = null): Long =
        if (otherwise != null && key !in values) otherwise else wholeOf(values[key]) ?: wrong(key)

    fun flag(key: String, otherwise: Boolean): Boolean =
        if (key !in values) otherwise else values[key] as? Boolean ?: wrong(key)

    private fun wrong(key: String): Nothing = refuseTokenizer("$what is not what it should be: $key is ${brief(values[key], 60)}")
}

/** A whole number; beyond int64 the outermost one. */
private fun wholeOf(value: Any?): Long? = when (value) {
    is Long -> value
    is BigInteger -> if (value.signum() < 0) Long.MIN_VALUE else Long.MAX_VALUE
    else -> null
}

/**
 * Checks a tokenizer's parsed file part by part, as edge_mrl/bundle/tokens.py does, before anything of it
 * is used: no text may hang it or use up the memory.
 *
 * @param maxTokens the longest input of the bundle, in tokens, special tokens included.
 * @throws TokenizerException if it has a part that is not known, or one that could do harm.
 */
internal fun checkTokenizer(parsed: Any?, maxTokens: Int) {
    val file = Part(parsed, "it")
    checkNormalizers(file["normalizer"])
    for (part in parts(file["pre_tokenizer"], PRE_TOKENIZERS, "pre-tokenizer")) {
        if (part["type"] == "Split") checkPatternOf(part["pattern"])
        if (part["type"] == "FixedLength" && part.whole("length", 5) !in 1..MOST_TOKEN_CHARS) refuseTokenizer("its pieces have no length")
    }
    for (part in parts(file["decoder"], DECODERS, "decoder")) {
        if (part["type"] == "Replace") checkPatternOf(part["pattern"])
    }
    checkSpecial(file["post_processor"], maxTokens)
    if (file["added_tokens"] != null) checkAdded(file.list("added_tokens"))
    checkModel(file.part("model"))
}

/** The parts of a component, one by one; sequences are taken apart. */
internal fun parts(value: Any?, known: Set<String>, what: String): List<Part> {
    val waiting = ArrayList<Any?>()
    if (value != null) waiting.add(value)
    val found = ArrayList<Part>()
    var seen = 0
    while (waiting.isNotEmpty()) {
        val part = Part(waiting.removeAt(0), "a $what")
        if (++seen > MOST_PARTS) refuseTokenizer("it has more than $MOST_PARTS parts of the kind $what")
        val kind = part.text("type")
        if (kind == "Sequence") {
            waiting.addAll(0, LISTED.filter { part.has(it) }.flatMap { part.list(it) })
        } else if (kind in known) {
            found.add(part)
        } else {
            refuseTokenizer("it has the $what ${brief(kind, 60)}, which is not known here")
        }
    }
    return found
}

internal fun normalizerParts(file: Part): List<Part> = parts(file["normalizer"], NORMALIZERS, "normalizer")

internal fun preTokenizerParts(file: Part): List<Part> = parts(file["pre_tokenizer"], PRE_TOKENIZERS, "pre-tokenizer")

internal fun postProcessorParts(file: Part): List<Part> = parts(file["post_processor"], POST_PROCESSORS, "post-processor")

/** Checks a pattern; the characters of its shortest match. */
private fun checkPatternOf(value: Any?): Int {
    val entry = Part(value, "a pattern").values.entries.singleOrNull()
    val text = entry?.value as? String
    if (entry == null || text.isNullOrEmpty() || entry.key !in listOf("String", "Regex")) {
        refuseTokenizer("it has a pattern of an unknown kind, or an empty one")
    }
    return if (entry.key == "String") points(text) else checkPattern(text)
}

private fun checkNormalizers(value: Any?) {
    var growth = 1.0
    for (part in parts(value, NORMALIZERS, "normalizer")) {
        when (part["type"]) {
            "Replace" -> growth *= maxOf(1.0, points(part.text("content")).toDouble() / checkPatternOf(part["pattern"]))
            "Prepend" -> points(part.text("prepend")).let { if (it > MOST_GROWTH) growth += it }
            "Precompiled" -> if (part["precompiled_charsmap"] != null) {
                checkMap(decodeBase64(part.text("precompiled_charsmap")) ?: refuseTokenizer("its map of characters is no base64"))
            }
        }
    }
    if (growth > MOST_GROWTH) refuseTokenizer("its normalizers can make a text ${growth.toLong()} times as long")
}

/** Checks SentencePiece's map of characters: a trie's size, the trie, and texts that end with NUL. */
private fun checkMap(data: ByteArray) {
    if (data.isEmpty()) return
    if (data.size < 4) refuseTokenizer("its map of characters is cut short")
    var size = 0L
    for (i in 3 downTo 0) size = size shl 8 or (data[i].toLong() and 0xFF)
    if (size % 4 != 0L || 4 + size > data.size) refuseTokenizer("its map of characters is cut short")
    var length = 0
    for (i in (4 + size).toInt() until data.size) {
        length = if (data[i] == 0.toByte()) 0 else length + 1
        if (length > MOST_REPLACEMENT_BYTES) refuseTokenizer("its map of characters makes a text much longer")
    }
}

/** Checks what is put around a text: few tokens, fewer than the model reads. */
private fun checkSpecial(value: Any?, maxTokens: Int) {
    var around = 0
    for (part in parts(value, POST_PROCESSORS, "post-processor")) {
        if (part["type"] == "BertProcessing" || part["type"] == "RobertaProcessing") around += 2
        if (part["type"] != "TemplateProcessing") continue
        val named = part.part("special_tokens")
        val single = part.list("single").map { Part(it, "a template") }
        val pair = part.list("pair").map { Part(it, "a template") }
        around += named.values.values.sumOf { Part(it, "a special token").list("ids").size } + single.size
        if (single.count { it.has("Sequence") } != 1 || pair.size > MOST_PARTS) refuseTokenizer("its template does not have the text once")
        val used = (single + pair).filter { it.has("SpecialToken") }.map { it.part("SpecialToken").text("id") }
        if (!used.all { named.has(it) }) refuseTokenizer("its template has a token that it does not explain")
    }
    if (around > MOST_PARTS || (around > 0 && around - 1 >= maxTokens + MOST_PARTS)) {
        refuseTokenizer("it puts up to $around tokens around a text")
    }
}

private fun checkAdded(tokens: List<*>) {
    if (tokens.size > MOST_ADDED) refuseTokenizer("it has ${tokens.size} added tokens, expected at most $MOST_ADDED")
    for (token in tokens) {
        val part = Part(token, "an added token")
        if (points(part.text("content")) !in 1..MOST_TOKEN_CHARS) {
            refuseTokenizer("a token is empty, or longer than $MOST_TOKEN_CHARS characters")
        }
        checkId(part["id"])
    }
}

private fun checkId(value: Any?) {
    if ((value as? Long ?: -1) !in 0..Int.MAX_VALUE) refuseTokenizer("a token has the id ${brief(value, 60)}")
}

private fun checkModel(model: Part) {
    val kind = model.text("type")
    if (kind !in MODELS) refuseTokenizer("its model is ${brief(kind, 60)}, expected one of ${MODELS.sorted().joinToString()}")
    val vocabulary = model["vocab"]
    val size = (vocabulary as? Map<*, *>)?.size ?: (vocabulary as? List<*>)?.size
        ?: refuseTokenizer("it has no vocabulary")
    if (size > MOST_TOKENS) refuseTokenizer("it has $size tokens, expected at most $MOST_TOKENS")
    if ((vocabulary is Map<*, *>) == (kind == "Unigram")) refuseTokenizer("its vocabulary is of another model")
    val tokens = if (vocabulary is Map<*, *>) vocabulary.keys else (vocabulary as List<*>).map { (it as? List<*>)?.firstOrNull() }
    for (token in tokens) {
        val length = points(token as? String ?: refuseTokenizer("a token is no text"))
        if (length > MOST_TOKEN_CHARS) refuseTokenizer("a token has $length characters, expected at most $MOST_TOKEN_CHARS")
    }
    if (vocabulary is Map<*, *>) for (id in vocabulary.values) checkId(id)
    when (kind) {
        "WordPiece" -> {
            val most = model.whole("max_input_chars_per_word", 100)
            if (most !in 1..MOST_WORD_CHARS) refuseTokenizer("words may have $most characters")
            checkUnknown(model)
        }
        "WordLevel" -> checkUnknown(model)
        "BPE" -> {
            val dropout = model["dropout"]
            if (dropout != null && dropout != 0L && dropout != 0.0 && dropout != false) {
                refuseTokenizer("it gives other tokens each time (dropout)")
            }
            if (model.list("merges").size > MOST_TOKENS) refuseTokenizer("it has too many merges, expected at most $MOST_TOKENS")
        }
        "Unigram" -> if (model["unk_id"] != null && model.whole("unk_id") !in 0 until size) {
            refuseTokenizer("its token for unknown characters is not in its vocabulary")
        }
    }
}

private fun checkUnknown(model: Part) {
    if (!model.part("vocab").has(model.text("unk_token"))) refuseTokenizer("its token for unknown words is not in its vocabulary")
}
