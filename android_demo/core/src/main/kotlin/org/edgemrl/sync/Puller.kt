package org.edgemrl.sync

import java.io.File
import java.io.IOException
import org.edgemrl.NetworkException
import org.edgemrl.OversizedAnswerException
import org.edgemrl.ServerException
import org.edgemrl.WireException
import org.edgemrl.store.Store
import org.edgemrl.store.replica.Agreed
import org.edgemrl.store.replica.Enrollment
import org.edgemrl.store.replica.Position
import org.edgemrl.store.replica.Pulled
import org.edgemrl.store.replica.Restamp
import org.edgemrl.store.replica.ServerPosition
import org.edgemrl.store.replica.There
import org.edgemrl.store.replica.Withheld
import org.edgemrl.store.replica.applyPulled
import org.edgemrl.store.replica.concernsDocuments
import org.edgemrl.store.replica.enrollmentOf
import org.edgemrl.store.replica.everAcknowledged
import org.edgemrl.store.replica.queueOf
import org.edgemrl.store.replica.reconcile
import org.edgemrl.store.replica.takeRestamp
import org.edgemrl.wire.Item
import org.edgemrl.wire.UnreadableItem
import org.edgemrl.wire.VectorType
import org.edgemrl.wire.Vectors
import org.edgemrl.wire.decodeMessage
import org.edgemrl.wire.decodeReadableItems

/** Why a document is not here whose page cannot be read with it. */
private const val NOT_READ = "the server's message with this document cannot be read"

/** How much less is asked for after a page that cannot be read. */
private const val FEWER = 8

/** Documents of a snapshot that are committed together: each commit flushes to disk and rewrites pages. */
private const val BATCH_DOCUMENTS = 4_096

/** Most documents in one frame of a snapshot. */
private const val FRAME_ITEMS = 65_536

/** How often a snapshot may change while it is read; then changes are pulled instead. */
private const val SNAPSHOT_TRIES = 3

/** Statuses of a server that makes no snapshot, or has another one now. */
private val NO_SNAPSHOT = setOf(404, 412, 416, 501)

/** Documents of some groups, as a server has them, and the largest stamp of others' versions that it takes. */
internal class GroupsThere(val there: Map<String, There>, val offers: Long?)

/** Brings a server's documents into a store. @throws org.edgemrl.UsageException if the store's bundle is not where it was. */
internal class Puller(private val store: Store, private val remote: Remote, private val budget: Budget, private val tally: Tally) {
    private val bundle = StoreBundle(store)
    private val manifest = bundle.manifest
    private val code = CodeKey.of(manifest)
    private val madeFor = manifest.spaceId to manifest.code.id

    // A store that keeps full vectors makes its codes from them.
    private val full = store.keepFull == "fp16" || store.keepFull == "int8"
    private val entries = Entries(bundle, code.packing, full)
    private var form = PageForm(if (full) "full" else "coarse", code)

    /**
     * Pulls what changed since the last time; returns the last page.
     *
     * @throws ServerException `fenced`: the server has forgotten deletions since then. `restored`: the server was
     *     restored from an older copy. In both cases [everything] has to be pulled.
     */
    fun changes(): ChangePage {
        while (true) {
            val now = enrollmentOf(store)
            val page = page(now?.cursor ?: 0, epoch = now?.epoch ?: "", push = now?.answered ?: 0)
            apply(page, page.cursor)
            if (!page.more) return page
        }
    }

    /** Pulls what changed since the last time, with the sums of the tenant's documents. */
    fun sums(): ChangePage = asking(form.copy(sums = true)) { changes() }

    /** Pulls all documents of some groups again; [differs] says in how many of them the sides differ, 0 where that is not the reason. */
    fun groups(groups: Set<Int>, differs: Int): GroupsThere = asking(form.copy(groups = groups, differs = differs)) {
        val there = HashMap<String, There>()
        val last = pages { page ->
            for (item in page.items) there[item.id] = There(item.version, item.deleted)
            for (item in page.unreadable) there[item.id] = There(item.version, item.deleted)
        }
        GroupsThere(there, last.offers)
    }

    /**
     * Fills a store that has pulled nothing yet: by a snapshot where that is enough, else page by page.
     *
     * @return what [everything] returns if it was needed; null if a snapshot was enough.
     */
    fun bootstrap(): Agreed? {
        // A snapshot has no deletions, and may be older than what this device has sent since. What waits may have
        // been sent already, its answer lost, and deleted by others.
        if (full || everAcknowledged(store) || queueOf(store).items != 0L) return everything()
        repeat(SNAPSHOT_TRIES) {
            try {
                if (takeSnapshot()) return null
            } catch (e: ServerException) {
                if (e.status !in NO_SNAPSHOT) throw e
                partPath.delete()
            } catch (_: OversizedAnswerException) { // a server that knows no ranges: in pages, then
                return everything()
            } catch (e: IOException) { // no room on the disk for what is taken apart anyway
                partPath.delete()
                return everything()
            }
        }
        return everything()
    }

    private val partPath get() = File("${store.path.path}-sync.part")

    /** Fetches and applies a snapshot; false if it changed meanwhile. */
    private fun takeSnapshot(): Boolean = PartFile(partPath, "${code.query} ${manifest.spaceId}").use { part ->
        while (!part.isComplete) part.add(whenPrepared { remote.snapshot(code, part.size, part.etag) })
        try {
            part.isSound().also { if (it) apply(part) }
        } finally {
            part.remove() // also if it cannot be read: the next run asks for another one
        }
    }

    /** Sends a request for a snapshot; again while the server makes it, as it asks for. */
    private fun <T> whenPrepared(ask: () -> T): T {
        while (true) {
            try {
                return withHead(ask)
            } catch (e: ServerException) {
                if (e.code != PREPARING) throw e
                budget.waitPrepared(e)
            }
        }
    }

    private fun apply(part: PartFile) {
        val items = ArrayList<Item>()
        val unreadable = ArrayList<UnreadableItem>()
        var end: Position? = null
        part.frames { frame ->
            val message = try {
                decodeMessage(frame).also { message ->
                    val found = decodeReadableItems(message, FRAME_ITEMS)
                    items += found.items
                    unreadable += found.unreadable
                }
            } catch (e: WireException) {
                throw NetworkException("the snapshot: ${e.message}", e)
            }
            if (end == null) end = positionOf(message.header)
            if (items.size >= BATCH_DOCUMENTS) {
                storeItems(items.toList(), unreadable.toList(), Position())
                items.clear()
                unreadable.clear()
            }
        }
        // The cursor moves only now: applying a snapshot twice is harmless, missing a part is not.
        storeItems(items, unreadable, end ?: Position(0, ""))
    }

    /** Where a snapshot ends, as its first frame says. */
    private fun positionOf(header: Map<String, Any?>): Position {
        remote.requireAnswer(header, code)
        val cursor = header["cursor"]
        val epoch = header.getOrElse("epoch") { "" }
        if (!isCount(cursor) || epoch != "" && !isWord(epoch)) throw NetworkException("the snapshot: expected cursor as a number, epoch as text")
        return Position(cursor as Long, epoch as String)
    }

    /**
     * Pulls from the beginning, and agrees with the server on what is missing there. It must be known whether the
     * last push arrived ([Pusher.settle]).
     */
    fun everything(): Agreed {
        val now = enrollmentOf(store)
        val there = HashMap<String, Long>()
        var first = true
        val last = pages { page ->
            if (first && now != null && page.restamp != null) take(page.restamp, now)
            first = false
            for (item in page.items) there[item.id] = item.stamp
            for (item in page.unreadable) there[item.id] = item.stamp
        }
        val server = ServerPosition(last.cursor, last.fence, last.epoch, last.kept, last.offers)
        return reconcile(store, there, server, now?.push ?: 0).also { tally.pulled(0, it.deleted) }
    }

    /** Takes over that the server has brought stamps back, unless this store knows of it. */
    private fun take(said: Restamp, now: Enrollment) {
        val new = now.epoch.isEmpty() && now.cursor == 0L
        if (!new && now.epoch !in said.epochs) takeRestamp(store, said)
    }

    /** Applies all pages from the beginning, and gives each to [look] before; returns the last one. */
    private fun pages(look: (ChangePage) -> Unit): ChangePage {
        var page = page(0)
        while (true) {
            look(page)
            apply(page, null)
            if (!page.more) return page
            page = page(page.cursor, page.fence, page.epoch)
        }
    }

    private fun <T> asking(other: PageForm, block: () -> T): T {
        val before = form
        form = other
        try {
            return block()
        } finally {
            form = before
        }
    }

    /** The next changes. One that makes its whole page unreadable comes alone, by its version. */
    private fun page(since: Long, fence: Long? = null, epoch: String? = null, push: Long = 0): ChangePage {
        fun ask(form: PageForm) = withHead { remote.pull(since, form, fence, epoch, push) }
        val page = try {
            ask(form)
        } catch (e: NetworkException) {
            // A server that fails at a document answers 500 to each page that has it.
            if (e !is UnreadablePageException && statusOf(e) != 500) throw e
            if (form.limit > 1) {
                form = form.copy(limit = maxOf(form.limit / FEWER, 1))
                return budget.once { page(since, fence, epoch, push) }
            }
            return outline(ask(form.copy(vectors = "none", text = false, limit = 1)))
        }
        form = form.copy(limit = minOf(form.limit * FEWER, PAGE_ITEMS))
        return page
    }

    /** A page that has no more than versions, of documents that cannot be read. */
    private fun outline(page: ChangePage): ChangePage {
        val (deleted, live) = page.items.partition { it.deleted }
        return page.copy(items = deleted, unreadable = live.map { UnreadableItem(it.id, it.stamp, it.device, it.deleted, NOT_READ) } + page.unreadable)
    }

    /** Sends a request; registers the bundle's projection head first if the server does not know it. */
    private fun <T> withHead(ask: () -> T): T {
        try {
            return budget.attempt(ask)
        } catch (e: ServerException) {
            val head = bundle.head
            if (e.code != "head_unknown" || head == null) throw e
            val data = java.nio.ByteBuffer.allocate(4 * head.values.size).order(java.nio.ByteOrder.LITTLE_ENDIAN)
            data.asFloatBuffer().put(head.values)
            val matrix = Vectors(VectorType.FLOAT32, head.columns, data.array())
            budget.attempt { remote.putHead(code.head, matrix, manifest.head.layerNorm) }
        }
        return budget.attempt(ask)
    }

    /** Stores a page. A document that cannot be stored is said, and stops nothing else. */
    private fun apply(page: ChangePage, cursor: Long?): Unit =
        storeItems(page.items, page.unreadable, Position(cursor, if (cursor == null) "" else page.epoch, page.offsetMs))

    private fun storeItems(items: List<Item>, unreadable: List<UnreadableItem>, position: Position) {
        requireSpace(items)
        val (pairs, others) = entries.of(items, unreadable)
        try {
            take(pairs, others, position)
        } catch (e: RuntimeException) {
            if (!concernsDocuments(e) || pairs.isEmpty()) throw e
            takeApart(pairs, e)
            take(emptyList(), others, position)
        }
    }

    /** Has a server that has not named its space compare it before vectors are used. */
    private fun requireSpace(items: List<Item>) {
        if (!remote.namesSpace && items.any { it.vectors.size > 0 }) budget.attempt { remote.askSpace(manifest.fullDim ?: 1) }
    }

    /** Stores documents in halves, down to those that cannot be stored. */
    private fun takeApart(pairs: List<Pulled>, error: Exception) {
        if (pairs.size == 1) return take(emptyList(), listOf(withheld(pairs[0].item, error)), Position())
        for (half in listOf(pairs.subList(0, pairs.size / 2), pairs.subList(pairs.size / 2, pairs.size))) {
            try {
                take(half, emptyList(), Position())
            } catch (e: RuntimeException) {
                if (!concernsDocuments(e)) throw e
                takeApart(half, e)
            }
        }
    }

    private fun take(pairs: List<Pulled>, others: List<Withheld>, position: Position) {
        val applied = applyPulled(store, pairs, others, position, madeFor)
        tally.pulled(applied.put, applied.deleted, applied.withheld, applied.conflicts)
    }
}
