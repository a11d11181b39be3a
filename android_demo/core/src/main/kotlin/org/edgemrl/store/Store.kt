package org.edgemrl.store

import java.io.File
import java.io.IOException
import java.util.concurrent.locks.ReentrantLock
import kotlin.concurrent.withLock
import org.edgemrl.BindingException
import org.edgemrl.DamagedException
import org.edgemrl.Document
import org.edgemrl.BY_TOKENS
import org.edgemrl.PassageRule
import org.edgemrl.StoreBusyException
import org.edgemrl.StoreException
import org.edgemrl.UsageException
import org.edgemrl.clean
import org.edgemrl.codes.CodeKind
import org.edgemrl.codes.Packing
import org.edgemrl.store.replica.Change
import org.edgemrl.store.replica.note
import org.edgemrl.store.replica.notePut
import org.edgemrl.store.replica.roomInQueue
import org.edgemrl.store.replica.writeSetting

/** How long a write waits for another process's, in milliseconds. */
private const val BUSY_TIMEOUT_MS = 10_000

private const val BOUND_COLUMNS = "space_id, code_id, dim, scale, full_dim, keep_full, passage_tokens, passage_overlap, stored, step, centre"

/** The setting that stays when a store is bound anew: names under which it was enrolled before. */
internal const val FORMER_NAMES = "former"

/** The setting that holds the splitter of the store's passage rule, where that is not `tokens`. */
internal const val SPLITTER = "splitter"

/**
 * Documents, passages and codes in one SQLite file, bound to one embedding space and code: the same file as
 * that of the Python package (FORMAT.md, "Store"). Threads may share a store; processes share the file.
 *
 * The store knows nothing of models: it takes and returns codes as arrays.
 *
 * @property path the file.
 * @property writable whether this process can write the store.
 */
public class Store private constructor(public val path: File, opened: Opened) : java.io.Closeable {
    public val writable: Boolean = opened.writable
    private val database = opened.database
    private val lock = ReentrantLock()
    private val hadLog = log().length() > 0

    /** What the store's codes are. */
    public lateinit var binding: Binding
        private set

    /** How its documents are split into passages. */
    public lateinit var rule: PassageRule
        private set

    /** What it keeps of full vectors: null, `until-synced`, `fp16` or `int8`. */
    public var keepFull: String? = null
        private set
    private var bundleRelative = ""
    private var cache: CodeCache

    init {
        readBinding()
        cache = CodeCache(path, database, binding, writable)
    }

    /** Where the bundle may be: at its path seen from the store's folder, or at its absolute path. */
    public val bundleCandidates: List<File>
        get() = listOfNotNull(bundleRelative.takeIf { it.isNotEmpty() }?.let { File(path.absoluteFile.parentFile, it) }, File(binding.bundle))

    /** Why the code file is not read or written, in words; null if it is. */
    public val cacheProblem: String? get() = cache.problem

    /**
     * Stores documents with their passages and codes, all in one transaction. Each replaces the document of
     * its id; of several with one id the last counts.
     *
     * @param unchanged documents whose text is stored already: only metadata and source are written.
     * @return those of [unchanged] whose text is not stored any more: they must be embedded after all.
     * @throws UsageException for codes of the wrong size, or metadata that a store cannot keep.
     * @throws BindingException if another process has changed the store's bundle.
     * @throws StoreException if the store could not be written; nothing was stored.
     */
    public fun put(entries: List<Entry>, unchanged: List<Document> = emptyList()): List<Document> {
        val rows = entries.associateBy { it.document.id }.values.map { EntryRows(it, binding, keepFull) }
        val kept = unchanged.map { it to encodeMetadata(it.metadata, it.id) }
        val stale = ArrayList<Document>()
        var after: State? = null
        writing { state ->
            requireUnchanged()
            if (keepFull == "until-synced") leaveOutVectors(rows, roomInQueue(database))
            val now = putRows(database, path.path, rows, state)
            val changed = ArrayList<String>()
            for ((document, metadata) in kept) {
                when (putMetadata(database, document, metadata)) {
                    Put.STALE -> stale.add(document)
                    Put.CHANGED -> changed.add(document.id)
                    Put.SAME -> Unit
                }
            }
            notePut(database, rows.map { Change(it.document.id, false, it.bytes) }, changed)
            if (rows.isNotEmpty()) writeState(database, now.with(changes = state.changes + 1))
            after = now
        }
        guarded { cache.keepUp(after!!) }
        return stale
    }

    /** Deletes documents with all that belongs to them; returns how many there were. */
    public fun delete(ids: Iterable<String>): Int = writing { state ->
        val rows = database.select("key, id", "id", ids.distinct())
        removeDocuments(database, rows.map { it[0] as Long })
        note(database, rows.map { Change(it[1] as String, true) })
        if (rows.isNotEmpty()) writeState(database, state.with(changes = state.changes + 1))
        rows.size
    }

    /** Those of the documents that are in the store, by id. @throws DamagedException if one is not what was put. */
    public fun get(ids: Iterable<String>): Map<String, Document> {
        val names = ids.distinct()
        val found = guarded { database.select(DOCUMENT_COLUMNS, "id", names).map { readDocument(it) } }.associateBy { it.id }
        return names.filter { it in found }.associateWith { found.getValue(it) }
    }

    /** Hashes of the texts of those documents whose text is in the store, and sound, by id. */
    public fun hashes(ids: Iterable<String>): Map<String, ByteArray> = guarded { soundHashes(database, ids.toList()) }

    /** Counts documents and passages. */
    public fun count(): Counts = guarded {
        oneState {
            val documents = database.row("SELECT count(*) FROM documents")!![0] as Long
            Counts(documents, readState(database).nextRow - readDead(database).cardinality())
        }
    }

    /**
     * Checks that a bundle's codes belong in this store, and remembers where the bundle is.
     *
     * @throws BindingException if the bundle has another embedding space or code.
     */
    public fun require(bundle: Binding) {
        val mine = binding
        if (bundle.code != mine.code) {
            val what = if (bundle.spaceId != mine.spaceId) "embedding space" else "code"
            throw BindingException(
                "$path was made with another $what: its bundle is ${mine.bundle} ($mine), not ${bundle.bundle} ($bundle): " +
                    "use that bundle, or another store, or change this one with `edge-mrl reindex` on a computer",
            )
        }
        if (bundle.bundle == mine.bundle || !writable) return
        val relative = relativeBundle(bundle.bundle, path)
        writing { database.execute("UPDATE binding SET bundle = ?, bundle_relative = ?", clean(bundle.bundle), relative) }
        binding = mine.copy(bundle = bundle.bundle)
        bundleRelative = relative
    }

    /** Keeps a setting for searches in the codes that the store has now; null deletes it. */
    public fun setSetting(name: String, value: String?) {
        writing {
            requireUnchanged()
            writeSetting(database, name, value)
        }
    }

    /** Compares everything in the store with its checksums, and every index with what it indexes. */
    public fun check(): Health = lending { database, cache -> Check(database, cache).examine() }

    /**
     * Makes what [check] names of indexes whole again: the index of words, that of metadata, and SQLite's own are made
     * anew out of the documents. Documents that are not what was stored stay as they are: put them again, or delete them.
     * A kill at any moment leaves the store as it was.
     *
     * @return what a check finds then.
     * @throws StoreException if the store cannot be written, or its tables are damaged themselves: `edge-mrl check
     *     --repair` on a computer saves what can be read.
     */
    public fun repairIndexes(): Health {
        remakeIndexes(this)
        return check()
    }

    /** Drops the rows of deleted passages, and gives free space back. A kill at any moment loses nothing. */
    public fun compact(): Compaction = compact(this)

    /** Gives memory of codes and of the database back; the next search reads them again. */
    internal fun releaseCaches(): Unit = guarded {
        cache.close()
        database.run("PRAGMA shrink_memory")
    }

    override fun close() {
        lock.withLock {
            cache.close()
            database.close()
        }
    }

    /** Shows one state of the store throughout a block, whatever other processes write. */
    internal fun <T> reading(block: (View) -> T): T = guarded {
        if (database.inTransaction) return@guarded block(view()) // a block within a block
        if (!writable && !hadLog && log().length() > 0) throw StoreBusyException("$path is being written now: open it again to read it")
        followBinding()
        cache.heal()
        val result = database.transaction("DEFERRED") {
            followBinding()
            block(view())
        }
        if (cache.damaged) cache.heal()
        result
    }

    /** Runs a block in one transaction that writes; gives it the state at its start. */
    internal fun <T> writing(block: (State) -> T): T {
        if (!writable) throw StoreException("$path cannot be written: it, or its medium, is read-only")
        // IMMEDIATE takes the write lock first: a transaction that starts by reading could not wait.
        return guarded { database.transaction("IMMEDIATE") { block(readState(database)) } }
    }

    /** Runs a block in one transaction that writes what only sync has to do with. */
    internal fun <T> changing(block: (Database) -> T): T = writing { block(database) }

    /**
     * Runs a block in one transaction that stores what other devices wrote; nothing is queued.
     *
     * @throws BindingException if another process has changed the store's bundle.
     */
    internal fun <T> taking(block: (Taking) -> T): T {
        var after: State? = null
        val result = writing { state ->
            requireUnchanged()
            // A server has the full vectors of other devices' documents.
            val taking = Taking(database, path.path, binding, keepFull.takeIf { it != "until-synced" }, state)
            block(taking).also {
                if (taking.changed) writeState(database, taking.state.with(changes = state.changes + 1))
                after = taking.state
            }
        }
        guarded { cache.keepUp(after!!) }
        return result
    }

    /** Takes over what another process has bound the store to. */
    internal fun refresh(): Unit = guarded { followBinding() }

    /** Writes what the store is bound to, in a transaction of [changing]; [refresh] takes it over. */
    internal fun writeBound(database: Database, binding: Binding, keepFull: String?): Unit = writeBound(database, path, binding, rule, keepFull)

    /** Lends the connection and the code file to other parts of this package. */
    internal fun <T> lending(block: (Database, CodeCache) -> T): T = guarded { block(database, cache) }

    private fun view() = View(database, cache, binding, keepFull)

    private fun log() = StoreFile.beside(path, "-wal")

    private fun <T> oneState(block: () -> T): T = if (database.inTransaction) block() else database.transaction("DEFERRED", block)

    /** Runs a block under the store's lock, and names the file in errors about damage. */
    private fun <T> guarded(block: () -> T): T = lock.withLock {
        try {
            block()
        } catch (e: DamagedException) {
            throw named(path, e)
        } catch (e: SqlException) {
            if (e.code == SQLITE_CORRUPT || e.code == SQLITE_NOTADB) database.run("PRAGMA shrink_memory")
            throw e
        }
    }

    private fun requireUnchanged() {
        val code = binding.code
        followBinding()
        if (binding.code != code) {
            throw BindingException("$path has been changed to another bundle, ${binding.bundle} ($binding): use that bundle, and try again")
        }
    }

    /** Takes over the binding if another process has changed it. */
    private fun followBinding() {
        val before = binding
        readBinding()
        if (binding.code != before.code || binding.dim != before.dim) {
            cache.close()
            cache = CodeCache(path, database, binding, writable)
        }
    }

    private fun readBinding() {
        val row = database.row("SELECT $BOUND_COLUMNS, crc, bundle, bundle_relative FROM binding") ?: throw DamagedException("its binding is missing")
        if (checksum(row.asList().subList(0, 11)) != row[11]) throw DamagedException("its binding cannot be trusted")
        val centre = (row[10] as ByteArray?)?.map { it.toInt() }
        val packing = Packing(CodeKind.of(row[8] as String), row[9] as Double?, centre)
        val fullDim = (row[4] as Long?)?.toInt()
        binding = Binding(row[0] as String, row[1] as String, (row[2] as Long).toInt(), row[3] as Double, row[12].toString(), fullDim, packing)
        rule = PassageRule((row[6] as Long).toInt(), (row[7] as Long).toInt(), splitter())
        keepFull = row[5] as String?
        bundleRelative = row[13].toString()
    }

    /** How Python's stores split Markdown; by tokens where that is lost, as Python has it. */
    private fun splitter(): String {
        val (value, crc) = database.row("SELECT value, crc FROM settings WHERE name = ?", SPLITTER) ?: return BY_TOKENS
        return (value as? String)?.takeIf { checksum(SPLITTER, it) == crc } ?: BY_TOKENS
    }

    public companion object {
        /**
         * Opens a store; only to read it where this process cannot write the file or its folder.
         *
         * @throws org.edgemrl.NoStoreException if there is no store at this path.
         * @throws StoreException if the file cannot be used; see the classes below it.
         */
        public fun open(path: File, timeoutMs: Int = BUSY_TIMEOUT_MS): Store = connect(path, timeoutMs, null)

        /**
         * Makes a store and opens it; opens it if there is one that is bound to the same codes.
         *
         * @param keepFull what it keeps of full vectors: null, `until-synced`, `fp16` or `int8`.
         * @throws BindingException if there is a store with other codes.
         */
        public fun create(path: File, binding: Binding, rule: PassageRule, keepFull: String? = null, timeoutMs: Int = BUSY_TIMEOUT_MS): Store {
            if (keepFull !in KEEP_FULL) throw UsageException("keepFull is '$keepFull', expected one of $KEEP_FULL")
            if (keepFull != null && binding.fullDim == null) {
                throw UsageException("$path cannot keep full vectors: the bundle ${binding.bundle} gives none (it was exported with --coarse-only)")
            }
            if (!binding.packing.fits(binding.dim)) throw UsageException("codes of ${binding.dim} dimensions cannot be packed as ${binding.packing}")
            val store = connect(path, timeoutMs) { database ->
                writeBound(database, path, binding, rule, keepFull)
                writeState(database, State(0, 1, 0, 0, ByteArray(GENERATION_BYTES)))
            }
            var done = false
            try {
                store.require(binding)
                done = true
                return store
            } finally {
                if (!done) store.close()
            }
        }

        private fun connect(path: File, timeoutMs: Int, fill: ((Database) -> Unit)?): Store {
            val opened = try {
                StoreFile.connect(path, timeoutMs, fill)
            } catch (e: DamagedException) {
                throw named(path, e)
            }
            try {
                return Store(path, opened)
            } catch (e: DamagedException) {
                opened.database.close()
                throw named(path, e)
            } catch (e: StoreException) {
                opened.database.close()
                throw e
            }
        }

        private fun named(path: File, error: DamagedException): DamagedException {
            val text = error.message ?: ""
            if (text.startsWith(path.path)) return error
            return DamagedException(
                "$path is damaged ($text): `edge-mrl check --repair --store $path` on a computer repairs what can be, and names " +
                    "the documents that have to be put again or deleted",
                error,
            )
        }

        private fun writeBound(database: Database, path: File, binding: Binding, rule: PassageRule, keepFull: String?) {
            val packing = binding.packing
            val centre = packing.centre?.let { some -> ByteArray(some.size) { some[it].toByte() } }
            val bound = listOf<Any?>(
                binding.spaceId, binding.codeId, binding.dim, binding.scale, binding.fullDim, keepFull, rule.maxTokens, rule.overlap,
                packing.kind.label, packing.step, centre,
            )
            val values = listOf<Any?>(1) + bound + listOf(checksum(bound), clean(binding.bundle), relativeBundle(binding.bundle, path))
            database.execute(insertInto("binding", "id, $BOUND_COLUMNS, crc, bundle, bundle_relative", replace = true), *values.toTypedArray())
            database.execute("DELETE FROM settings WHERE name <> ?", FORMER_NAMES)
            if (rule.splitter != BY_TOKENS) {
                val crc = checksum(SPLITTER, rule.splitter)
                database.execute(insertInto("settings", "name, value, crc"), SPLITTER, rule.splitter, crc)
            }
        }

        private fun relativeBundle(bundle: String, path: File): String = try {
            clean(File(bundle).absoluteFile.normalize().relativeTo(path.absoluteFile.normalize().parentFile).path.ifEmpty { "." })
        } catch (_: IllegalArgumentException) { // on another drive
            ""
        } catch (_: IOException) {
            ""
        }
    }
}
