package org.edgemrl

import java.io.File
import java.util.concurrent.locks.ReentrantReadWriteLock
import kotlin.concurrent.read
import kotlin.concurrent.write
import org.edgemrl.bundle.TrustedKeys
import org.edgemrl.encode.BundleEncoder
import org.edgemrl.encode.Encoder
import org.edgemrl.encode.bindingOf
import org.edgemrl.encode.codeOf
import org.edgemrl.encode.manifestOf
import org.edgemrl.store.Store

/**
 * How an index is opened.
 *
 * The first three are fixed when the store is made; given for one that is there, they must be its own.
 *
 * @property maxTokens the longest passage, in tokens; null for what the model reads, at most about 250.
 * @property overlap tokens that neighbouring passages share; null for an eighth of [maxTokens].
 * @property keepFull how full vectors are kept, to rescore the best hits: `fp16`, `int8`, `until-synced`, or null.
 * @property threads the bundle's encoder uses at most so many; null for one per core.
 * @property lowMemory smaller batches and no memory arena: slower, with the smallest memory.
 * @property hashes compare the SHA-256 of the bundle's files each time it is opened. False for a folder that
 *   nothing but this app can write to, and whose hashes were compared when it was filled.
 * @property trust refuse a bundle that none of these keys has signed whenever its encoder is opened; null asks for no
 *   signature.
 */
public data class Opening(
    public val maxTokens: Int? = null,
    public val overlap: Int? = null,
    public val keepFull: String? = null,
    public val threads: Int? = null,
    public val lowMemory: Boolean = false,
    public val hashes: Boolean = true,
    public val trust: TrustedKeys? = null,
) {
    internal fun encoder(folder: File): BundleEncoder = BundleEncoder(Encoder.open(folder, threads, lowMemory, hashes, trust = trust))

    /** @throws UsageException if a store was made with other options than are asked for. */
    internal fun check(store: Store) {
        val rule = store.rule
        if (keepFull != null && keepFull != store.keepFull) {
            throw UsageException(
                "${store.path} keeps ${store.keepFull ?: "no"} full vectors, not ${shorten(keepFull)}: leave out this option, or create another store",
            )
        }
        if (maxTokens != null && maxTokens != rule.maxTokens || overlap != null && overlap != rule.overlap) {
            throw UsageException(
                "${store.path} has passages of up to ${rule.maxTokens} tokens with an overlap of ${rule.overlap}, which cannot be changed: " +
                    "leave out these options, or create another store",
            )
        }
    }
}

/** The encoder of an index: the one that was given, or that of the store's bundle, opened when it is first needed. */
internal class Model(private val store: Store, private val given: TextEncoder?, private val opening: Opening) {
    private val lock = ReentrantReadWriteLock()
    private var opened: BundleEncoder? = null

    /** Takes over an encoder that is open already. */
    fun adopt(encoder: BundleEncoder) {
        opened = encoder
    }

    /** Runs a block with the encoder; it stays open meanwhile. */
    fun <T> lend(block: (TextEncoder) -> T): T {
        if (given != null) return block(given)
        while (true) {
            lock.read { current()?.let { return block(it) } }
            lock.write {
                if (current() == null) {
                    close()
                    opened = opening.encoder(findBundle(store))
                }
            }
        }
    }

    /** The code of a full vector of unit length; no model is loaded. */
    fun codeOf(full: FloatArray): ByteArray = given?.codeOf(full) ?: codeOf(full, findBundle(store))

    /** Closes the encoder once nobody uses it; the next use opens it again. */
    fun release(): Unit = lock.write { close() }

    private fun current(): BundleEncoder? = opened?.takeIf { it.binding.code == store.binding.code }

    private fun close() {
        opened?.close()
        opened = null
    }
}

/**
 * The folder of a store's bundle: beside the store as it was, or at its former absolute path.
 *
 * @throws UsageException if there is no bundle at either place.
 * @throws BindingException if the bundle that is there now has another embedding space or code.
 */
internal fun findBundle(store: Store): File {
    var wrong: BindingException? = null
    for (folder in store.bundleCandidates) {
        try {
            store.require(bindingOf(manifestOf(folder), folder))
            return folder
        } catch (e: BindingException) {
            wrong = e
        } catch (_: BundleException) {
        }
    }
    throw wrong ?: UsageException("the bundle of ${store.path} is not at ${store.binding.bundle} any more: open the index with the bundle's folder")
}
