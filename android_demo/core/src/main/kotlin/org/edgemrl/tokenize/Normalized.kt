package org.edgemrl.tokenize

/**
 * A text that is being normalised, with the place in the original text that each of its code points is of.
 *
 * @property points code points, [size] of them.
 * @property starts where each one's original begins, in code points of the original text.
 * @property ends where it ends.
 * @property origin where the part of the original text begins that this is made of.
 */
internal class Normalized(val points: IntArray, val starts: IntArray, val ends: IntArray, val size: Int, val origin: Int) {
    /** A builder of the next form of this text. */
    internal class Builder(capacity: Int) {
        private var points = IntArray(capacity + 8)
        private var starts = IntArray(capacity + 8)
        private var ends = IntArray(capacity + 8)
        private var size = 0

        fun add(point: Int, start: Int, end: Int) {
            if (size == points.size) {
                points = points.copyOf(2 * size)
                starts = starts.copyOf(2 * size)
                ends = ends.copyOf(2 * size)
            }
            points[size] = point
            starts[size] = start
            ends[size++] = end
        }

        fun build(origin: Int): Normalized = Normalized(points, starts, ends, size, origin)
    }

    fun slice(from: Int, to: Int): Normalized = Normalized(
        points.copyOfRange(from, to),
        starts.copyOfRange(from, to),
        ends.copyOfRange(from, to),
        to - from,
        if (from == 0) origin else if (from < size) starts[from] else ends[size - 1],
    )

    fun text(from: Int = 0, to: Int = size): String = String(points, from, to - from)

    /** The text after a step that gives each code point's successors to the builder. */
    inline fun each(step: Builder.(Int) -> Unit): Normalized {
        val out = Builder(size)
        for (i in 0 until size) out.step(i)
        return out.build(origin)
    }

    companion object {
        /** A text as it is; half of a character (a lone surrogate) is read as U+FFFD. */
        fun of(text: String): Normalized {
            val count = text.codePointCount(0, text.length)
            val points = IntArray(count)
            var at = 0
            for (i in 0 until count) {
                val point = text.codePointAt(at)
                at += Character.charCount(point)
                points[i] = if (point in 0xD800..0xDFFF) 0xFFFD else point
            }
            return Normalized(points, IntArray(count) { it }, IntArray(count) { it + 1 }, count, 0)
        }
    }
}

/** A step of normalisation. */
internal fun interface Normalizer {
    fun apply(text: Normalized): Normalized
}
