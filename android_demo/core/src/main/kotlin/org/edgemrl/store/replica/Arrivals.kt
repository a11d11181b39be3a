package org.edgemrl.store.replica

import kotlin.math.abs
import org.edgemrl.DamagedException
import org.edgemrl.Document
import org.edgemrl.EdgeMrlException
import org.edgemrl.NetworkException
import org.edgemrl.NotEnrolledException
import org.edgemrl.StoreException
import org.edgemrl.codes.CodeKind
import org.edgemrl.store.Binding
import org.edgemrl.store.Database
import org.edgemrl.store.Entry
import org.edgemrl.store.SqlException
import org.edgemrl.store.Store
import org.edgemrl.store.decodeMetadata
import org.edgemrl.store.encodeCodes
import org.edgemrl.store.textHash
import org.edgemrl.wire.Item
import org.edgemrl.wire.Wall

/** SQLite's codes for values that it cannot take: SQLITE_ERROR, TOOBIG, CONSTRAINT, MISMATCH, RANGE. */
private val DOCUMENT_CODES = setOf(0, 1, 18, 19, 20, 25)

/** An item with its document as this store keeps it; null for a deletion. */
internal class Pulled(val item: Item, val entry: Entry?)

/**
 * What other devices wrote, in numbers.
 *
 * @property withheld how many versions could not be stored.
 * @property conflicts how many replaced another text of this device's, now a dead letter.
 */
internal class Applied(val put: Int, val deleted: Int, val withheld: Int, val conflicts: Int)

/**
 * What a page says beside its documents.
 *
 * @property cursor the server's change up to which all was pulled with them; null if some is missing.
 * @property epoch the server's epoch, in which [cursor] counts.
 * @property offsetMs the server's clock less this machine's; null if not known.
 */
internal class Position(val cursor: Long? = null, val epoch: String = "", val offsetMs: Long? = null)

/**
 * Stores what other devices wrote, where it is newer than what is here.
 *
 * @param withheld versions that arrived with these and cannot be stored.
 * @param code space and code that the entries are of.
 * @throws NotEnrolledException if the store is not enrolled.
 * @throws NetworkException if the store was bound to another bundle meanwhile; nothing is stored.
 */
internal fun applyPulled(store: Store, pulled: List<Pulled>, withheld: List<Withheld>, position: Position, code: Pair<String, String>): Applied =
    store.taking { taking ->
        val database = taking.database
        val now = requireEnrollment(database, store)
        if (code != store.binding.code) throw NetworkException("the store was changed to another bundle meanwhile: try again")
        val local = LocalDocuments(database, pulled.map { it.item.id }, store.binding, ownNames(database, now))
        val news = newerVersions(database, pulled, local)
        if (store.keepFull == "until-synced") database.many("DELETE FROM fulls WHERE document = ?", news.same.map { listOf(it) })
        writeVersions(database, news.versions)
        val after = now.copy(
            cursor = position.cursor ?: now.cursor,
            epoch = if (position.cursor == null) now.epoch else position.epoch,
            offsetMs = position.offsetMs ?: now.offsetMs,
            successMs = Wall.nowMs(),
        )
        writeEnrollment(database, after.seen(pulled.map { it.item.stamp }))
        forgetWithheld(database, pulled.associate { it.item.id to it.item.version })
        val known = knownVersions(database, withheld.map { it.id })
        val unknown = withheld.filter { one -> known[one.id]?.let { it.version < one.version } ?: true }
        writeWithheld(database, unknown)
        val gone = news.gone.filter { it in local.keys }
        taking.delete(gone)
        taking.put(news.entries)
        Applied(news.entries.size, gone.size, unknown.size, local.conflicts)
    }

/** Whether it may be one of the documents that an attempt to store them failed for; if not, store, disk or memory is the reason. */
internal fun concernsDocuments(error: Exception): Boolean = when (error) {
    is DamagedException -> true
    is SqlException -> error.code in DOCUMENT_CODES
    is StoreException, is NotEnrolledException, is NetworkException -> false
    is EdgeMrlException -> true
    else -> error !is java.io.IOException
}

/** What of a pull is new here: documents, ids of deletions, keys of equal documents, versions. */
private class News(val entries: List<Entry>, val gone: List<String>, val same: List<Long>, val versions: Map<String, Known>)

/** What of a pull replaces what is here; what it replaces leaves the queue. */
private fun newerVersions(database: Database, pulled: List<Pulled>, local: LocalDocuments): News {
    val known = knownVersions(database, pulled.map { it.item.id })
    val entries = ArrayList<Entry>()
    val gone = ArrayList<String>()
    val same = ArrayList<Long>()
    val versions = LinkedHashMap<String, Known>()
    for (one in pulled) {
        val item = one.item
        val before = known[item.id]
        if (before != null && !isNewer(one, before, local)) {
            if (before.version == item.version && before.acknowledged < item.stamp) versions[item.id] = before.copy(acknowledged = item.stamp)
            continue
        }
        versions[item.id] = Known(item.version, item.deleted, item.stamp)
        local.takeOffQueue(item.id, item.stamp, item.deleted, before)
        if (one.entry == null) {
            gone.add(item.id)
        } else if (local.same(one.entry)) {
            same.add(local.keys.getValue(item.id))
        } else {
            val mine = local.keepReplaced(item, one.entry, before)
            entries.add(local.complete(item, one.entry, ownFile = !mine))
        }
    }
    return News(entries, gone, same, versions)
}

/** Whether a version that was pulled replaces what is here. */
private fun isNewer(one: Pulled, before: Known, local: LocalDocuments): Boolean {
    val version = one.item.version
    if (version != before.version) return version > before.version
    // The same one: only where its codes are missing here, after the store's bundle was changed.
    return one.entry != null && one.entry.spans.isNotEmpty() && local.isHollow(one.item.id)
}

/** What only this device knows of a document, and what text of it is here. */
private class LocalRow(val metadata: String, val source: String?, val hasText: Boolean, val hash: ByteArray)

/** What a store has of documents that others have written too. */
internal class LocalDocuments(private val database: Database, ids: Collection<String>, private val binding: Binding, private val own: Set<String>) {
    /** Keys of those documents that are here, by id. */
    val keys: Map<String, Long>
    var conflicts = 0
        private set
    private val rows = HashMap<String, LocalRow>()
    private val codes: Map<Long, ByteArray>
    private val queued = waitingAmong(database, ids)

    init {
        val found = LinkedHashMap<String, Long>()
        for (row in database.select("id, key, metadata, source, text <> '', hash", "id", ids)) {
            found[row[0] as String] = row[1] as Long
            rows[row[0] as String] = LocalRow(row[2] as String, row[3] as String?, row[4] == 1L, row[5] as ByteArray)
        }
        keys = found
        codes = database.select("document, codes", "document", found.values, "passages").associate { it[0] as Long to it[1] as ByteArray }
    }

    /** Whether a document is here without text and codes. */
    fun isHollow(id: String): Boolean = id in keys && !rows.getValue(id).hasText && keys[id] !in codes

    /** Takes a version that lost off the queue. What was written here and deleted elsewhere is kept. */
    fun takeOffQueue(id: String, stamp: Long, deleted: Boolean, before: Known?) {
        if (id in queued) database.execute("DELETE FROM outbox WHERE id = ?", id)
        val mine = before != null && before.version.device in own
        val accepted = before == null || before.acknowledged >= before.version.stamp
        if (deleted && mine && !accepted && id in rows) keepAsLetter(id, stamp, DELETED_ELSEWHERE)
    }

    /**
     * Keeps a text of this device's that another text takes the place of, as a dead letter. An edit that comes
     * with its text, of a document that was put here without a file, is no case of this.
     *
     * @return whether there was such a text.
     */
    fun keepReplaced(item: Item, entry: Entry, before: Known?): Boolean {
        val row = rows[item.id]
        val mine = before == null || before.version.device in own
        if (row == null || !row.hasText || !mine || row.hash.contentEquals(textHash(entry.document.text))) return false
        if (entry.document.text.isNotEmpty() && row.source == null) return false
        keepAsLetter(item.id, item.stamp, REPLACED_ELSEWHERE)
        conflicts++
        return true
    }

    private fun keepAsLetter(id: String, stamp: Long, reason: String) {
        val (metadata, text) = database.row("SELECT metadata, text FROM documents WHERE id = ?", id)!!
        writeDeadLetter(database, id, stamp, reason, kept = Kept(metadata.toString(), text.toString()))
    }

    /**
     * Whether the same text is here already: the same codes, and no other text or metadata came. Where the newer
     * version comes without its text, the text that is here is that version's too.
     */
    fun same(entry: Entry): Boolean {
        val key = keys[entry.document.id] ?: return false
        if (entry.document.text.isNotEmpty() || entry.document.metadata.isNotEmpty() || entry.spans.isEmpty()) return false
        val here = codes[key]
        val there = encodeCodes(entry, binding)
        if (here == null || here.size != there.size) return false
        if (binding.packing.kind != CodeKind.INT8) return here.contentEquals(there)
        // They travelled as float16: a value between two codes may be rounded the other way.
        return here.indices.all { abs(here[it] - there[it]) <= 1 }
    }

    /** The document with what only this device knows: its file, and metadata that was not sent. */
    fun complete(item: Item, entry: Entry, ownFile: Boolean): Entry {
        val row = rows[item.id]
        if (row == null || !ownFile) return entry
        val metadata = if (item.metadata == null) decodeMetadata(row.metadata) else entry.document.metadata
        return Entry(Document(item.id, entry.document.text, metadata, row.source), entry.spans, entry.codes, entry.full)
    }
}
