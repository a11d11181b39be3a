package org.edgemrl.tokenize

import java.io.IOException

/**
 * What `tokenizers` knows of characters, from a file that android_demo/tools/unicode_tables.py made of it.
 * A phone's own tables (Character.getType, Normalizer, lowercase) change with its version, and ids must not.
 */
internal object Unicode {
    const val REMOVED = 1
    const val BLANK = 1 shl 1
    const val IDEOGRAPH = 1 shl 2
    const val SPACE = 1 shl 3
    const val PUNCTUATION = 1 shl 4
    const val MARK = 1 shl 5
    const val COMBINING = 1 shl 6
    const val LU = 1 shl 7
    const val LL = 1 shl 8
    const val LT = 1 shl 9
    const val LM = 1 shl 10
    const val LO = 1 shl 11
    const val M = 1 shl 12
    const val N = 1 shl 13
    const val P = 1 shl 14
    const val S = 1 shl 15
    const val REGEX_SPACE = 1 shl 16
    const val REGEX_WORD = 1 shl 17
    const val REGEX_DIGIT = 1 shl 18
    const val EXTENDS = 1 shl 19
    const val PREPENDS = 1 shl 20
    const val CONTROL = 1 shl 21
    const val L = LU or LL or LT or LM or LO

    private const val PAGE_BITS = 8
    private const val PAGE = 1 shl PAGE_BITS
    private const val POINTS = 0x110000
    private val pages: Array<IntArray>
    private val classes = HashMap<Int, Int>()
    private val lower: Map<Int, IntArray>
    private val decomposed: Map<Int, IntArray>
    private val compatible: Map<Int, IntArray>
    private val composed = HashMap<Long, Int>()

    init {
        val reader = Reader(resource("unicode.bin"))
        pages = flags(reader)
        repeat(reader.number()) { classes[reader.place()] = reader.number() }
        lower = reader.map()
        decomposed = reader.map()
        compatible = reader.map()
        reader.restart()
        val whole = HashMap<List<Int>, Int>()
        val points = List(reader.number()) { reader.place() }
        for (point in points) whole[decomposed.getValue(point).asList()] = point
        for (point in points) {
            val parts = decomposed.getValue(point).asList()
            val first = if (parts.size == 2) parts[0] else whole.getValue(parts.dropLast(1))
            composed[pair(first, parts.last())] = point
        }
    }

    /** The flags of a code point: the constants above. */
    fun flags(point: Int): Int = pages[point ushr PAGE_BITS][point and (PAGE - 1)]

    fun has(point: Int, flags: Int): Boolean = flags(point) and flags != 0

    /** Combining class, 0 for starters. */
    fun combining(point: Int): Int = classes[point] ?: 0

    /** What a code point becomes in lower case; null if it stays. */
    fun lower(point: Int): IntArray? = lower[point]

    /** A code point's full decomposition, canonical or by compatibility; null if it has none. Not for Hangul. */
    fun decomposed(point: Int, compatibility: Boolean): IntArray? =
        (if (compatibility) compatible[point] else null) ?: decomposed[point]

    /** What two code points are composed to, or -1. Not for Hangul. */
    fun composed(first: Int, second: Int): Int = composed[pair(first, second)] ?: -1

    private fun pair(first: Int, second: Int): Long = first.toLong() shl 32 or second.toLong()

    private fun flags(reader: Reader): Array<IntArray> {
        val empty = IntArray(PAGE)
        val found = Array(POINTS / PAGE) { empty }
        val same = HashMap<List<Int>, IntArray>()
        repeat(reader.number()) {
            val start = reader.place()
            val length = reader.number()
            val value = reader.number()
            reader.advance(length)
            for (point in start until start + length) {
                val page = point ushr PAGE_BITS
                if (found[page] === empty) found[page] = IntArray(PAGE)
                found[page][point and (PAGE - 1)] = value
            }
        }
        reader.restart()
        for (page in found.indices) found[page] = same.getOrPut(found[page].asList()) { found[page] }
        return found
    }

    private fun resource(name: String): ByteArray {
        val stream = Unicode::class.java.getResourceAsStream(name)
            ?: throw IOException("the resource org/edgemrl/tokenize/$name is not in this program: pack it as core has it")
        return stream.use { it.readBytes() }
    }

    /** Reads numbers in LEB128, and places that are written as distances. */
    private class Reader(private val data: ByteArray) {
        private var at = MAGIC.length
        private var last = 0

        init {
            check(String(data, 0, MAGIC.length, Charsets.US_ASCII) == MAGIC) { "unicode.bin is of another version" }
        }

        fun number(): Int {
            var value = 0
            var shift = 0
            while (true) {
                val byte = data[at++].toInt()
                value = value or ((byte and 0x7F) shl shift)
                if (byte >= 0) return value
                shift += 7
            }
        }

        fun place(): Int {
            last += number()
            return last
        }

        fun advance(length: Int) {
            last += length
        }

        fun restart() {
            last = 0
        }

        fun map(): Map<Int, IntArray> {
            restart()
            val found = HashMap<Int, IntArray>()
            repeat(number()) {
                val point = place()
                found[point] = IntArray(number()) { number() }
            }
            return found
        }

        private companion object {
            const val MAGIC = "EMRLUNI1"
        }
    }
}
