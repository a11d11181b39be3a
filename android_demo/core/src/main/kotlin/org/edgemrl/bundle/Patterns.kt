package org.edgemrl.bundle

import org.edgemrl.TokenizerException

private const val MOST_CHARS = 4000
private const val MOST_ALTERNATIVES = 100

/** Most repetitions of a bounded repetition, and most of such repetitions before something that can fail. */
private const val MOST_TIMES = 16
private const val MOST_VARYING = 2
private const val CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
private const val UPPER = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
private const val LOWER = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
private const val BEFORE = "[^\\r\\n\\p{L}\\p{N}]?"

/** Alternatives of GPT-2, of GPT-4 (also Llama 3, Qwen) and of GPT-4o, which are fast for other reasons. */
private val KNOWN: Set<String> = buildSet {
    addAll(listOf("\\s+(?!\\S)", "\\s*[\\r\\n]+", "\\s*[\\r\\n]"))
    for (end in listOf("", "$CONTRACTIONS?")) {
        add("$BEFORE$UPPER*$LOWER+$end")
        add("$BEFORE$UPPER+$LOWER*$end")
    }
}

// Android's \w, \s and \d know Unicode and a desktop's do not: classes are written out.
private const val CLASS = "\\[(?:\\\\.|[^\\[\\]\\\\]|\\[(?:\\\\.|[^\\[\\]\\\\])*\\])+\\]"
private const val ESCAPE =
    "\\\\(?:[pP]\\{\\^?[0-9A-Za-z_]{1,40}\\}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[sSdDwWrntfv]|[!-/:-@\\[-^`{-~]|[ ])"
private val ATOM = java.util.regex.Pattern.compile("$CLASS|$ESCAPE|[^\\\\()\\[\\]{}*+?^$|]", java.util.regex.Pattern.DOTALL)
private val TIMES = java.util.regex.Pattern.compile("([*+?])|\\{([0-9]{1,4})(,?)([0-9]{0,4})\\}")
private val GROUP = java.util.regex.Pattern.compile("\\((?:\\?:|\\?i:)?")
private val BEHAVES_OTHERWISE = Regex("&&|\\[:")

/** A part of an alternative: how many characters it takes at least, and at most (null: no limit). */
private class Step(val least: Int, val most: Int?)

/**
 * Checks a tokenizer's regular expression, in the syntax of Oniguruma: accepted is what no text can make
 * slow, as edge_mrl/bundle/patterns.py describes it.
 *
 * @return characters of its shortest match, at least 1.
 * @throws TokenizerException if a text could make it slow, or it matches nothing at all, everywhere.
 */
internal fun checkPattern(pattern: String): Int {
    if (points(pattern) > MOST_CHARS || BEHAVES_OTHERWISE.containsMatchIn(pattern)) refused(pattern)
    val alternatives = splitAlternatives(pattern)
    if (alternatives.size > MOST_ALTERNATIVES) refused(pattern)
    return alternatives.minOf { if (it in KNOWN) 1 else shortest(it, pattern) }
}

private fun refused(pattern: String): Nothing = throw TokenizerException(
    "tokenizer.json cannot be opened: a text could make the pattern '${brief(pattern, 120)}' very slow, or it is of " +
        "a kind that is not known here; use a tokenizer with a simpler one",
)

/** Where a match at a place ends, or -1. */
private fun java.util.regex.Pattern.end(text: String, at: Int): Int {
    val matcher = matcher(text).region(at, text.length)
    return if (matcher.lookingAt()) matcher.end() else -1
}

/** The alternatives outside of groups and classes. */
internal fun splitAlternatives(pattern: String): List<String> {
    val found = ArrayList<String>()
    var start = 0
    var at = 0
    var depth = 0
    while (at < pattern.length) {
        val end = ATOM.end(pattern, at)
        if (end >= 0) {
            at = end
            continue
        }
        when (pattern[at]) {
            '(' -> depth++
            ')' -> depth--
            '|' -> if (depth == 0) {
                found.add(pattern.substring(start, at))
                start = at + 1
            }
        }
        at++
    }
    found.add(pattern.substring(start))
    return found
}

private fun shortest(part: String, pattern: String): Int {
    val steps = steps(part.removePrefix("^"), pattern)
    val least = steps.sumOf { it.least }
    var varying = 0
    for ((place, step) in steps.withIndex()) {
        val canFail = steps.drop(place + 1).any { it.least > 0 }
        if (step.most == null && canFail) refused(pattern)
        if (step.most != step.least && canFail) varying++
    }
    if (least == 0 || varying > MOST_VARYING) refused(pattern)
    return least
}

private fun steps(part: String, pattern: String): List<Step> {
    val found = ArrayList<Step>()
    var at = 0
    while (at < part.length) {
        val atom = ATOM.end(part, at)
        var least = 1
        var most = 1
        if (atom >= 0) {
            at = atom
        } else {
            val group = group(part, at, pattern)
            least = group[0]
            most = group[1]
            at = group[2]
        }
        val times = TIMES.matcher(part).region(at, part.length)
        if (!times.lookingAt()) {
            found.add(Step(least, most))
            continue
        }
        at = times.end()
        val (low, high) = bounds(times, pattern)
        if (atom < 0 && !(low == 0 && high == 1)) refused(pattern)
        found.add(Step(low * least, if (high == null) null else high * most))
    }
    return found
}

private fun bounds(times: java.util.regex.Matcher, pattern: String): Pair<Int, Int?> {
    when (times.group(1)) {
        "*" -> return Pair(0, null)
        "+" -> return Pair(1, null)
        "?" -> return Pair(0, 1)
    }
    val low = times.group(2).toInt()
    val high = if (times.group(3).isEmpty()) low else times.group(4).toIntOrNull()
    if (maxOf(low, high ?: 0) > MOST_TIMES || (high != null && high < low)) refused(pattern)
    return Pair(low, high)
}

/** A group of alternatives of single characters: least and most characters, and where it ends. */
private fun group(part: String, start: Int, pattern: String): IntArray {
    var at = GROUP.end(part, start)
    if (at < 0) refused(pattern)
    val lengths = ArrayList<Int>()
    var length = 0
    while (true) {
        val atom = ATOM.end(part, at)
        if (atom >= 0) {
            length++
            at = atom
            continue
        }
        val next = part.getOrNull(at)
        if (next != '|' && next != ')') refused(pattern)
        lengths.add(length)
        length = 0
        at++
        if (next == ')') return intArrayOf(lengths.min(), lengths.max(), at)
    }
}
