package org.edgemrl.tokenize

private const val HANGUL = 0xAC00
private const val HANGUL_END = HANGUL + 11172
private const val LEADS = 0x1100
private const val VOWELS = 0x1161
private const val TRAILS = 0x11A7
private const val VOWEL_COUNT = 21
private const val TRAIL_COUNT = 28
private const val LEAD_COUNT = 19

/** Unicode's forms NFD and NFKD (UAX 15), with the library's tables. */
internal fun decompose(text: Normalized, compatibility: Boolean): Normalized {
    val out = text.each { i ->
        val point = text.points[i]
        val start = text.starts[i]
        val end = text.ends[i]
        if (point in HANGUL until HANGUL_END) {
            val index = point - HANGUL
            add(LEADS + index / (VOWEL_COUNT * TRAIL_COUNT), start, end)
            add(VOWELS + index % (VOWEL_COUNT * TRAIL_COUNT) / TRAIL_COUNT, start, end)
            if (index % TRAIL_COUNT > 0) add(TRAILS + index % TRAIL_COUNT, start, end)
        } else {
            val parts = if (point < 0xA0) null else Unicode.decomposed(point, compatibility)
            if (parts == null) add(point, start, end) else for (part in parts) add(part, start, end)
        }
    }
    order(out)
    return out
}

/** Sorts marks behind a starter by their class; equal ones keep their order. */
private fun order(text: Normalized) {
    var i = 1
    while (i < text.size) {
        val kind = if (text.points[i] < 0x300) 0 else Unicode.combining(text.points[i])
        var at = i
        while (kind > 0 && at > 0 && Unicode.combining(text.points[at - 1]) > kind) at--
        // The library gives places to characters in the order that they had: they are not moved along.
        if (at < i) move(text.points, i, at)
        i++
    }
}

private fun move(values: IntArray, from: Int, to: Int) {
    val value = values[from]
    values.copyInto(values, to + 1, to, from)
    values[to] = value
}

/** Composes what [decompose] made: the forms NFC and NFKC. */
internal fun compose(text: Normalized): Normalized {
    val points = text.points
    val keep = BooleanArray(text.size) { true }
    var starter = -1
    var before = 0 // class of the character before, if it is not the starter
    for (i in 0 until text.size) {
        val kind = Unicode.combining(points[i])
        val blocked = starter < 0 || (before != 0 && before >= kind)
        val joined = if (blocked) -1 else join(points[starter], points[i])
        if (joined >= 0) {
            points[starter] = joined
            text.ends[starter] = maxOf(text.ends[starter], text.ends[i])
            keep[i] = false
        } else if (kind == 0) {
            starter = i
            before = 0
        } else {
            before = kind
        }
    }
    return text.each { i -> if (keep[i]) add(points[i], text.starts[i], text.ends[i]) }
}

private fun join(first: Int, second: Int): Int {
    if (first in LEADS until LEADS + LEAD_COUNT && second in VOWELS until VOWELS + VOWEL_COUNT) {
        return HANGUL + ((first - LEADS) * VOWEL_COUNT + second - VOWELS) * TRAIL_COUNT
    }
    if (first in HANGUL until HANGUL_END && (first - HANGUL) % TRAIL_COUNT == 0 && second in TRAILS + 1 until TRAILS + TRAIL_COUNT) {
        return first + second - TRAILS
    }
    return Unicode.composed(first, second)
}
