package org.edgemrl.encode

import java.io.Closeable
import java.io.File
import org.edgemrl.EncoderException
import org.edgemrl.UsageException
import org.edgemrl.bundle.Bundle
import org.edgemrl.bundle.TrustedKeys
import org.edgemrl.bundle.points
import org.edgemrl.tokenize.Places
import org.edgemrl.tokenize.Tokenizer

/** What a text is: the model's prompt for it is put in front. */
public enum class Kind(
    /** Its name in manifests and in golden texts. */
    public val label: String,
) {
    DOCUMENT("document"),
    QUERY("query"),
}

/**
 * Vectors of n texts.
 *
 * @property size n.
 * @property dim dimensions of a code.
 * @property fullDim dimensions D of a full vector, or null if the bundle gives codes only.
 * @property coarse the codes, int8[n, dim] in C order: what a device stores and searches.
 * @property full the full vectors, float32[n, D] in C order: unit length, in the model's own space. Null if the
 *     bundle gives codes only.
 */
public class Encoding(
    public val size: Int,
    public val dim: Int,
    public val fullDim: Int?,
    public val coarse: ByteArray,
    public val full: FloatArray?,
) {
    /** The code of a text, int8[dim]. */
    public fun code(text: Int): ByteArray = coarse.copyOfRange(text * dim, (text + 1) * dim)

    /** The full vector of a text, float32[D], or null. */
    public fun vector(text: Int): FloatArray? = fullDim?.let { full?.copyOfRange(text * it, (text + 1) * it) }
}

/** Texts that are tokenised, sorted by length and encoded together; and characters after which they end early. */
private const val WINDOW_TEXTS = 512
private const val WINDOW_CHARS = 2_000_000
private const val LOW_MEMORY_WINDOW_CHARS = 200_000
private const val MOST_TEXT_CHARS = 20_000_000

/** Tokens in one batch, padding included, and how few a batch may have so that each thread gets one. */
private const val BATCH_TOKENS = 512
private const val LOW_MEMORY_BATCH_TOKENS = 256
private const val LEAST_BATCH_TOKENS = 64

/**
 * Encodes text with a bundle. Safe to share between threads; close it when no thread uses it any more.
 *
 * @property bundle the bundle.
 * @property tokenizer its tokenizer.
 */
public class Encoder private constructor(
    public val bundle: Bundle,
    public val tokenizer: Tokenizer,
    private val session: GraphSession,
    lowMemory: Boolean,
) : Closeable {
    private val batchTokens = if (lowMemory) LOW_MEMORY_BATCH_TOKENS else BATCH_TOKENS
    private val windowChars = if (lowMemory) LOW_MEMORY_WINDOW_CHARS else WINDOW_CHARS

    /**
     * Encodes texts.
     *
     * @param texts any texts. Longer ones than the manifest's `max_tokens` are truncated; an empty one is a text
     *     like any other; half of a character (a lone surrogate) is read as U+FFFD.
     * @return the vectors of the n texts, in their order; n may be 0.
     * @throws EncoderException if the bundle cannot encode a text; the others of the call are not encoded either.
     * @throws UsageException if the encoder is closed.
     */
    @JvmOverloads
    public fun encode(texts: List<String>, kind: Kind = Kind.DOCUMENT): Encoding {
        val chunks = stream(texts, kind).toList()
        if (chunks.size == 1) return chunks[0]
        val made = empty(texts.size)
        var at = 0
        for (chunk in chunks) {
            chunk.coarse.copyInto(made.coarse, at * made.dim)
            chunk.full?.copyInto(made.full!!, at * (made.fullDim ?: 0))
            at += chunk.size
        }
        return made
    }

    /** Encodes one text, see [encode]. */
    @JvmOverloads
    public fun encode(text: String, kind: Kind = Kind.DOCUMENT): Encoding = encode(listOf(text), kind)

    /**
     * Encodes texts in order, a few hundred at a time, in bounded memory. Each text is read and checked as the
     * result is used.
     */
    @JvmOverloads
    public fun stream(texts: Iterable<String>, kind: Kind = Kind.DOCUMENT): Sequence<Encoding> = sequence {
        var window = ArrayList<String>()
        var chars = 0
        for (text in texts) {
            if (text.length > MOST_TEXT_CHARS && points(text) > MOST_TEXT_CHARS) {
                throw EncoderException("a text has ${points(text)} characters, expected at most $MOST_TEXT_CHARS: split it")
            }
            window.add(text)
            chars += text.length
            if (window.size == WINDOW_TEXTS || chars > windowChars) {
                yield(encodeWindow(window, kind))
                window = ArrayList()
                chars = 0
            }
        }
        if (window.isNotEmpty()) yield(encodeWindow(window, kind))
    }

    /**
     * Encodes all texts as one batch, padded to the longest: for checks, not for speed. It shows whether a
     * graph's vectors depend on the padding, or on the other texts of a batch.
     */
    public fun encodePadded(texts: List<String>, kind: Kind = Kind.DOCUMENT): Encoding {
        val outputs = session.run(texts.map { ids(it, kind) })
        return Encoding(texts.size, bundle.manifest.dim, bundle.manifest.fullDim, outputs.coarse, outputs.full)
    }

    /** Token ids of a text as the graph gets them, int64[n]: with prompt and special tokens, truncated, not padded. */
    @JvmOverloads
    public fun ids(text: String, kind: Kind = Kind.DOCUMENT): LongArray =
        tokenizer.ids(bundle.manifest.prompts.getValue(kind.label) + text)

    /** The tokens of a text of any length, without prompt and special tokens, and where they are. */
    internal fun places(text: String): Places = tokenizer.places(text)

    /** Frees the session and the mapped weights. Encoding with a closed encoder is a [UsageException]. */
    override fun close() {
        session.close()
    }

    private fun empty(size: Int): Encoding {
        val manifest = bundle.manifest
        return Encoding(size, manifest.dim, manifest.fullDim, ByteArray(size * manifest.dim), manifest.fullDim?.let { FloatArray(size * it) })
    }

    private fun encodeWindow(texts: List<String>, kind: Kind): Encoding {
        val rows = texts.map { ids(it, kind) }
        val made = empty(rows.size)
        val share = Math.max(LEAST_BATCH_TOKENS, (rows.sumOf { it.size } + session.threads - 1) / session.threads)
        val batches = batchesOf(rows.map { it.size }, Math.min(batchTokens, share))
        session.runAll(batches.map { batch -> batch.map { rows[it] } }) { number, outputs ->
            val width = made.fullDim ?: 0
            for ((i, row) in batches[number].withIndex()) {
                outputs.coarse.copyInto(made.coarse, row * made.dim, i * made.dim, (i + 1) * made.dim)
                outputs.full?.copyInto(made.full!!, row * width, i * width, (i + 1) * width)
            }
        }
        return made
    }

    public companion object {
        /**
         * Opens a bundle, and tries it: the shortest golden texts are encoded and compared with what the exporting
         * machine made of them.
         *
         * @param path the bundle's folder.
         * @param threads use at most so many threads; null for one per core.
         * @param lowMemory use smaller batches and no memory arena: slower, with the smallest memory.
         * @param hashes compare every file's SHA-256, see [Bundle.open].
         * @param tried false to leave out the trial: for a bundle that this device has verified before.
         * @param trust refuse a bundle that none of these keys has signed, see [Bundle.open].
         * @throws UsageException if the folder does not exist, or [threads] is below 1.
         * @throws org.edgemrl.BundleException if the bundle is damaged, cannot be opened, or failed its trial.
         */
        @JvmStatic
        @JvmOverloads
        public fun open(
            path: File,
            threads: Int? = null,
            lowMemory: Boolean = false,
            hashes: Boolean = true,
            tried: Boolean = true,
            trust: TrustedKeys? = null,
        ): Encoder {
            if (threads != null && threads < 1) throw UsageException("threads is $threads, expected at least 1")
            val bundle = Bundle.open(path, hashes, trust)
            val tokenizer = Tokenizer.of(bundle)
            val session = GraphSession(bundle, threads ?: Runtime.getRuntime().availableProcessors(), lowMemory)
            val encoder = Encoder(bundle, tokenizer, session, lowMemory)
            if (!tried) return encoder
            try {
                tryOut(encoder)
            } catch (e: Throwable) {
                encoder.close()
                throw e
            }
            return encoder
        }
    }
}

/** Indices in batches of similar length, each at most [budget] tokens with its padding, longest first. */
internal fun batchesOf(lengths: List<Int>, budget: Int): List<List<Int>> {
    val found = ArrayList<List<Int>>()
    var batch = ArrayList<Int>()
    for (index in lengths.indices.sortedByDescending { lengths[it] }) {
        // The first text is the longest, so it sets the batch's width.
        if (batch.isNotEmpty() && (batch.size + 1) * lengths[batch[0]] > budget) {
            found.add(batch)
            batch = ArrayList()
        }
        batch.add(index)
    }
    if (batch.isNotEmpty()) found.add(batch)
    return found
}
