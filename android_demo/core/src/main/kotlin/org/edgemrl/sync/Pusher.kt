package org.edgemrl.sync

import org.edgemrl.EncoderException
import org.edgemrl.IntermediaryException
import org.edgemrl.NetworkException
import org.edgemrl.NotEnrolledException
import org.edgemrl.ServerException
import org.edgemrl.UsageException
import org.edgemrl.WireException
import org.edgemrl.bundle.brief
import org.edgemrl.bundle.hasLoneSurrogate
import org.edgemrl.encode.partsOf
import org.edgemrl.store.Store
import org.edgemrl.store.replica.DAMAGED
import org.edgemrl.store.replica.Enrollment
import org.edgemrl.store.replica.NO_VECTORS
import org.edgemrl.store.replica.Outgoing
import org.edgemrl.store.replica.Verdict
import org.edgemrl.store.replica.acknowledge
import org.edgemrl.store.replica.beginPush
import org.edgemrl.store.replica.enrollmentOf
import org.edgemrl.store.replica.outgoing
import org.edgemrl.store.replica.receiptOf
import org.edgemrl.store.replica.settlePush
import org.edgemrl.wire.Item
import org.edgemrl.wire.MAX_BODY_BYTES
import org.edgemrl.wire.MAX_ITEMS
import org.edgemrl.wire.Vectors
import org.edgemrl.wire.Version
import org.edgemrl.wire.checkId
import org.edgemrl.wire.encodeItems
import org.edgemrl.wire.formatStamp
import org.edgemrl.wire.messageJson

/** Bodies shrink to this when larger ones time out on a slow uplink. */
private const val LEAST_BODY_BYTES = 1 shl 14

/** Versions that a server is told it has lost, at most. */
private const val MAX_LOST = 16
private const val BEHIND =
    "the server's clock is behind a version that it accepted earlier, and documents that are above it wait: on the server, " +
        "`edge-mrl admin restamp TENANT` gives such versions the present time"

/**
 * How much is sent in one request: less after failures, because the uplink may be too slow for more. What a
 * proxy refused as too large is remembered, so that each run does not find it out anew.
 */
internal class BodySize {
    private var ceiling = MAX_BODY_BYTES
    private var mostItems = MAX_ITEMS

    /** Most bytes of a body. */
    var sizeBytes = MAX_BODY_BYTES
        private set

    /** Most documents in a body. */
    var items = MAX_ITEMS
        private set

    /** A run begins: allow twice what was let through the last time. */
    fun begin() {
        ceiling = minOf(ceiling * 2, MAX_BODY_BYTES)
        mostItems = minOf(mostItems * 2, MAX_ITEMS)
        grow()
    }

    /** Halves the size after a body that was not answered. */
    fun shrink() {
        sizeBytes = minOf(maxOf(sizeBytes / 2, LEAST_BODY_BYTES), ceiling)
    }

    /** Doubles the size after a body that was answered. */
    fun grow() {
        sizeBytes = minOf(sizeBytes * 2, ceiling)
        items = minOf(items * 2, mostItems)
    }

    /** Sends half of what was refused as a whole, and no more in this run. */
    fun refuse(size: Int, count: Int) {
        ceiling = maxOf(size / 2, 1)
        sizeBytes = ceiling
        mostItems = maxOf(count / 2, 1)
        items = mostItems
    }
}

/** Documents that are sent together, and the same as one message. */
private class Batch(val items: List<Item>, val frame: ByteArray)

/** A push was refused as a whole, because of its size or because of a document in it. */
private class RefusedException(val batch: Batch, val reason: String, cause: NetworkException) : Exception(cause.message, cause)

/**
 * Sends a store's queue to a server, in batches until nothing waits.
 *
 * @param vectors makes full vectors of texts, for documents whose vectors were not kept.
 * @param body how much is sent in one request. It changes, and is kept from run to run.
 */
internal class Pusher(
    private val store: Store,
    private val remote: Remote,
    private val vectors: (List<String>) -> List<FloatArray>,
    private val body: BodySize,
    private val budget: Budget,
    private val tally: Tally,
) {
    private val none = Vectors.noFull(store.binding.fullDim ?: 1)
    private val refusedAlone = HashSet<Pair<String, Long>>()
    private val enrollment: Enrollment get() = enrollmentOf(store) ?: throw NotEnrolledException(store.path)

    /**
     * Sends until nothing waits. A push that is refused as a whole is sent again in halves, down to the document
     * that is the reason: that one becomes a dead letter, and the others arrive.
     *
     * @throws NetworkException if the server refused, did not answer, or does not accept this device's stamps yet.
     * @throws RunEndedException if the run's bytes are used up.
     */
    fun push() {
        var roundsAhead = 0
        body.begin()
        while (true) {
            val waiting = outgoing(store, body.items)
            if (waiting.isEmpty()) return
            val verdicts = try {
                pushSome(waiting)
            } catch (e: RefusedException) {
                halve(e)
                continue
            }
            val allAhead = verdicts.isNotEmpty() && verdicts.all { it.status == "clock_ahead" }
            roundsAhead = if (allAhead) roundsAhead + 1 else 0
            // After the first time, the queue got new stamps by the server's clock. What is left is above a version that the server has.
            if (roundsAhead > 1) throw NetworkException(BEHIND)
        }
    }

    /**
     * Asks whether the last push arrived; if it did not, the server refuses it from now on.
     *
     * @param lost versions that the server has had, and lacks now, by id: reason enough for it to begin a new epoch,
     *     if it believes that.
     */
    fun settle(lost: List<Pair<String, Version>> = emptyList()) {
        val now = enrollment
        var number = if (now.isOpen) now.push else now.push + 1
        val claims = lost.take(MAX_LOST).map { (id, one) -> mapOf("id" to id, "v" to formatStamp(one.stamp), "by" to one.device) }
        val header = header(now, number) + if (claims.isEmpty()) emptyMap() else mapOf("lost" to claims)
        val frame = encodeItems(header, emptyList(), none)
        val refused = try {
            budget.attempt { remote.push(frame, 0) }.refused
        } catch (e: ServerException) {
            val last = e.details["push"]
            if (e.code != "superseded" || !isCount(last)) throw e
            // This store is an older copy of itself: what it sent since then may have arrived.
            number = last as Long
            emptyList()
        }
        settlePush(store, number, refused)
    }

    /** What a numbered push says beside its documents. */
    private fun header(now: Enrollment, number: Long): Map<String, Any?> =
        linkedMapOf("cursor" to now.cursor, "push" to number, "epoch" to now.epoch, "receipt" to receiptOf(store))

    /** Sends the first of the documents that wait; returns what became of them, nothing if another process has begun a push meanwhile. */
    private fun pushSome(waiting: List<Outgoing>): List<Verdict> {
        val empty = withoutContent(waiting)
        if (empty.isNotEmpty()) return take(empty)
        val (items, unsendable) = itemsOf(waiting, enrollment.withText)
        if (remote.spaceId != store.binding.spaceId) throw NetworkException("the store was changed to another bundle meanwhile: try again")
        if (unsendable.isNotEmpty()) return take(unsendable)
        val now = enrollment
        val batch = batch(items, now) ?: return take(listOf(Verdict(items[0].id, items[0].stamp, "too_large")))
        budget.require(batch.frame.size.toLong())
        val number = now.push + 1
        if (!beginPush(store, number, batch.items.map { it.id })) {
            settle()
            return emptyList()
        }
        val result = try {
            budget.attempt { send(batch) }
        } catch (e: ServerException) {
            if (e.code == "malformed") throw RefusedException(batch, "invalid", e)
            throw e
        }
        val verdicts = batch.items.zip(result.results) { item, said -> Verdict(item.id, item.stamp, said.status, said.newer, said.reason) }
        return take(verdicts, result.offsetMs, number)
    }

    /** Goes on with less after a push of which nothing was stored. */
    private fun halve(refused: RefusedException) {
        if (enrollment.isOpen) settle()
        val items = refused.batch.items
        if (items.size > 1) return body.refuse(refused.batch.frame.size, items.size)
        val one = items[0]
        // What was damaged on its way gets another chance.
        if (refusedAlone.add(one.id to one.stamp)) return
        take(listOf(Verdict(one.id, one.stamp, refused.reason, detail = refused.message ?: "")))
    }

    /** Writes into the store what became of documents; returns the same verdicts. */
    private fun take(verdicts: List<Verdict>, offsetMs: Long? = null, number: Long = 0): List<Verdict> {
        acknowledge(store, verdicts, offsetMs ?: enrollment.offsetMs, number)
        tally.pushed(verdicts.map { it.status })
        return verdicts
    }

    /** Documents as they are sent, and what cannot be sent at all. */
    private fun itemsOf(waiting: List<Outgoing>, withText: Boolean): Pair<List<Item>, List<Verdict>> {
        val made = embed(waiting.filter { it.vectors == null && !it.deleted })
        val items = ArrayList<Item>()
        val verdicts = ArrayList<Verdict>()
        for (one in waiting) {
            val document = one.document
            if (one.deleted || document == null) {
                items.add(Item(one.id, one.stamp, none, deleted = true, device = one.device))
                continue
            }
            val some = one.vectors ?: made[one.id]?.vectors
            if (some == null) {
                verdicts.add(Verdict(one.id, one.stamp, NO_VECTORS, detail = made[one.id]?.problem ?: ""))
                continue
            }
            val item = if (withText) {
                Item(one.id, one.stamp, some, device = one.device, text = document.text, metadata = document.metadata, spans = one.spans)
            } else {
                Item(one.id, one.stamp, some, device = one.device)
            }
            val problem = unsendable(item)
            if (problem == null) items.add(item) else verdicts.add(Verdict(one.id, one.stamp, "invalid", detail = problem))
        }
        return items to verdicts
    }

    /** Vectors that were made again, or why they cannot be. */
    private class Made(val vectors: Vectors?, val problem: String?)

    /** Vectors of documents whose vectors were not kept. A text that the model cannot take costs its own document alone. */
    private fun embed(waiting: List<Outgoing>): Map<String, Made> {
        if (waiting.isEmpty()) return emptyMap()
        try {
            return embedAll(waiting).mapValues { Made(it.value, null) }
        } catch (e: EncoderException) {
            if (waiting.size == 1) return mapOf(waiting[0].id to Made(null, "its text cannot be embedded: ${brief(e.message)}"))
        }
        val found = HashMap<String, Made>()
        for (one in waiting) found += embed(listOf(one))
        return found
    }

    private fun embedAll(batch: List<Outgoing>): Map<String, Vectors> {
        val texts = batch.flatMap { one -> partsOf(one.document!!.text, one.spans) }
        val full = vectors(texts)
        if (full.size != texts.size) throw UsageException("the encoder made ${full.size} vectors of ${texts.size} texts")
        var first = 0
        return batch.associate { one -> one.id to floats(full.subList(first, first + one.spans.size)).also { first += one.spans.size } }
    }

    private fun floats(rows: List<FloatArray>): Vectors =
        Vectors(none.type, none.dim, org.edgemrl.store.encodeFull(rows, "fp16"))

    /** As many of the first items as fit into one body; null if not even the first one does. */
    private fun batch(items: List<Item>, now: Enrollment): Batch? {
        val limit = minOf(body.sizeBytes.toLong(), maxOf(budget.leftBytes ?: Long.MAX_VALUE, 0L))
        var size = 0L
        var count = 0
        for (item in items) {
            size += estimatedBytes(item)
            if (count > 0 && size > limit) break
            count++
        }
        val header = header(now, now.push + 1)
        while (count > 0) {
            val frame = encodeItems(header, items.subList(0, count), none)
            if (frame.size <= MAX_BODY_BYTES) return Batch(items.subList(0, count).toList(), frame)
            count /= 2
        }
        return null
    }

    private fun send(batch: Batch): PushResult {
        try {
            return remote.push(batch.frame, batch.items.size).also { body.grow() }
        } catch (e: NetworkException) {
            if (statusOf(e) == 413) throw RefusedException(batch, "too_large", e)
            if (e !is ServerException && e !is IntermediaryException) body.shrink()
            throw e
        }
    }
}

/** Documents that cannot be sent: damaged ones, and those with neither vectors nor text here. */
private fun withoutContent(waiting: List<Outgoing>): List<Verdict> {
    val damaged = waiting.filter { it.damaged }.map { Verdict(it.id, it.stamp, DAMAGED, detail = "it is not what was stored: put it again, or delete it") }
    return damaged + waiting.filter { it.vectors == null && it.document?.text?.isEmpty() == true }.map { Verdict(it.id, it.stamp, NO_VECTORS) }
}

/** Why a document cannot be written into a message; null if it can. An older version may have stored what is refused now. */
private fun unsendable(item: Item): String? {
    try {
        checkId(item.id)
    } catch (e: WireException) {
        return "it cannot be sent: ${e.message}"
    }
    return if (hasLoneSurrogate(messageJson(item.metadata ?: emptyMap<String, Any?>()))) "it cannot be sent: its metadata is no Unicode text" else null
}

/** About the bytes of an item in a frame; text may take more where JSON escapes it. */
private fun estimatedBytes(item: Item): Int {
    var size = 64 + 2 * item.id.toByteArray().size + item.vectors.data.size + 14 * item.spans.size
    if (item.text != null) size += item.text.toByteArray().size + item.text.length / 8
    if (!item.metadata.isNullOrEmpty()) size += messageJson(item.metadata).length
    return size
}
