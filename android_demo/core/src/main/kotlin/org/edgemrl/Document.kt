package org.edgemrl

import java.util.Locale

/**
 * A text with a name.
 *
 * @property id unique in a store; not empty, without NUL. A document replaces the one of its id.
 * @property metadata anything JSON can carry, by name, within the limits of FORMAT.md ("Wire").
 * @property source the file it was read from; null if it was not. Documents are equal without it.
 * @throws UsageException if the id is empty, or has NUL or a lone surrogate.
 */
public class Document(
    public val id: String,
    text: String,
    public val metadata: Map<String, Any?> = emptyMap(),
    public val source: String? = null,
) {
    /** The text; lone surrogates, which UTF-8 cannot carry, are U+FFFD. */
    public val text: String = clean(text)

    init {
        idProblem(id)?.let { throw UsageException("document id ${shorten(id)}: $it") }
    }

    override fun equals(other: Any?): Boolean =
        other is Document && id == other.id && text == other.text && metadata == other.metadata

    override fun hashCode(): Int = 31 * id.hashCode() + text.hashCode()

    override fun toString(): String = "Document(${shorten(id)}, ${shorten(text)})"
}

/**
 * How documents are split into passages. A store keeps one rule, so that all its passages compare.
 *
 * @property maxTokens most tokens in a passage, special tokens and prompt not counted.
 * @property overlap tokens that a passage shares with the one before it.
 * @property splitter `tokens`, or what another program splits Markdown by; such documents are not put here.
 */
public data class PassageRule(public val maxTokens: Int, public val overlap: Int, public val splitter: String = BY_TOKENS)

/** The splitter of all documents of this library's stores. */
internal const val BY_TOKENS: String = "tokens"

/** Whether a document is Markdown, by its id. */
internal fun isMarkdown(id: String): Boolean = id.lowercase(Locale.ROOT).let { it.endsWith(".md") || it.endsWith(".markdown") }

/** A passage's place in its text, in code points; the end is exclusive. */
public data class Span(public val start: Int, public val end: Int)

/** The text with lone surrogates as U+FFFD; its length in code points stays the same. */
internal fun clean(text: String): String {
    if (surrogate(text) < 0) return text
    val out = StringBuilder(text)
    var at = surrogate(out)
    while (at >= 0) {
        out.setCharAt(at, '\ufffd')
        at = surrogate(out, at + 1)
    }
    return out.toString()
}

/** The first lone surrogate of a text from a place on, or -1. */
private fun surrogate(text: CharSequence, from: Int = 0): Int {
    var i = from
    while (i < text.length) {
        val c = text[i]
        if (Character.isSurrogate(c)) {
            if (!Character.isHighSurrogate(c) || i + 1 >= text.length || !Character.isLowSurrogate(text[i + 1])) return i
            i++
        }
        i++
    }
    return -1
}

/** Why a text cannot be a name or a value, in words; null if it can. */
internal fun textProblem(text: String): String? {
    val nul = text.indexOf('\u0000')
    val lone = surrogate(text)
    if (nul < 0 && lone < 0) return null
    val first = nul >= 0 && (lone < 0 || nul < lone)
    val at = text.codePointCount(0, if (first) nul else lone)
    return "${shorten(text)} has ${if (first) "NUL" else "a lone surrogate"} at $at, expected Unicode text without NUL"
}

/** Why a text cannot be a document's id, in words; null if it can. */
internal fun idProblem(id: String): String? = if (id.isEmpty()) "it is empty, expected text" else textProblem(id)

/** A value in a message: its beginning and end. */
internal fun shorten(value: Any?): String {
    if (value !is String) return value.toString().let { if (it.length <= 60) it else it.take(28) + "..." + it.takeLast(29) }
    val text = if (value.length <= 58) value else value.take(28) + "..." + value.takeLast(27)
    return "'$text'"
}

/** Orders texts by code point, as Python and SQLite do; `compareTo` orders by UTF-16 units. */
internal object ByCodePoint : Comparator<String> {
    override fun compare(a: String, b: String): Int {
        var i = 0
        while (i < a.length && i < b.length) {
            val x = a[i]
            val y = b[i]
            if (x != y) {
                // Surrogates stand for the planes above, which come last.
                if (Character.isSurrogate(x) != Character.isSurrogate(y)) return if (Character.isSurrogate(x)) 1 else -1
                return x.compareTo(y)
            }
            i++
        }
        return a.length.compareTo(b.length)
    }
}
