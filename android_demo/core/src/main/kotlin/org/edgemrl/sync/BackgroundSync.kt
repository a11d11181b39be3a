package org.edgemrl.sync

import java.util.concurrent.TimeUnit
import java.util.concurrent.locks.ReentrantLock
import kotlin.concurrent.withLock
import org.edgemrl.EdgeMrlException
import org.edgemrl.store.DeadLetter
import org.edgemrl.store.Store
import org.edgemrl.store.replica.newestQueued

/** Between two looks for what was written here, in seconds. Each look reads one row of the store. */
private const val LOOK_S = 1.0

/** Told about a background sync, in its thread. Override what you need. */
public open class SyncListener {
    /** A commit was made; [outcome] says what this run has done so far. */
    public open fun committed(outcome: Outcome): Unit = Unit

    /** A run added dead letters; [letters] are all that there are now. */
    public open fun deadLetters(letters: List<DeadLetter>): Unit = Unit

    /** A run ended. */
    public open fun ran(outcome: Outcome): Unit = Unit
}

/**
 * A thread that keeps a store in sync: it runs soon after each write here, and at regular intervals.
 *
 * @param attempt syncs once, sending each request once; whatever fails is part of the outcome.
 * @param letters gives all dead letters.
 * @param report notes why nothing is synced now.
 * @param intervalS seconds between two pulls.
 */
internal class BackgroundSync(
    private val store: Store,
    private val attempt: (now: Boolean, stopped: () -> Boolean, step: (Outcome) -> Unit) -> Outcome,
    private val letters: () -> List<DeadLetter>,
    private val report: (String) -> Unit,
    private val intervalS: Double,
    private val backoff: Backoff,
    private val listener: SyncListener,
) {
    private val lock = ReentrantLock()
    private val woken = lock.newCondition()

    @Volatile
    private var stopping = false
    private var isWoken = false
    private var isNow = false
    private val thread = Thread(::loop, "edge-mrl-sync").also { it.isDaemon = true }

    /** Starts the thread; it syncs at once. */
    fun start(): Unit = thread.start()

    /** Ends the thread within its request, and waits for that, at most [timeoutMs]; 0 waits as long as it takes. */
    fun stop(timeoutMs: Long) {
        stopping = true
        lock.withLock { woken.signalAll() }
        if (thread !== Thread.currentThread()) thread.join(timeoutMs)
    }

    /** Syncs without waiting any longer, with [now] whatever the policy says about the conditions. */
    fun wake(now: Boolean): Unit = lock.withLock {
        isWoken = true
        isNow = isNow || now
        woken.signalAll()
    }

    private fun loop() {
        while (!stopping) {
            val seen = newest()
            val outcome = runOnce()
            sleep(waitAfter(outcome), seen, look = outcome.done)
        }
    }

    /** Syncs once, and tells the listener. Whatever fails is reported, and the thread goes on. */
    private fun runOnce(): Outcome {
        val now = lock.withLock {
            isNow.also {
                isNow = false
                isWoken = false
            }
        }
        val outcome = try {
            attempt(now, { stopping }) { listener.committed(it) }.also { if (it.dead > 0) listener.deadLetters(letters()) }
        } catch (e: Exception) { // a thread that ends here would end in silence
            failed(e)
        }
        return try {
            listener.ran(outcome)
            outcome
        } catch (e: Exception) { // the application's own function
            failed(e).let { outcome.copy(waiting = it.waiting, cause = it.cause) }
        }
    }

    private fun failed(error: Exception): Outcome = internalFault(error).also { report(it.waiting!!) }

    /** Seconds to wait after a run. */
    private fun waitAfter(outcome: Outcome): Double {
        if (outcome.done) backoff.succeeded()
        if (outcome.done || outcome.cause == Cause.POLICY) return intervalS
        if (outcome.pushed + outcome.pulled + outcome.deleted > 0) backoff.succeeded() // it makes progress
        return backoff.failed(outcome.retryAfterS)
    }

    /** Waits; after a run without failures, only until something is written here. */
    private fun sleep(waitS: Double, seen: List<Any?>, look: Boolean) {
        val untilNs = System.nanoTime() + (waitS * 1e9).toLong()
        lock.withLock {
            while (!stopping && !isWoken) {
                val leftNs = untilNs - System.nanoTime()
                if (leftNs <= 0 || look && newest() != seen) return
                woken.await(if (look) minOf(leftNs, (LOOK_S * 1e9).toLong()) else leftNs, TimeUnit.NANOSECONDS)
            }
        }
    }

    /** Values that change when something was written. */
    private fun newest(): List<Any?> = try {
        newestQueued(store)
    } catch (_: EdgeMrlException) { // the run that follows says what is wrong
        emptyList()
    }
}

/** The outcome of a run that met a fault of the program. */
internal fun internalFault(error: Exception): Outcome = Outcome(
    waiting = "an internal error: ${error.javaClass.simpleName}: ${error.message}; what is queued stays queued", cause = Cause.INTERNAL,
)
