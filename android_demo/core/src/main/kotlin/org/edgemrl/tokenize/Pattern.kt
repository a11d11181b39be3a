package org.edgemrl.tokenize

import org.edgemrl.bundle.Part
import org.edgemrl.bundle.brief
import org.edgemrl.bundle.refuseTokenizer
import org.edgemrl.bundle.splitAlternatives

/** A set of characters. */
internal fun interface Chars {
    fun has(point: Int): Boolean
}

/**
 * Finds the places of a text that a tokenizer's pattern matches: a text, or a regular expression of the kind
 * that `checkPattern` lets through. Android's own expressions use the tables of its version.
 */
internal class Pattern(value: Any?) {
    private val alternatives: List<List<Step>>

    init {
        val (kind, text) = Part(value, "a pattern").values.entries.single()
        alternatives = if (kind == "String") {
            listOf(points(text as String).map { one -> Step(listOf(listOf(Chars { it == one })), 1, 1) })
        } else {
            splitAlternatives(text as String).map { Parser(it).sequence() }
        }
    }

    /** Where matches begin and end, in order: start, end, start, end. */
    fun matches(text: Normalized): IntArray {
        var found = IntArray(32)
        var size = 0
        var at = 0
        while (at < text.size) {
            val end = end(text, at)
            if (end <= at) {
                at++
                continue
            }
            if (size == found.size) found = found.copyOf(2 * size)
            found[size++] = at
            found[size++] = end
            at = end
        }
        return found.copyOf(size)
    }

    private fun end(text: Normalized, at: Int): Int {
        for (steps in alternatives) {
            val end = match(steps, 0, text, at)
            if (end >= 0) return end
        }
        return -1
    }

    private fun match(steps: List<Step>, number: Int, text: Normalized, at: Int): Int {
        if (number == steps.size) return at
        val step = steps[number]
        if (step.start) return if (at == 0) match(steps, number + 1, text, at) else -1
        if (step.ahead) {
            val other = at < text.size && step.choices[0][0].has(text.points[at])
            return if (other) -1 else match(steps, number + 1, text, at)
        }
        if (step.choices.size == 1 && step.choices[0].size == 1) return repeated(steps, number, text, at)
        for (choice in step.choices) {
            if (at + choice.size > text.size || !choice.indices.all { choice[it].has(text.points[at + it]) }) continue
            val end = match(steps, number + 1, text, at + choice.size)
            if (end >= 0) return end
        }
        return if (step.least == 0) match(steps, number + 1, text, at) else -1
    }

    private fun repeated(steps: List<Step>, number: Int, text: Normalized, at: Int): Int {
        val step = steps[number]
        val set = step.choices[0][0]
        var end = at
        while (end < text.size && end - at < step.most && set.has(text.points[end])) end++
        while (end - at >= step.least) {
            val found = match(steps, number + 1, text, end)
            if (found >= 0) return found
            end--
        }
        return -1
    }
}

/** A part of an alternative: one of several sequences of characters, so many times. */
private class Step(
    val choices: List<List<Chars>>,
    val least: Int,
    val most: Int,
    val ahead: Boolean = false,
    val start: Boolean = false,
)

private fun points(text: String): List<Int> {
    val found = ArrayList<Int>()
    var at = 0
    while (at < text.length) {
        found.add(text.codePointAt(at))
        at += Character.charCount(found.last())
    }
    return found
}

private val PROPERTIES = mapOf(
    "L" to Unicode.L, "Lu" to Unicode.LU, "Ll" to Unicode.LL, "Lt" to Unicode.LT, "Lm" to Unicode.LM, "Lo" to Unicode.LO,
    "M" to Unicode.M, "N" to Unicode.N, "P" to Unicode.P, "S" to Unicode.S,
)

/** Parses one alternative. */
private class Parser(private val text: String) {
    private var at = 0

    fun sequence(): List<Step> {
        val steps = ArrayList<Step>()
        if (text.startsWith("^")) {
            at++
            steps.add(Step(emptyList(), 0, 0, start = true))
        }
        while (at < text.length) {
            if (text.startsWith("(?!\\S)", at)) {
                at += "(?!\\S)".length
                steps.add(Step(listOf(listOf(flags(Unicode.REGEX_SPACE, true))), 0, 0, ahead = true))
                continue
            }
            val choices = if (text[at] == '(') group() else listOf(listOf(atom(false)))
            val (least, most) = times()
            steps.add(Step(choices, least, most))
        }
        return steps
    }

    private fun group(): List<List<Chars>> {
        at++
        val folded = text.startsWith("?i:", at)
        if (folded) at += 3 else if (text.startsWith("?:", at)) at += 2
        val choices = arrayListOf(ArrayList<Chars>())
        while (true) {
            when (text[at]) {
                '|' -> choices.add(ArrayList())
                ')' -> {
                    at++
                    return choices
                }
                else -> {
                    choices.last().add(atom(folded))
                    continue
                }
            }
            at++
        }
    }

    private fun times(): Pair<Int, Int> {
        when (text.getOrNull(at)) {
            '*' -> return Pair(0, Int.MAX_VALUE).also { at++ }
            '+' -> return Pair(1, Int.MAX_VALUE).also { at++ }
            '?' -> return Pair(0, 1).also { at++ }
            '{' -> {
                val end = text.indexOf('}', at)
                val parts = text.substring(at + 1, end).split(',')
                at = end + 1
                val most = if (parts.size == 1) parts[0].toInt() else parts[1].toIntOrNull() ?: Int.MAX_VALUE
                return Pair(parts[0].toInt(), most)
            }
            else -> return Pair(1, 1)
        }
    }

    private fun atom(folded: Boolean): Chars {
        if (text[at] == '[') return set()
        if (text[at] == '\\') return escape().let { it.second ?: Chars { point -> point == it.first } }
        val point = text.codePointAt(at)
        at += Character.charCount(point)
        if (point == '.'.code) return Chars { it != '\n'.code }
        return if (folded) folded(point) else Chars { it == point }
    }

    /** A letter in either case. Of those beyond ASCII, U+017F is an s and U+212A a k. */
    private fun folded(point: Int): Chars {
        if (point >= 0x80) unsupported("the pattern '${brief(text, 80)}' with other letters than A to Z in either case")
        val lower = if (point in 'A'.code..'Z'.code) point + 32 else point
        if (lower !in 'a'.code..'z'.code) return Chars { it == point }
        val more = if (lower == 's'.code) 0x17F else if (lower == 'k'.code) 0x212A else -1
        return Chars { it == lower || it == lower - 32 || it == more }
    }

    /** A class: characters, ranges, escapes, and classes within it. */
    private fun set(): Chars {
        at++
        val negated = text[at] == '^'
        if (negated) at++
        val parts = ArrayList<Chars>()
        var first = true
        while (first || text[at] != ']') {
            first = false
            if (text[at] == '[') {
                parts.add(set())
                continue
            }
            val (start, chars) = one()
            if (chars != null) {
                parts.add(chars)
            } else if (text[at] == '-' && text.getOrNull(at + 1) != ']') {
                at++
                val (end, other) = one()
                if (other != null) unsupported("the pattern '${brief(text, 80)}'")
                parts.add(Chars { it in start..end })
            } else {
                parts.add(Chars { it == start })
            }
        }
        at++
        return Chars { point -> parts.any { it.has(point) } != negated }
    }

    private fun one(): Pair<Int, Chars?> {
        if (text[at] == '\\') return escape()
        val point = text.codePointAt(at)
        at += Character.charCount(point)
        return Pair(point, null)
    }

    /** A character, or a set of them. */
    private fun escape(): Pair<Int, Chars?> {
        val kind = text[++at]
        at++
        when (kind) {
            's', 'S' -> return Pair(-1, flags(Unicode.REGEX_SPACE, kind == 'S'))
            'w', 'W' -> return Pair(-1, flags(Unicode.REGEX_WORD, kind == 'W'))
            'd', 'D' -> return Pair(-1, flags(Unicode.REGEX_DIGIT, kind == 'D'))
            'p', 'P' -> {
                val end = text.indexOf('}', at)
                val name = text.substring(at + 1, end)
                at = end + 1
                val flags = PROPERTIES[name.removePrefix("^")] ?: unsupported("the property \\p{${brief(name, 40)}} in a pattern")
                return Pair(-1, flags(flags, (kind == 'P') != name.startsWith("^")))
            }
            'x', 'u' -> {
                val size = if (kind == 'x') 2 else 4
                at += size
                return Pair(text.substring(at - size, at).toInt(16), null)
            }
        }
        val named = "rntfv".indexOf(kind)
        return Pair(if (named < 0) kind.code else intArrayOf(13, 10, 9, 12, 11)[named], null)
    }

    private fun flags(flags: Int, negated: Boolean): Chars = Chars { Unicode.has(it, flags) != negated }
}

/** Splits words at the matches of a pattern, as the library's behaviours of that name do. */
internal fun splitBy(word: Normalized, matches: IntArray, behavior: String, invert: Boolean): List<Normalized> {
    val spans = ArrayList<IntArray>() // start, end, 1 for a match
    var done = 0
    for (i in matches.indices step 2) {
        if (matches[i] > done) spans.add(intArrayOf(done, matches[i], if (invert) 1 else 0))
        spans.add(intArrayOf(matches[i], matches[i + 1], if (invert) 0 else 1))
        done = matches[i + 1]
    }
    if (done < word.size) spans.add(intArrayOf(done, word.size, if (invert) 1 else 0))
    val found = when (behavior) {
        "Isolated" -> spans
        "Removed" -> spans.filter { it[2] == 0 }
        "MergedWithPrevious" -> merged(spans) { last, next -> intArrayOf(last[0], next[1]) }
        "MergedWithNext" -> merged(spans.asReversed()) { last, next -> intArrayOf(next[0], last[1]) }.asReversed()
        "Contiguous" -> contiguous(spans)
        else -> refuseTokenizer("it splits in the unknown way ${brief(behavior, 60)}")
    }
    return found.map { word.slice(it[0], it[1]) }
}

/** Joins each match that follows another span than a match with that span. */
private fun merged(spans: List<IntArray>, join: (IntArray, IntArray) -> IntArray): List<IntArray> {
    val found = ArrayList<IntArray>()
    var matched = false
    for (span in spans) {
        if (span[2] == 1 && !matched && found.isNotEmpty()) found[found.size - 1] = join(found.last(), span) else found.add(span)
        matched = span[2] == 1
    }
    return found
}

private fun contiguous(spans: List<IntArray>): List<IntArray> {
    val found = ArrayList<IntArray>()
    for (span in spans) {
        if (found.isNotEmpty() && found.last()[2] == span[2]) found[found.size - 1] = intArrayOf(found.last()[0], span[1], span[2]) else found.add(span)
    }
    return found
}
