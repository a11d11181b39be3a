package org.edgemrl.store

import org.edgemrl.clean

private val TERM = Regex("\"([^\"]*)\"|([^\\s\"]+)")

/**
 * The text as its words are indexed and looked for: in the compatibility form NFKC of Unicode 3.2, with
 * characters that it lacks as they are (FORMAT.md, "Store"), so that every program makes the same words.
 */
internal fun keywordText(text: String): String = if (isAscii(text)) text else WordTables.compose(text)

/**
 * The words of a query as an expression of FTS5 that matches any of them, or every one; "" if it has none.
 *
 * `"several words"` in quotes are matched as a phrase, `word*` as a prefix. Every term is quoted, so that no
 * character of the query acts as an operator.
 */
internal fun matchExpression(query: String, every: Boolean = false): String =
    matchTerms(query).joinToString(if (every) " AND " else " OR ")

/** The terms of [matchExpression], each once, in the order of the query. */
internal fun matchTerms(query: String): List<String> {
    val terms = LinkedHashSet<String>()
    for (found in split(clean(query).replace('\u0000', ' '))) {
        val text = keywordText(found.text).replace('"', ' ')
        if (text.all { it < '\u0080' && !it.isLetterOrDigit() }) continue
        val star = if (!found.phrase && found.text.endsWith("*")) "*" else ""
        terms.add("\"${text.trimEnd('*')}\"$star")
    }
    return terms.toList()
}

/** A word is common if more documents have it than both of one of these: a share, and a number. */
private val COMMON = listOf(0.4 to 5_000L, 0.2 to 20_000L)

/**
 * The terms of a search without those that too many documents have to tell them apart, if any is left that a
 * document has; else the rarest of those that occur.
 *
 * @param documents how many documents there are.
 * @param count how many documents match a term; the number that it is given if there are at least as many.
 */
internal fun withoutCommon(terms: List<String>, documents: () -> Long, count: (String, Long) -> Long): List<String> {
    if (terms.size < 2) return terms
    val all = documents()
    val common = 1 + COMMON.minOf { (share, least) -> maxOf((all * share).toLong(), least) }
    val counts = terms.map { count(it, common) }
    if (counts.all { it < common }) return terms
    val rare = terms.indices.filter { counts[it] < common }
    if (rare.any { counts[it] > 0 }) return rare.map { terms[it] }
    val occurring = terms.map { it to count(it, all + 1) }.filter { it.second > 0 }
    return listOf(occurring.minByOrNull { it.second }!!.first)
}

private class Term(val text: String, val phrase: Boolean)

private fun split(query: String): List<Term> = TERM.findAll(query.map { if (isBlank(it)) ' ' else it }.joinToString("")).map { match ->
    val phrase = match.groups[1]?.value
    // An empty phrase is followed by no word.
    if (phrase != null) Term(phrase, true) else Term(match.groups[2]!!.value, false)
}.toList()

/** What Python's `\s` takes for blank. */
private fun isBlank(c: Char): Boolean =
    c in '\t'..'\r' || c in '\u001c'..' ' || c == '\u0085' || c == '\u00a0' || c == '\u1680' || c in '\u2000'..'\u200a' ||
        c == '\u2028' || c == '\u2029' || c == '\u202f' || c == '\u205f' || c == '\u3000'

/** The words of a text without case, as Python's `\w+` finds them in `text.casefold()`. */
internal fun words(text: String): Set<String> {
    val found = HashSet<String>()
    val word = StringBuilder()
    val folded = WordTables.fold(text)
    var i = 0
    while (i < folded.length) {
        val point = folded.codePointAt(i)
        i += Character.charCount(point)
        if (WordTables.isWord(point)) {
            word.appendCodePoint(point)
        } else if (word.isNotEmpty()) {
            found.add(word.toString())
            word.setLength(0)
        }
    }
    if (word.isNotEmpty()) found.add(word.toString())
    return found
}

internal fun isAscii(text: String): Boolean = text.all { it < '\u0080' }

/** Unicode's tables, made by android_demo/tools/words.py: those of Java differ from version to version. */
internal object WordTables {
    private const val HANGUL = 0xAC00
    private const val HANGUL_COUNT = 11_172
    private const val LEADS = 0x1100
    private const val VOWELS = 0x1161
    private const val TAILS = 0x11A7
    private const val VOWEL_COUNT = 21
    private const val TAIL_COUNT = 28

    private val decompositions = HashMap<Int, IntArray>()
    private val compositions = HashMap<Long, Int>()
    private val classes = HashMap<Int, Int>()
    private val folded = HashMap<Int, IntArray>()
    private val wordPoints = java.util.BitSet()

    init {
        val stream = WordTables::class.java.getResourceAsStream("/org/edgemrl/store/words.txt") ?: error("words.txt is missing")
        stream.bufferedReader(Charsets.US_ASCII).use { reader -> reader.forEachLine { read(it.split(' ')) } }
    }

    private fun read(line: List<String>) {
        fun point(i: Int) = line[i].toInt(16)
        fun ranges(from: Int) = line.drop(from).map { it.substringBefore('-').toInt(16)..it.substringAfter('-').toInt(16) }
        when (line[0]) {
            "d" -> decompositions[point(1)] = IntArray(line.size - 2) { point(it + 2) }
            "p" -> compositions[pair(point(1), point(2))] = point(3)
            "c" -> for (range in ranges(2)) for (point in range) classes[point] = line[1].toInt()
            "w" -> for (range in ranges(1)) wordPoints.set(range.first, range.last + 1)
            "f" -> folded[point(1)] = IntArray(line.size - 2) { point(it + 2) }
        }
    }

    private fun pair(a: Int, b: Int): Long = a.toLong() shl 32 or b.toLong()

    /** Whether Python's `\w` matches a character. */
    fun isWord(point: Int): Boolean = wordPoints[point]

    /** The text without case, as Python's `casefold` makes it. */
    fun fold(text: String): String {
        val out = StringBuilder(text.length)
        each(text) { point ->
            val parts = folded[point]
            if (parts == null) out.appendCodePoint(point) else for (part in parts) out.appendCodePoint(part)
        }
        return out.toString()
    }

    /** The text in NFKC. */
    fun compose(text: String): String {
        val points = ArrayList<Int>(text.length)
        each(text) { decompose(it, points) }
        order(points)
        return join(points)
    }

    private inline fun each(text: String, action: (Int) -> Unit) {
        var i = 0
        while (i < text.length) {
            val point = text.codePointAt(i)
            i += Character.charCount(point)
            action(point)
        }
    }

    private fun decompose(point: Int, out: MutableList<Int>) {
        val place = point - HANGUL
        val parts = decompositions[point]
        if (place in 0 until HANGUL_COUNT) {
            out.add(LEADS + place / (VOWEL_COUNT * TAIL_COUNT))
            out.add(VOWELS + place % (VOWEL_COUNT * TAIL_COUNT) / TAIL_COUNT)
            if (place % TAIL_COUNT != 0) out.add(TAILS + place % TAIL_COUNT)
        } else if (parts != null) {
            for (part in parts) out.add(part)
        } else {
            out.add(point)
        }
    }

    /** Sorts marks behind a character by their class; those of one class keep their order. */
    private fun order(points: MutableList<Int>) {
        for (i in 1 until points.size) {
            val point = points[i]
            val kind = classes[point] ?: continue
            var at = i
            while (at > 0 && (classes[points[at - 1]] ?: 0) > kind) {
                points[at] = points[at - 1]
                at--
            }
            points[at] = point
        }
    }

    private fun join(points: List<Int>): String {
        val out = ArrayList<Int>(points.size)
        var starter = -1
        var last = 0
        for (point in points) {
            val kind = classes[point] ?: 0
            val both = if (starter >= 0 && (last < kind || last == 0 && starter == out.size - 1)) composed(out[starter], point) else null
            if (both != null) {
                out[starter] = both
                continue
            }
            if (kind == 0) starter = out.size
            last = kind
            out.add(point)
        }
        val text = StringBuilder(out.size)
        for (point in out) text.appendCodePoint(point)
        return text.toString()
    }

    private fun composed(a: Int, b: Int): Int? {
        if (a - LEADS in 0 until 19 && b - VOWELS in 0 until VOWEL_COUNT) {
            return HANGUL + ((a - LEADS) * VOWEL_COUNT + (b - VOWELS)) * TAIL_COUNT
        }
        val syllable = a - HANGUL in 0 until HANGUL_COUNT && (a - HANGUL) % TAIL_COUNT == 0
        if (syllable && b - TAILS in 1 until TAIL_COUNT) return a + (b - TAILS)
        return compositions[pair(a, b)]
    }
}
