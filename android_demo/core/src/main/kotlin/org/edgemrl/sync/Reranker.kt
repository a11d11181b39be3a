package org.edgemrl.sync

import java.io.Closeable
import java.util.concurrent.ExecutionException
import java.util.concurrent.ExecutorService
import java.util.concurrent.Executors
import java.util.concurrent.TimeUnit
import java.util.concurrent.TimeoutException
import java.util.concurrent.atomic.AtomicBoolean
import org.edgemrl.NetworkException
import org.edgemrl.NotEnrolledException
import org.edgemrl.UsageException
import org.edgemrl.search.Scorer
import org.edgemrl.store.Store
import org.edgemrl.wire.MAX_IDS

/** How long a request may go on after its search has ended, so that its connection stays usable, in seconds. */
private const val PATIENCE_S = 2.0

/**
 * Asks a store's server for scores: ids and the query's full vector are sent, cosines come back. A search does
 * not wait for the server longer than its deadline. Safe to share between threads; it answers one search at a time.
 */
internal class Reranker(private val store: Store) : Scorer, Closeable {
    private val busy = AtomicBoolean()
    private val backoff = Backoff(capS = 30.0, firstS = 0.5)
    private val thread: ExecutorService = Executors.newSingleThreadExecutor { task -> Thread(task, "edge-mrl-rerank").also { it.isDaemon = true } }

    @Volatile
    private var silentUntilNs: Long? = null
    private var remote: Remote? = null
    private var known: Credentials? = null

    /** See [SyncClient.rerank]. */
    override fun rerank(ids: List<String>, query: FloatArray, deadlineS: Double): Map<String, Double> {
        if (ids.size > MAX_IDS) throw UsageException("${ids.size} ids, expected at most $MAX_IDS")
        silentUntilNs?.let { until ->
            if (System.nanoTime() - until < 0) throw NetworkException("the server did not answer a moment ago; it will be asked again soon")
        }
        if (!busy.compareAndSet(false, true)) throw NetworkException("the server is still busy with an earlier search")
        val job = thread.submit<Map<String, Double>> { work(ids, query) }
        try {
            return job.get((deadlineS * 1e9).toLong(), TimeUnit.NANOSECONDS)
        } catch (e: TimeoutException) {
            throw NetworkException("the server did not answer within ${(deadlineS * 1000).toLong()} ms", e)
        } catch (e: ExecutionException) {
            throw NetworkException(e.cause?.message ?: "", e.cause)
        } catch (e: InterruptedException) {
            Thread.currentThread().interrupt()
            throw NetworkException("the search was interrupted", e)
        }
    }

    private fun work(ids: List<String>, query: FloatArray): Map<String, Double> {
        var waitS: Double? = null
        try {
            val found = Credentials.read(store) ?: throw NotEnrolledException(store.path)
            if (remote == null || found != known) {
                remote = Remote(found, store.binding.spaceId, Timeouts(PATIENCE_S, PATIENCE_S, PATIENCE_S))
                known = found
            }
            val scores = remote!!.rerank(ids, query, PATIENCE_S)
            backoff.succeeded()
            return scores
        } catch (e: NetworkException) {
            waitS = backoff.failed(e.retryAfterS)
            throw e
        } finally {
            silentUntilNs = waitS?.let { System.nanoTime() + (it * 1e9).toLong() }
            busy.set(false)
        }
    }

    override fun close(): Unit = thread.shutdown()
}
