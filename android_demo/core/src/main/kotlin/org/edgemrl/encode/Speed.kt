package org.edgemrl.encode

private const val NANOS = 1e9

/**
 * How fast this device encodes.
 *
 * @property tokens tokens that were encoded, special ones included.
 * @property seconds the time that took.
 */
public data class Speed(public val tokens: Long, public val seconds: Double) {
    /** Tokens a second. */
    public val tokensPerSecond: Double get() = tokens / seconds
}

/**
 * Encodes the bundle's golden texts one by one, again and again, and counts tokens. What is measured is what a
 * query costs: one text at a time, with its tokenizer.
 *
 * @param seconds stop at the end of a text after so many seconds.
 */
@JvmOverloads
public fun measureSpeed(encoder: Encoder, seconds: Double = 2.0): Speed {
    val texts = encoder.bundle.golden().map { it.text }.filter { it.isNotBlank() }
    val counts = texts.map { encoder.ids(it).size }
    texts.firstOrNull()?.let { encoder.encode(it) } // the first one also fills caches
    val start = System.nanoTime()
    var tokens = 0L
    var at = 0
    while (true) {
        encoder.encode(texts[at])
        tokens += counts[at]
        at = (at + 1) % texts.size
        val passed = (System.nanoTime() - start) / NANOS
        if (passed >= seconds) return Speed(tokens, passed)
    }
}
