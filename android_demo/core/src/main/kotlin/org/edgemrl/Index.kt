package org.edgemrl

import java.io.Closeable
import java.io.File
import org.edgemrl.encode.BundleEncoder
import org.edgemrl.encode.bindingOf
import org.edgemrl.encode.manifestOf
import org.edgemrl.encode.passageRule
import org.edgemrl.search.DEFAULT_MARGIN
import org.edgemrl.search.Funnel
import org.edgemrl.search.Mode
import org.edgemrl.search.QueryVectors
import org.edgemrl.search.Rerank
import org.edgemrl.search.Results
import org.edgemrl.search.SearchOptions
import org.edgemrl.search.exactScores
import org.edgemrl.search.queryOf
import org.edgemrl.search.reorder
import org.edgemrl.search.requireRerankable
import org.edgemrl.search.requireVectorMode
import org.edgemrl.search.search
import org.edgemrl.search.shortlistOf
import org.edgemrl.search.similar
import org.edgemrl.search.tune
import org.edgemrl.search.tuned
import org.edgemrl.store.Binding
import org.edgemrl.store.Compaction
import org.edgemrl.store.Counts
import org.edgemrl.store.Entry
import org.edgemrl.store.Health
import org.edgemrl.store.Store
import org.edgemrl.store.encodeMetadata
import org.edgemrl.store.replica.enrollmentOf
import org.edgemrl.store.textHash
import org.edgemrl.sync.Reranker

/** The most documents, and about the most characters, that are embedded and committed together. */
private const val BATCH_DOCUMENTS = 256
private const val BATCH_CHARS = 100_000

/** Damaged documents that an error names. */
private const val MOST_NAMED = 5

/** What an index needs of a bundle: texts to vectors. */
public interface TextEncoder {
    /** The embedding space and the code of the vectors, how stores pack them, and the bundle's folder. */
    public val binding: Binding

    /** A query's vectors; the bundle's prompt for queries is added. @throws EncoderException if it cannot be encoded. */
    public fun encodeQuery(text: String): QueryVectors

    /**
     * The code of a full vector of unit length: int8, `dim` elements.
     *
     * @throws UsageException if this encoder makes none.
     */
    public fun codeOf(full: FloatArray): ByteArray = throw UsageException("this encoder makes no codes of full vectors: search with a code")

    /**
     * Cuts documents into passages and embeds them.
     *
     * @param rule the longest passage, and the overlap of neighbours.
     * @param full whether full vectors are wanted too.
     * @return an entry for each document, in order.
     * @throws EncoderException if one of the texts cannot be encoded.
     */
    public fun embed(documents: List<Document>, rule: PassageRule, full: Boolean): List<Entry>
}

/** A document that was left out because the bundle cannot take its text; [reason] is what the bundle said. */
public data class Refused(public val id: String, public val reason: String)

/**
 * What a put did.
 *
 * @property added new documents.
 * @property updated documents whose text was replaced.
 * @property unchanged documents whose text was stored already, and was not embedded again.
 * @property passages passages that were embedded.
 * @property refused documents that were left out because the bundle cannot take their texts.
 */
public data class Stored(
    public val added: Int = 0,
    public val updated: Int = 0,
    public val unchanged: Int = 0,
    public val passages: Int = 0,
    public val refused: List<Refused> = emptyList(),
) {
    /** All documents that were put, including unchanged ones. */
    public val documents: Int get() = added + updated + unchanged

    public operator fun plus(other: Stored): Stored = Stored(
        added + other.added, updated + other.updated, unchanged + other.unchanged, passages + other.passages, refused + other.refused,
    )
}

/**
 * A store together with its bundle: documents in and answers out. Threads may share an index. Calls block;
 * make them on an executor's thread.
 *
 * @property store the store itself, to put vectors that were computed elsewhere.
 */
public class Index private constructor(public val store: Store, private val model: Model) : Closeable {
    /** Asks the server that the store is enrolled with. */
    private val server = lazy { Reranker(store) }

    /** The store's file. */
    public val path: File get() = store.path

    /**
     * Stores documents. Each replaces the one with its id; unchanged text is not embedded again.
     *
     * Documents are read, embedded and committed in batches, in order, in bounded memory. A document is stored
     * completely or not at all, and is durable once its batch is committed.
     *
     * @param skipRefused whether documents whose texts the bundle cannot take are only listed in the result.
     * @param committed called after each commit with the totals so far.
     * @throws RefusedDocumentsException if documents were left out; all others were stored.
     * @throws UsageException if a store cannot keep a document's metadata; the documents before it are stored.
     * @throws StoreException if the current batch was not stored.
     */
    public fun put(documents: Iterable<Document>, skipRefused: Boolean = false, committed: (Stored) -> Unit = {}): Stored {
        var total = Stored()
        batches(documents) { batch ->
            total += putBatch(batch)
            committed(total)
        }
        val first = total.refused.firstOrNull()
        if (first != null && !skipRefused) {
            throw RefusedDocumentsException(
                "${total.refused.size} of ${total.documents + total.refused.size} documents were left out because of their texts, " +
                    "such as ${shorten(first.id)} (${first.reason}); the others are stored",
                total,
            )
        }
        return total
    }

    /** Deletes documents; returns how many there were. */
    public fun delete(ids: Iterable<String>): Int = store.delete(ids)

    /** The documents with these ids, by id; ids without a document are left out. */
    public fun get(ids: Iterable<String>): Map<String, Document> = store.get(ids)

    /**
     * Gives each document, with its text and metadata, in the order in which they were first put: one state of the
     * store, one document at a time. Nothing may be written within [action].
     *
     * @param filter that of [SearchOptions]; an empty one gives all.
     * @throws DamagedException if documents are not what was put; all others were given before.
     */
    public fun documents(filter: Map<String, Any?> = emptyMap(), action: (Document) -> Unit) {
        val bad = ArrayList<String>()
        store.reading { it.each(filter, { id -> bad.add(id) }, action) }
        if (bad.isEmpty()) return
        val named = bad.take(MOST_NAMED).joinToString { shorten(it) }
        throw DamagedException("${bad.size} documents of $path are not what was stored, such as $named: put them again, or delete them")
    }

    /** Counts documents and passages. */
    public fun count(): Counts = store.count()

    /**
     * Finds the documents that answer a query best. A document of several passages counts by its best one.
     *
     * @param query in the user's words; the bundle's prompt for queries is added.
     * @param words what is looked for among words, where that differs from the query, such as `ferr*` while
     *   somebody types it.
     * @throws UsageException if the store cannot be searched that way, or its bundle is not where it was.
     * @throws BundleException if the bundle cannot be trusted or opened.
     */
    public fun search(query: String, options: SearchOptions = SearchOptions(), words: String = query): Results {
        if (options.mode == Mode.KEYWORD) return search(store, words, null, options)
        val (vectors, code) = model.lend { it.encodeQuery(query) to it.binding.code }
        return search(store, words, vectors, options, code)
    }

    /**
     * The same by meaning, with the best 100 documents ordered by somebody who has the full vectors.
     *
     * @param options the mode is [Mode.VECTOR], without diversity.
     * @param rerank who is asked, when, and how long.
     * @return the hits, and who ordered them; if the server did not, `reason` says why.
     */
    public fun search(query: String, options: SearchOptions = SearchOptions(), rerank: Rerank): Results {
        requireRerankable(options)
        val (vectors, code) = model.lend { it.encodeQuery(query) to it.binding.code }
        val found = search(store, query, vectors, shortlistOf(options), code)
        val full = vectors.full
        if (full == null) {
            return found.copy(hits = found.hits.take(options.k), reason = "the bundle gives no full vectors".takeIf { found.hits.isNotEmpty() })
        }
        val margin = if (rerank.onlyInDoubt) enrollmentOf(store)?.margin ?: DEFAULT_MARGIN else null
        return reorder(found, options.k, margin, { (rerank.scorer ?: server.value).rerank(it, full, rerank.deadlineS) }) { exactScores(store, it, full) }
    }

    /**
     * Finds the documents that are nearest to a vector. No model is loaded.
     *
     * @param vector a full vector of the store's embedding space: `fullDim` elements, of any length.
     * @param options the mode is [Mode.VECTOR].
     * @throws UsageException if it is no such vector.
     */
    public fun searchVector(vector: FloatArray, options: SearchOptions = SearchOptions()): Results {
        requireVectorMode(options)
        val binding = store.binding
        return search(store, "", queryOf(vector, binding) { model.codeOf(it) }, options, binding.code)
    }

    /** Finds the documents that are nearest to a code, int8 with `dim` elements, see the other `searchVector`. */
    public fun searchVector(code: ByteArray, options: SearchOptions = SearchOptions()): Results {
        requireVectorMode(options)
        return search(store, "", queryOf(code, store.binding), options)
    }

    /**
     * Finds the documents that are most like one that is stored, which is left out. It is compared by the mean of
     * its passages' vectors. No model is loaded.
     *
     * @param options the mode is [Mode.VECTOR].
     * @throws UsageException if there is no such document, or it has no passages.
     * @throws DamagedException if it is not what was stored.
     */
    public fun similar(id: String, options: SearchOptions = SearchOptions()): Results = similar(store, id, options)

    /** Ids of the documents that match a filter, sorted. */
    public fun select(filter: Map<String, Any?>): List<String> = store.reading { it.idsWhere(filter) }

    /** The stages of all searches that give none, until the bundle is changed; null for the default ones. */
    public var stages: Funnel?
        get() = tuned(store)
        set(value) = tune(store, value)

    /** Whether a bundle's codes belong in this store. @throws BundleException if it has no manifest that can be read. */
    public fun takes(bundle: File): Boolean = bindingOf(manifestOf(bundle), bundle).code == store.binding.code

    /** Compares everything stored with its checksums. */
    public fun check(): Health = store.check()

    /** Makes the indexes of words and metadata anew, see [Store.repairIndexes]. */
    public fun repairIndexes(): Health = store.repairIndexes()

    /** Frees the space of deleted documents. */
    public fun compact(): Compaction = store.compact()

    /** Runs a block with the bundle's encoder, which stays open meanwhile; opened if it is not. */
    public fun <T> withEncoder(block: (TextEncoder) -> T): T = model.lend(block)

    /**
     * Closes the bundle's encoder once no other thread uses it, and gives caches of codes back; what needs them next
     * opens them again. For a phone that is low on memory.
     */
    public fun release() {
        model.release()
        releaseCaches()
    }

    /** Gives caches of codes and of the database back; the next search reads them again. */
    public fun releaseCaches(): Unit = store.releaseCaches()

    override fun close() {
        if (server.isInitialized()) server.value.close()
        model.release()
        store.close()
    }

    private fun batches(documents: Iterable<Document>, put: (List<Document>) -> Unit) {
        val batch = LinkedHashMap<String, Document>()
        var chars = 0
        fun flush() {
            if (batch.isNotEmpty()) put(batch.values.toList())
            batch.clear()
            chars = 0
        }
        val following = documents.iterator()
        var failed: Exception? = null
        while (failed == null) {
            val document = try {
                if (!following.hasNext()) break
                following.next().also { check(it) }
            } catch (e: Exception) { // what was given before is stored first
                failed = e
                break
            }
            if (document.id in batch) flush()
            batch[document.id] = document
            chars += document.text.length
            if (batch.size >= BATCH_DOCUMENTS || chars >= BATCH_CHARS) flush()
        }
        flush()
        failed?.let { throw it }
    }

    private fun check(document: Document) {
        encodeMetadata(document.metadata, document.id)
        document.source?.let { idProblem(it) }?.let { throw UsageException("document ${shorten(document.id)}: its source $it") }
    }

    private fun putBatch(batch: List<Document>): Stored {
        val known = store.hashes(batch.map { it.id })
        val (same, fresh) = batch.partition { document -> known[document.id]?.contentEquals(textHash(document.text)) == true }
        val refused = ArrayList<Refused>()
        var entries = embed(fresh, refused)
        val stale = store.put(entries, same)
        if (stale.isNotEmpty()) {
            val again = embed(stale, refused)
            store.put(again)
            entries = entries + again
        }
        val updated = entries.count { it.document.id in known }
        return Stored(entries.size - updated, updated, same.size - stale.size, entries.sumOf { it.spans.size }, refused)
    }

    /** Embeds documents; those with texts that the bundle cannot take are found by halves and left out. */
    private fun embed(documents: List<Document>, refused: MutableList<Refused>): List<Entry> {
        if (documents.isEmpty()) return emptyList()
        try {
            return model.lend { it.embed(documents, store.rule, store.keepFull != null) }
        } catch (e: EncoderException) {
            if (documents.size == 1) {
                refused.add(Refused(documents[0].id, e.message ?: "no reason"))
                return emptyList()
            }
        }
        val middle = documents.size / 2
        return embed(documents.subList(0, middle), refused) + embed(documents.subList(middle, documents.size), refused)
    }

    public companion object {
        /**
         * Opens a store; if there is none and a bundle is given, makes it. The bundle's encoder is opened when it is
         * first needed.
         *
         * @param bundle the bundle's folder. Needed to make a store and, later, only if the bundle has moved: a
         *   store remembers the absolute path and the path from the store's folder.
         * @throws NoStoreException if there is no store, and no bundle is given.
         * @throws UsageException if the store was made with other options.
         * @throws BundleException if the bundle cannot be trusted or opened.
         * @throws BindingException if the store was made with another embedding space or code.
         */
        public fun open(path: File, bundle: File? = null, opening: Opening = Opening()): Index {
            if (bundle == null) return keeping(Store.open(path)) { store -> Index(store, Model(store, null, opening)).also { opening.check(store) } }
            if (!bundle.isDirectory) throw UsageException("no bundle at $bundle: expected a folder made by `edge-mrl export`")
            val binding = bindingOf(manifestOf(bundle), bundle)
            val store = try {
                Store.open(path)
            } catch (_: NoStoreException) {
                return make(path, opening, opening.encoder(bundle))
            }
            return keeping(store) {
                store.require(binding)
                opening.check(store)
                Index(store, Model(store, null, opening))
            }
        }

        /**
         * Opens a store with an encoder of one's own, which is not closed with the index.
         *
         * @throws NoStoreException if there is no store at this path.
         * @throws BindingException if the store was made with another embedding space or code.
         */
        public fun open(path: File, encoder: TextEncoder): Index = keeping(Store.open(path)) { store ->
            store.require(encoder.binding)
            Index(store, Model(store, encoder, Opening()))
        }

        /**
         * Opens a store with an encoder of one's own; makes it if there is none.
         *
         * @param rule how documents are split into passages, if the store is made now.
         * @param keepFull how full vectors are kept, see [Opening].
         */
        public fun openOrCreate(path: File, encoder: TextEncoder, rule: PassageRule, keepFull: String? = null): Index {
            val store = Store.create(path, encoder.binding, rule, keepFull)
            return Index(store, Model(store, encoder, Opening()))
        }

        private fun make(path: File, opening: Opening, encoder: BundleEncoder): Index = keeping(encoder) {
            val rule = passageRule(encoder.encoder, opening.maxTokens, opening.overlap)
            keeping(Store.create(path, encoder.binding, rule, opening.keepFull)) { store ->
                opening.check(store) // another process may have been first
                Index(store, Model(store, null, opening).also { it.adopt(encoder) })
            }
        }

        /** Runs a block with what was opened; closes it if the block throws. */
        private inline fun <C : Closeable, T> keeping(opened: C, block: (C) -> T): T {
            var done = false
            try {
                return block(opened).also { done = true }
            } finally {
                if (!done) opened.close()
            }
        }
    }
}
