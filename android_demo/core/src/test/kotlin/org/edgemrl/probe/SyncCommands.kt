package org.edgemrl.probe

import java.io.File
import org.edgemrl.Document
import org.edgemrl.Index
import org.edgemrl.PassageRule
import org.edgemrl.VERSION
import org.edgemrl.encode.BundleEncoder
import org.edgemrl.encode.Encoder
import org.edgemrl.search.Rerank
import org.edgemrl.search.SearchOptions
import org.edgemrl.search.doubt
import org.edgemrl.search.merge
import org.edgemrl.store.Entry
import org.edgemrl.store.Store
import org.edgemrl.sync.Conditions
import org.edgemrl.sync.Credentials
import org.edgemrl.sync.EnrollmentOptions
import org.edgemrl.sync.Outcome
import org.edgemrl.sync.Policy
import org.edgemrl.sync.Ranges
import org.edgemrl.sync.Status
import org.edgemrl.sync.SyncClient
import org.edgemrl.sync.SyncListener
import org.edgemrl.sync.Timeouts
import org.edgemrl.sync.enroll
import org.edgemrl.sync.isEnrolled
import org.edgemrl.sync.leave
import org.edgemrl.sync.move
import org.edgemrl.sync.statusOf
import org.edgemrl.wire.Wall

private val encoders = HashMap<String, Encoder>()
private val clients = HashMap<String, SyncClient>()
private val ran = HashMap<String, List<Outcome>>()

private fun encoderOf(bundle: String): Encoder = encoders.getOrPut(bundle) { Encoder.open(File(bundle), threads = 1) }

private fun clientOf(arguments: Map<String, Any?>): SyncClient = clients.getValue(arguments["path"] as String)

private fun names(value: Any?): List<String>? = (value as List<*>?)?.map { it as String }

/** A device: a store with its bundle, and its client. */
internal val syncCommands: Map<String, Command> = mapOf(
    "sync.version" to { _ -> VERSION },
    "sync.clock" to { arguments -> Wall.offsetMs = arguments["ahead_ms"] as Long },
    "sync.open" to { arguments ->
        val path = arguments["path"] as String
        val encoder = encoderOf(arguments["bundle"] as String)
        val rule = PassageRule((arguments["max_tokens"] as Long).toInt(), (arguments["overlap"] as Long).toInt())
        stores[path] = Store.create(File(path), BundleEncoder(encoder).binding, rule, arguments["keep_full"] as String?)
        null
    },
    "sync.put" to { arguments ->
        val store = storeOf(arguments)
        val documents = (arguments["documents"] as List<*>).map { it.asObject() }
        putAll(store, documents.map { Document(it["id"] as String, it["text"] as String, it["metadata"].asObject(), it["source"] as String?) })
        null
    },
    "sync.enroll" to { arguments ->
        val options = EnrollmentOptions(
            name = "kotlin", ca = (arguments["ca"] as String?)?.let { File(it) }, withText = arguments["with_text"] == true, maxQueue = arguments["max_queue"] as Long? ?: (256L shl 20),
        )
        describe(enroll(storeOf(arguments), arguments["server"] as String, arguments["invitation"] as String, options))
    },
    "sync.move" to { arguments -> move(storeOf(arguments), arguments["server"] as String).let { null } },
    "sync.expire" to { arguments ->
        val store = storeOf(arguments)
        Credentials.read(store)!!.copy(expiresMs = Wall.nowMs() + arguments["left_ms"] as Long).write(store).let { null }
    },
    "sync.client" to { arguments ->
        val path = arguments["path"] as String
        val timeouts = (arguments["timeouts"] as List<*>?)?.map { it as Double }?.let { Timeouts(it[0], it[1], it[2]) } ?: Timeouts()
        val policy = Policy(maxBytes = arguments["max_bytes"] as Long?)
        val store = storeOf(arguments)
        val encoder = encoderOf(store.binding.bundle)
        clients.remove(path)?.close()
        val conditions = { Conditions(metered = arguments["metered"] == true) }
        clients[path] = SyncClient.open(store, policy, conditions, arguments["push_only"] == true, timeouts, encoder)
        null
    },
    "sync.once" to { arguments ->
        describe(clientOf(arguments).syncOnce(now = arguments["now"] == true, attempts = (arguments["attempts"] as Long? ?: 4L).toInt()))
    },
    "sync.interrupted" to { arguments ->
        val outcomes = ArrayList<Outcome>()
        val thread = Thread { outcomes.add(clientOf(arguments).syncOnce(now = true)) }
        thread.start()
        Thread.sleep(arguments["after_ms"] as Long)
        thread.interrupt()
        thread.join(arguments["wait_ms"] as Long)
        outcomes.map { describe(it) }.firstOrNull()
    },
    "sync.stopped" to { arguments ->
        val untilNs = System.nanoTime() + arguments["after_ms"] as Long * 1_000_000
        describe(clientOf(arguments).syncOnce(now = true, stopped = { System.nanoTime() > untilNs }))
    },
    "sync.leave" to { arguments -> leave(storeOf(arguments)).let { null } },
    "sync.enrolled" to { arguments -> isEnrolled(storeOf(arguments)) },
    "sync.status" to { arguments -> describe(clients[arguments["path"] as String]?.status() ?: statusOf(storeOf(arguments))) },
    "sync.dead" to { arguments ->
        clientOf(arguments).deadLetters().map { listOf(it.id, it.reason, it.deleted, it.document?.text, it.device, it.detail) }
    },
    "sync.retry" to { arguments -> clientOf(arguments).retry(names(arguments["ids"])) },
    "sync.drop" to { arguments -> clientOf(arguments).drop(names(arguments["ids"])) },
    "sync.ranges" to { arguments -> Ranges.snapshotBytes = arguments["size_bytes"] as Long },
    "sync.forget" to { arguments -> clientOf(arguments).forgetReceived() },
    "sync.start" to { arguments ->
        val outcomes = java.util.concurrent.CopyOnWriteArrayList<Outcome>()
        val listener = object : SyncListener() {
            override fun ran(outcome: Outcome) {
                outcomes.add(outcome)
                if (arguments["breaks"] == true) throw IllegalStateException("the application's own fault")
            }
        }
        clientOf(arguments).start(arguments["interval_s"] as Double, listener = listener)
        ran[arguments["path"] as String] = outcomes
        null
    },
    "sync.now" to { arguments -> clientOf(arguments).syncNow().let { null } },
    "sync.ran" to { arguments -> ran.getValue(arguments["path"] as String).map { describe(it) } },
    "sync.stop" to { arguments -> clientOf(arguments).stop().let { null } },
    "sync.search" to { arguments ->
        val store = storeOf(arguments)
        val scorer = if (arguments["client"] == true) clientOf(arguments) else null
        Index.open(store.path, BundleEncoder(encoderOf(store.binding.bundle))).use { index ->
            val rerank = Rerank(scorer, arguments["auto"] == true, arguments["deadline_s"] as Double)
            val found = index.search(arguments["query"] as String, SearchOptions((arguments["k"] as Long).toInt()), rerank)
            mapOf("hits" to found.hits.map { listOf(it.id, it.score) }, "by" to found.rankedBy.name.lowercase(), "reason" to found.reason)
        }
    },
    "sync.merge" to { arguments ->
        val pairs = (arguments["local"] as List<*>).map { (it as List<*>)[0] as String to (it[1] as Number).toDouble() }
        val own = arguments["own"].asObject().mapValues { (it.value as Number).toDouble() }
        val server = arguments["server"].asObject().mapValues { (it.value as Number).toDouble() }
        val scores = merge(pairs, server) { ids -> own.filterKeys { it in ids } }
        mapOf("scores" to scores, "doubt" to doubt(pairs.map { it.second }))
    },
    "sync.margin" to { arguments -> clientOf(arguments).setMargin(arguments["margin"] as Double?).let { null } },
    "sync.resend" to { arguments -> clientOf(arguments).resend().let { null } },
    "sync.with_text" to { arguments -> clientOf(arguments).setWithText(arguments["with_text"] == true).let { null } },
    "sync.rerank" to { arguments ->
        val query = (arguments["query"] as List<*>).map { (it as Double).toFloat() }.toFloatArray()
        clientOf(arguments).rerank(names(arguments["ids"])!!, query, arguments["deadline_s"] as Double)
    },
    "sync.close" to { arguments ->
        clients.remove(arguments["path"])?.close()
        stores.remove(arguments["path"])?.close()
    },
)

/** Puts documents as an index does: those whose text is here already are not embedded again. */
private fun putAll(store: Store, documents: List<Document>) {
    val known = store.hashes(documents.map { it.id })
    val (same, fresh) = documents.partition { known[it.id]?.contentEquals(org.edgemrl.store.textHash(it.text)) == true }
    val stale = store.put(embed(store, fresh), same)
    if (stale.isNotEmpty()) store.put(embed(store, stale))
}

private fun embed(store: Store, documents: List<Document>): List<Entry> =
    BundleEncoder(encoderOf(store.binding.bundle)).embed(documents, store.rule, store.keepFull != null)

private fun describe(status: Status): Map<String, Any?> = mapOf(
    "server" to status.server, "tenant" to status.tenant, "device" to status.device, "queue" to status.queue.items, "bytes" to status.queue.sizeBytes,
    "dead" to status.dead, "cursor" to status.cursor, "with_text" to status.withText, "waiting" to status.waiting, "differs" to status.differs,
)

private fun describe(outcome: Outcome): Map<String, Any?> = mapOf(
    "pushed" to outcome.pushed, "stale" to outcome.stale, "pulled" to outcome.pulled, "deleted" to outcome.deleted, "dead" to outcome.dead,
    "unreadable" to outcome.unreadable, "differs" to outcome.differs, "sent" to outcome.bytesSent, "received" to outcome.bytesReceived,
    "waiting" to outcome.waiting, "cause" to outcome.cause?.name?.lowercase(), "resent" to outcome.resent, "conflicts" to outcome.conflicts,
)
