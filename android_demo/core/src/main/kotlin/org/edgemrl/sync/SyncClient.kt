package org.edgemrl.sync

import java.io.Closeable
import java.util.concurrent.locks.ReentrantLock
import kotlin.concurrent.withLock
import org.edgemrl.EdgeMrlException
import org.edgemrl.NetworkException
import org.edgemrl.NotEnrolledException
import org.edgemrl.StoreException
import org.edgemrl.UsageException
import org.edgemrl.encode.BundleEncoder
import org.edgemrl.encode.Encoder
import org.edgemrl.findBundle
import org.edgemrl.store.Store
import org.edgemrl.search.Scorer
import org.edgemrl.store.DeadLetter
import org.edgemrl.store.replica.changeEnrollment
import org.edgemrl.store.replica.dropDeadLetters
import org.edgemrl.store.replica.forgetReceived
import org.edgemrl.store.replica.listDeadLetters
import org.edgemrl.store.replica.requeueDeadLetters

/** Between two looks for what other devices wrote, in seconds. */
private const val INTERVAL_S = 60.0

/**
 * Syncs one store with one server. Pushing empties the store's queue; pulling brings what other devices wrote.
 * Both are harmless to repeat, so anything may fail at any moment. Calls block; make them on a thread of your own.
 * Safe to share between threads; it sends one request at a time.
 *
 * @property policy when it may use the network.
 */
public class SyncClient private constructor(
    private val store: Store,
    public var policy: Policy,
    private val conditions: () -> Conditions,
    private val pushOnly: Boolean,
    timeouts: Timeouts,
    private val given: Encoder?,
) : Scorer, Closeable {
    @Volatile
    private var stopped: () -> Boolean = { false }
    private val link = Link(store, timeouts) { stopped() }
    private val body = BodySize()
    private val lock = ReentrantLock()
    private val reranker = lazy { Reranker(store) }
    private var opened: Encoder? = null

    @Volatile
    private var waiting: String? = null
    private var background: BackgroundSync? = null

    /**
     * Pushes what waits, then pulls what changed. Failures of the network and refusals of the server are part of the
     * outcome, not errors. What was committed stays, however a run ends.
     *
     * @param now sync whatever the policy says about the conditions.
     * @param attempts how often each request is sent at most.
     * @param stopped asked again and again, also within a request: true ends the run, with [Cause.POLICY]. To
     *     interrupt the thread does so at its next request.
     * @param step called after each commit with the outcome so far.
     * @throws StoreException if the store cannot be used.
     */
    @JvmOverloads
    public fun syncOnce(
        now: Boolean = false,
        attempts: Int = ATTEMPTS,
        stopped: () -> Boolean = { false },
        step: (Outcome) -> Unit = {},
    ): Outcome = lock.withLock {
        val reason = if (now) null else policy.whyNot(conditions())
        val outcome = if (reason != null) Outcome(waiting = reason, cause = Cause.POLICY) else run(attempts, stopped, step)
        waiting = outcome.waiting
        outcome
    }

    private fun run(attempts: Int, stopped: () -> Boolean, step: (Outcome) -> Unit): Outcome {
        this.stopped = stopped
        try {
            return Run(store, link, ::vectorsOf, Budget(policy.maxBytes, attempts, stopped), body, pushOnly, step).sync()
        } finally {
            this.stopped = { false }
        }
    }

    /**
     * Keeps syncing in a thread: soon after each write here, and regularly for what others wrote. On a phone Android's
     * jobs do that, since no thread lives as long as its app is kept.
     *
     * @param intervalS seconds between two pulls.
     * @param maxWaitS the longest wait after failures, in seconds.
     * @param listener told about each commit and each run, in that thread.
     * @throws UsageException if the client is already running.
     */
    @JvmOverloads
    public fun start(intervalS: Double = INTERVAL_S, maxWaitS: Double = MAX_WAIT_S, listener: SyncListener = SyncListener()): Unit = synchronized(link) {
        if (background != null) throw UsageException("the client is already running: call stop() before starting it again")
        background = BackgroundSync(store, ::attempt, ::deadLetters, { waiting = it }, intervalS, Backoff(maxWaitS), listener).also { it.start() }
    }

    /**
     * Ends the thread within its request; what waits stays in the store. Does nothing where none runs.
     *
     * @param timeoutMs milliseconds to wait for the thread at most; 0 waits until it has ended.
     */
    @JvmOverloads
    public fun stop(timeoutMs: Long = 0) {
        val found = synchronized(link) { background.also { background = null } }
        found?.stop(timeoutMs)
    }

    /** Has the thread sync at once, whatever the policy says about the conditions. @throws UsageException if the client is not running. */
    public fun syncNow() {
        val found = synchronized(link) { background }
        (found ?: throw UsageException("the client is not running: call start() first, or syncOnce(now = true)")).wake(now = true)
    }

    /** Syncs once, sending each request once; whatever fails is part of the outcome. */
    private fun attempt(now: Boolean, stopped: () -> Boolean, step: (Outcome) -> Unit): Outcome = try {
        syncOnce(now, attempts = 1, stopped = stopped, step = step)
    } catch (e: EdgeMrlException) { // the store is busy, or damaged
        Outcome(waiting = e.message, cause = Cause.STORE).also { waiting = it.waiting }
    }

    /** Where the store's sync stands. */
    public fun status(): Status = statusOf(store, waiting)

    /** Versions that will not be sent, by id. */
    public fun deadLetters(): List<DeadLetter> = listDeadLetters(store)

    /**
     * Queues dead letters again, with new stamps; documents that were deleted or replaced elsewhere are stored again.
     *
     * @param ids documents; null for all dead letters.
     * @return how many were queued.
     */
    public fun retry(ids: Collection<String>? = null): Int {
        val (queued, documents) = requeueDeadLetters(store, ids)
        if (documents.isNotEmpty()) store.put(BundleEncoder(encoder()).embed(documents, store.rule, store.keepFull != null))
        return queued + documents.size
    }

    /** Deletes dead letters of some documents, or all; the store's documents stay. Returns how many were deleted. */
    public fun drop(ids: Collection<String>? = null): Int = dropDeadLetters(store, ids)

    /**
     * Deletes here what other devices wrote, and tells no server; the next sync pulls everything again. For a store that
     * has received vectors of another embedding space.
     *
     * @return how many documents were deleted.
     */
    public fun forgetReceived(): Int = forgetReceived(store)

    /** Has the next sync pull everything, and send again what the server lacks of this device's. */
    public fun resend(): Unit = org.edgemrl.store.replica.resend(store)

    /** Chooses whether text and metadata are sent; if so, everything is sent again with them. */
    public fun setWithText(withText: Boolean): Unit = org.edgemrl.store.replica.setWithText(store, withText)

    /** Keeps the margin of doubt from which the Python package's `rerank="auto"` asks the server; null for the default. */
    public fun setMargin(margin: Double?): Unit = changeEnrollment(store) { it.copy(margin = margin) }

    /**
     * Asks the server how well documents answer a query. It does not wait for a sync that is running.
     *
     * @param ids at most 1,000 documents.
     * @param query the query's full vector, float32[fullDim].
     * @param deadlineS seconds until this call gives up. The request itself may go on for two seconds.
     * @return cosines by id, in [-1, 1], for the documents that the server has.
     * @throws NetworkException if the server did not answer in time, or is busy with an earlier search. After a failure
     *     it is not asked for some seconds.
     */
    override fun rerank(ids: List<String>, query: FloatArray, deadlineS: Double): Map<String, Double> = reranker.value.rerank(ids, query, deadlineS)

    /** Ends the thread, and closes what this client opened; the store stays open. */
    override fun close() {
        stop()
        if (reranker.isInitialized()) reranker.value.close()
        lock.withLock {
            opened?.close()
            opened = null
        }
    }

    private fun vectorsOf(texts: List<String>): List<FloatArray> {
        val made = encoder().encode(texts)
        if (made.full == null) throw UsageException("the bundle of ${store.path} gives no full vectors (it was exported with --coarse-only): sync needs them")
        return List(made.size) { made.vector(it)!! }
    }

    /** The encoder of the store's bundle, opened when it is first needed: most syncs embed nothing. */
    private fun encoder(): Encoder = lock.withLock {
        given ?: opened?.takeIf { it.bundle.manifest.let { one -> one.spaceId to one.code.id } == store.binding.code } ?: run {
            opened?.close()
            Encoder.open(findBundle(store)).also { opened = it }
        }
    }

    public companion object {
        /**
         * Opens what a store needs to be synced.
         *
         * @param store an open store, which the caller closes.
         * @param policy when it may use the network.
         * @param conditions called before each run; gives the state of power and network.
         * @param pushOnly push, and do not pull.
         * @param timeouts how long to wait.
         * @param encoder the encoder of the store's bundle, which the caller closes; null opens it where it is needed.
         * @throws NotEnrolledException if the store is not enrolled.
         * @throws UsageException if the store is a copy of one that is enrolled.
         * @throws StoreException if the store cannot be used.
         */
        @JvmStatic
        @JvmOverloads
        public fun open(
            store: Store,
            policy: Policy = Policy(),
            conditions: () -> Conditions = { Conditions() },
            pushOnly: Boolean = false,
            timeouts: Timeouts = Timeouts(),
            encoder: Encoder? = null,
        ): SyncClient = SyncClient(store, policy, conditions, pushOnly, timeouts, encoder).also { it.link.follow() }
    }
}
