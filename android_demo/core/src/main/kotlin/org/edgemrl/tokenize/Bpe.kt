package org.edgemrl.tokenize

import java.util.PriorityQueue
import org.edgemrl.bundle.Part
import org.edgemrl.bundle.refuseTokenizer

/** Byte pair encoding: neighbouring symbols are merged, those of the lowest rank first. */
internal class Bpe(model: Part) : Model {
    private val vocabulary = vocabularyOf(model)
    private val unknown: Int?
    private val fuse = model.flag("fuse_unk", false)
    private val bytes: IntArray?
    private val whole = model.flag("ignore_merges", false)
    private val ranks = HashMap<Long, Int>()
    private val made: IntArray

    init {
        for (key in listOf("continuing_subword_prefix", "end_of_word_suffix")) {
            if (!(model[key] as? String).isNullOrEmpty()) unsupported("a model with $key")
        }
        unknown = (model["unk_token"] as? String)?.let { vocabulary[it] ?: refuseTokenizer("its token for unknown characters is not in its vocabulary") }
        val fallback = List(BYTES) { vocabulary["<0x${it.toString(16).uppercaseAscii().padStart(2, '0')}>"] ?: -1 }
        bytes = if (model.flag("byte_fallback", false)) fallback.toIntArray() else null
        val merges = model.list("merges")
        made = IntArray(merges.size)
        for ((rank, merge) in merges.withIndex()) {
            val pair = if (merge is String) merge.split(' ') else (merge as? List<*>)?.map { it as? String ?: "" }.orEmpty()
            if (pair.size != 2) refuseTokenizer("a merge is no pair")
            val (left, right) = pair.map { vocabulary[it] ?: refuseTokenizer("a merge has a token that is not in the vocabulary") }
            made[rank] = vocabulary[pair[0] + pair[1]] ?: refuseTokenizer("a merge makes a token that is not in the vocabulary")
            ranks[key(left, right)] = rank
        }
    }

    override val size: Int get() = vocabulary.size

    override fun id(token: String): Int? = vocabulary[token]

    override fun tokens(): List<Pair<String, Int>> = vocabulary.toList()

    override fun tokenize(word: Normalized, number: Int, into: Tokens) {
        val known = if (whole) vocabulary[word.text()] else null
        if (known != null) return into.add(known, word.starts[0], word.ends[word.size - 1], number)
        val symbols = Symbols(word.size + 8)
        first(word, symbols)
        merge(symbols)
        var at = 0
        while (at >= 0 && at < symbols.size) {
            into.add(symbols.ids[at], word.starts[symbols.from[at]], word.ends[symbols.to[at] - 1], number)
            at = symbols.next[at]
        }
    }

    /** Each character as a symbol; an unknown one as its bytes, as the token for unknown ones, or as nothing. */
    private fun first(word: Normalized, symbols: Symbols) {
        var start = -1 // where unknown characters that are one token begin
        for (i in 0 until word.size) {
            val id = vocabulary[word.text(i, i + 1)]
            if (id != null) {
                if (start >= 0) symbols.add(unknown!!, start, i)
                start = -1
                symbols.add(id, i, i + 1)
                continue
            }
            val parts = bytes?.let { table -> word.text(i, i + 1).toByteArray(Charsets.UTF_8).map { table[it.toInt() and 0xFF] } }
            if (parts != null && parts.all { it >= 0 }) {
                for (part in parts) symbols.add(part, i, i + 1)
                continue
            }
            if (unknown == null) continue
            if (start >= 0 && !fuse) symbols.add(unknown, start, i)
            if (start < 0 || !fuse) start = i
        }
        if (start >= 0) symbols.add(unknown!!, start, word.size)
    }

    private fun merge(symbols: Symbols) {
        val waiting = PriorityQueue<Long>()
        for (at in 0 until symbols.size - 1) wait(symbols, at, waiting)
        while (true) {
            val one = waiting.poll() ?: return
            val at = one.toInt()
            val right = symbols.next[at]
            if (symbols.ids[at] < 0 || right < 0 || right >= symbols.size) continue
            val rank = ranks[key(symbols.ids[at], symbols.ids[right])]
            val id = made[(one ushr 32).toInt()]
            if (rank == null || made[rank] != id) continue // it was made of other symbols
            symbols.join(at, right, id)
            if (symbols.before[at] >= 0) wait(symbols, symbols.before[at], waiting)
            wait(symbols, at, waiting)
        }
    }

    private fun wait(symbols: Symbols, at: Int, waiting: PriorityQueue<Long>) {
        val right = symbols.next[at]
        if (right >= symbols.size) return
        val rank = ranks[key(symbols.ids[at], symbols.ids[right])] ?: return
        waiting.add(rank.toLong() shl 32 or at.toLong())
    }

    private fun key(left: Int, right: Int): Long = left.toLong() shl 32 or right.toLong()

    private fun String.uppercaseAscii(): String = map { if (it in 'a'..'z') it - 32 else it }.joinToString("")

    /** A chain of symbols; of each its place in the word. */
    private class Symbols(capacity: Int) {
        var size = 0
        var ids = IntArray(capacity)
        var from = IntArray(capacity)
        var to = IntArray(capacity)
        var next = IntArray(capacity)
        var before = IntArray(capacity)

        fun add(id: Int, start: Int, end: Int) {
            if (size == ids.size) {
                ids = ids.copyOf(2 * size)
                from = from.copyOf(2 * size)
                to = to.copyOf(2 * size)
                next = next.copyOf(2 * size)
                before = before.copyOf(2 * size)
            }
            ids[size] = id
            from[size] = start
            to[size] = end
            next[size] = size + 1
            before[size] = size - 1
            size++
        }

        fun join(left: Int, right: Int, id: Int) {
            ids[left] = id
            to[left] = to[right]
            ids[right] = -1
            next[left] = next[right]
            if (next[right] < size) before[next[right]] = left
        }
    }

    private companion object {
        const val BYTES = 256
    }
}
