package org.edgemrl.demo.sync

import java.io.File
import java.util.concurrent.Executor
import java.util.concurrent.atomic.AtomicBoolean
import java.util.concurrent.locks.ReentrantLock
import kotlin.concurrent.withLock
import org.edgemrl.EdgeMrlException
import org.edgemrl.NoStoreException
import org.edgemrl.StoreException
import org.edgemrl.UsageException
import org.edgemrl.android.SyncOutcome
import org.edgemrl.android.Synchronizer
import org.edgemrl.demo.state.Values
import org.edgemrl.store.DeadLetter
import org.edgemrl.store.Store
import org.edgemrl.sync.Cause
import org.edgemrl.sync.Conditions
import org.edgemrl.sync.EnrollmentOptions
import org.edgemrl.sync.Outcome
import org.edgemrl.sync.Policy
import org.edgemrl.sync.SyncClient
import org.edgemrl.sync.enroll
import org.edgemrl.sync.isEnrolled
import org.edgemrl.sync.leave

/**
 * The link of the notes' store to its server, for the screen and for the jobs in the background.
 *
 * What there is to know is in the store and beside it, so a process may end at any moment. The store is opened for
 * each call, beside the notebook's own: a search never waits for a server.
 *
 * @param file the notes' store, or null while there is none, since no model is installed.
 * @param values where it is kept why the last run ended early.
 * @param policy when the network may be used.
 * @param conditions what the phone's network and battery are like now.
 * @param work runs what [begin] starts, a thread of its own.
 * @param joined called after a server was joined or left, with whether there is one.
 */
class StoreLink(
    private val file: () -> File?,
    private val values: Values,
    private val policy: () -> Policy,
    private val conditions: () -> Conditions,
    private val work: Executor,
    private val joined: (Boolean) -> Unit = {},
) : ServerLink, Synchronizer {
    private val lock = ReentrantLock()
    private val begun = AtomicBoolean()

    @Volatile
    private var running: Progress? = null

    @Volatile
    private var halt = false

    @Volatile
    override var watcher: (() -> Unit)? = null

    override fun state(): LinkState? = opened { store ->
        if (!isEnrolled(store)) return null
        SyncClient.open(store).use { client ->
            val status = client.status()
            val letters = if (status.dead == 0L) emptyList() else client.deadLetters()
            LinkState(
                status.server, status.device, status.queue.items, running, status.successMs,
                Cause.values().firstOrNull { it.name == values.get(CAUSE) }, values.get(SAID)?.takeIf { it.isNotEmpty() }, status.withText,
                letters.take(ServerLink.MOST_LETTERS).map { letterOf(it) }, status.dead,
            )
        }
    }

    override fun join(wanted: Joining) {
        val insecure = needsCleartext(wanted.server, wanted.cleartext)
        val options = EnrollmentOptions(wanted.name, insecure = insecure, withText = wanted.withText)
        lock.withLock { opened { enroll(it, wanted.server.trim(), wanted.invitation.trim(), options) } }
            ?: throw NoStoreException("there is no model yet, so no notes can be exchanged: install one on the screen Verify the model")
        note(null)
        joined(true)
    }

    override fun begin(now: Boolean) {
        if (!begun.compareAndSet(false, true)) return
        work.execute {
            try {
                exchange(now) { false }
            } finally {
                begun.set(false)
                watcher?.invoke()
            }
        }
    }

    override fun stop() {
        halt = true
    }

    override fun retryLetters(): Int = client { it.retry() } ?: 0

    override fun dropLetters() {
        client { it.drop() }
    }

    override fun leave() {
        stop()
        lock.withLock { opened { leave(it) } }
        note(null)
        joined(false)
    }

    /** For the job: exchanges under the policy's conditions. */
    override fun sync(stopped: () -> Boolean): SyncOutcome {
        val outcome = exchange(false, stopped) ?: return SyncOutcome.REFUSED
        return when {
            outcome.done -> SyncOutcome.DONE
            outcome.cause == Cause.REFUSED -> SyncOutcome.REFUSED
            else -> SyncOutcome.AGAIN
        }
    }

    /** Runs until nothing waits; null while there is no server. */
    private fun exchange(now: Boolean, stopped: () -> Boolean): Outcome? = lock.withLock {
        halt = false
        progress(Progress())
        try {
            val outcome = client { run(it, now, stopped) }
            note(outcome)
            outcome
        } catch (e: EdgeMrlException) { // the store is busy, or damaged
            Outcome(waiting = e.message ?: e.javaClass.simpleName, cause = if (e is UsageException) Cause.REFUSED else Cause.STORE).also { note(it) }
        } finally {
            progress(null)
        }
    }

    private fun run(client: SyncClient, now: Boolean, stopped: () -> Boolean): Outcome {
        var outcome = Outcome()
        repeat(RUNS) {
            outcome = client.syncOnce(now, stopped = { halt || stopped() }) { progress(Progress(it.pushed, it.pulled + it.deleted)) }
            // What was written meanwhile, whose own job the phone has put off.
            if (!outcome.done || client.status().queue.items == 0L) return outcome
        }
        return outcome
    }

    private fun progress(now: Progress?) {
        running = now
        watcher?.invoke()
    }

    private fun note(outcome: Outcome?): Unit = values.put(mapOf(CAUSE to (outcome?.cause?.name ?: ""), SAID to (outcome?.waiting ?: "")))

    private fun <T> client(use: (SyncClient) -> T): T? = opened { store ->
        if (isEnrolled(store)) SyncClient.open(store, policy(), conditions).use(use) else null
    }

    /** The store, opened for a block; null while there is none. @throws StoreException if it cannot be used. */
    private inline fun <T> opened(block: (Store) -> T): T? {
        val path = file() ?: return null
        return Store.open(path).use(block)
    }

    private fun letterOf(letter: DeadLetter): Letter {
        val words = letter.document?.text?.trim()?.replace(Regex("\\s+"), " ")?.take(WORDS_CHARS)
        return Letter(words?.takeIf { it.isNotEmpty() } ?: letter.id, letter.reason, letter.detail)
    }

    private companion object {
        const val CAUSE = "sync_cause"
        const val SAID = "sync_said"
        const val RUNS = 3
        const val WORDS_CHARS = 80
    }
}
