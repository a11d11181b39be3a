package org.edgemrl.sync

import org.edgemrl.EdgeMrlException
import org.edgemrl.NetworkException
import org.edgemrl.NotEnrolledException
import org.edgemrl.ServerException
import org.edgemrl.StoreException
import org.edgemrl.UsageException
import org.edgemrl.store.Store
import org.edgemrl.store.replica.Enrollment
import org.edgemrl.store.replica.askForUnreadable
import org.edgemrl.store.replica.changeEnrollment
import org.edgemrl.store.replica.enrollmentOf
import org.edgemrl.wire.Wall

/** How often one run catches up with a server: one reason may follow another, and two processes may push from one store. */
private const val CATCH_UPS = 8

/** Refusals that concern the device itself: a pull would be refused too. */
private val OF_THE_DEVICE = setOf("token", "space", "cloned", "copy_unsure")
private val ENROLL_AGAIN = setOf("token", "cloned")

/**
 * One run of a sync: push what waits, then pull what changed; what stops it is part of its outcome.
 *
 * @param vectors makes full vectors of texts.
 * @param body how much is sent in one request, as earlier runs found it.
 * @param step called after each commit with the outcome so far.
 */
internal class Run(
    private val store: Store,
    private val link: Link,
    private val vectors: (List<String>) -> List<FloatArray>,
    private val budget: Budget,
    private val body: BodySize,
    private val pushOnly: Boolean,
    step: (Outcome) -> Unit,
) {
    private val tally = Tally(budget, step)

    /** Pushes and pulls. @throws StoreException if the store cannot be used. */
    fun sync(): Outcome {
        try {
            syncWithServer()
            changeEnrollment(store) { it.copy(successMs = Wall.nowMs()) }
        } catch (e: RunEndedException) {
            tally.stop(e.message ?: "", Cause.POLICY)
        } catch (e: NetworkException) {
            val refused = e is ServerException && !isTemporary(e)
            val advice = if (e is ServerException && e.code in ENROLL_AGAIN) ": enroll with a new invitation; what waits here is kept, and sent then" else ""
            tally.stop("${e.message}$advice", if (refused) Cause.REFUSED else Cause.NETWORK, e.retryAfterS)
        } catch (e: UsageException) {
            tally.stop(e.message ?: "", Cause.REFUSED)
        } catch (e: EdgeMrlException) {
            throw e
        } catch (e: RuntimeException) { // it is part of the outcome
            tally.stop(internalFault(e).waiting!!, Cause.INTERNAL)
        }
        return tally.outcome
    }

    private fun syncWithServer() {
        val remote = link.follow()
        budget.start(remote)
        val marks = Marks(store)
        remote.marks = marks
        try {
            asItself(remote)
        } finally {
            marks.keep()
            remote.marks = null
            link.keep(remote)
        }
    }

    /** Pushes and pulls with a token that works, as long as the server gives one. */
    private fun asItself(remote: Remote) {
        link.renew(remote)
        try {
            pushAndPull(remote)
        } catch (e: ServerException) {
            if (e.code != "token") throw e
            // By the server's clock it has expired, whatever this machine's clock says.
            link.renew(remote, refused = true)
            pushAndPull(remote)
        }
    }

    private fun pushAndPull(remote: Remote) {
        val pusher = Pusher(store, remote, vectors, body, budget, tally)
        if (enrollment.isOpen) pusher.settle()
        val puller = if (pushOnly) null else Puller(store, remote, budget, tally)
        // Before anything is sent: what waits may have been sent already, its answer lost, and deleted by others.
        if (puller != null && enrollment.cursor == 0L) tally.agreed(puller.bootstrap()?.resent)
        askForUnreadable(store)
        val backoff = attemptBackoff()
        repeat(CATCH_UPS) {
            try {
                val page = exchange(pusher, puller)
                if (puller == null || page == null) return
                if (Comparison(store, puller, tally).agrees(page) { lost -> pusher.settle(lost) }) return
            } catch (e: ServerException) {
                if (e.code !in OUT_OF_STEP) throw e
                val anotherPushes = e.code == "superseded"
                if (anotherPushes) sleep(backoff.failed(), e) // from this store: let it finish
                // What became of the last push must be known before everything is pulled: otherwise it could arrive meanwhile.
                pusher.settle()
                // Deletions were forgotten, or the server was restored from an older copy.
                if (!anotherPushes) tally.agreed((puller ?: Puller(store, remote, budget, tally)).everything().resent)
            }
        }
        throw NetworkException("${remote.server} changed again and again during this run: trying again later")
    }

    /** Pushes, then pulls; pulls too where the push has to wait, whatever it waits for. Returns the last page that was pulled. */
    private fun exchange(pusher: Pusher, puller: Puller?): ChangePage? {
        try {
            pusher.push()
        } catch (e: NetworkException) {
            val code = (e as? ServerException)?.code
            if (puller == null || code in OUT_OF_STEP || code in OF_THE_DEVICE) throw e
            try {
                budget.once { puller.changes() }
            } catch (_: NetworkException) { // the push's failure is said
            }
            throw e
        }
        return puller?.changes()
    }

    private val enrollment: Enrollment get() = enrollmentOf(store) ?: throw NotEnrolledException(store.path)
}
