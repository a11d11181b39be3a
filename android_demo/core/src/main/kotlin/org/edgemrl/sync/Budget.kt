package org.edgemrl.sync

import org.edgemrl.IntermediaryException
import org.edgemrl.NetworkException
import org.edgemrl.OversizedAnswerException
import org.edgemrl.ServerException

/** How often a request is sent in one run before the run gives up. */
internal const val ATTEMPTS = 4

/** The longest wait between two attempts, in seconds. */
private const val ATTEMPT_WAIT_S = 4.0

/** HTTP statuses of temporary refusals, besides 5xx: time-outs, and too many requests. */
private val TEMPORARY = setOf(408, 425, 429)

/** Error codes that a request may get because it was damaged or delayed on its way. */
private val ON_THE_WAY = setOf("digest", "timeout")

/** Error codes of a server that is ahead of this store, or behind it: see [Run]. */
internal val OUT_OF_STEP = setOf("fenced", "restored", "superseded")

/** The error code of a server that makes a snapshot, and asks to come again. */
internal const val PREPARING = "preparing"

/** Seconds that a run waits for that. Then it ends; the next one asks again. */
private const val PREPARING_S = 120.0

/** A run ends before its work is done: its bytes are used up, or it was stopped. This is not a failure. */
internal class RunEndedException(message: String) : Exception(message)

/** Between two looks at whether a run shall stop, in milliseconds. */
internal const val STOP_LOOK_MS = 50L

/** The error of a run that was stopped. What was sent without an answer is asked for by the next run. */
internal fun stoppedRun() = RunEndedException("it was stopped; what waits stays, and is sent the next time")

/**
 * Limits one run: how often each request is sent at most, and how many bytes are exchanged; null for no limit.
 *
 * @param stopped whether the run shall end before its next request.
 */
internal class Budget(private val maxBytes: Long? = null, private var attempts: Int = ATTEMPTS, private val stopped: () -> Boolean = { false }) {
    private var remote: Remote? = null
    private var start = 0L to 0L
    private var first = true
    private var untilNs: Long? = null

    /** Counts the bytes that a connection sends and receives from now on. */
    fun start(remote: Remote) {
        this.remote = remote
        start = remote.traffic
    }

    /** Bytes sent and received in this run. */
    val traffic: Pair<Long, Long>
        get() = remote?.traffic?.let { (sent, received) -> sent - start.first to received - start.second } ?: (0L to 0L)

    /** Bytes that may still be used, 0 or less when none are left; null without a limit. */
    val leftBytes: Long? get() = maxBytes?.let { it - traffic.first - traffic.second }

    /** Makes sure that a request of this size is within the limit. @throws RunEndedException if not, and it is not the first. */
    fun require(sizeBytes: Long) {
        val left = leftBytes
        if (left != null && !first && left < maxOf(sizeBytes, 1)) throw RunEndedException("this run's $maxBytes bytes are used up")
    }

    /**
     * Sends a request, and sends it again after failures that may pass. A refusal that would end the run is asked
     * for once more: a bit of the token may have been changed on the way, and the server cannot know that. An
     * answer that is too large is not: the next one may cost as many bytes. Nor is [PREPARING], which is no failure
     * ([waitPrepared]).
     */
    fun <T> attempt(ask: () -> T): T {
        val backoff = attemptBackoff()
        var refused: Pair<Int, String>? = null
        while (true) {
            if (stopped()) throw stoppedRun()
            require(0)
            first = false
            try {
                return ask()
            } catch (e: OversizedAnswerException) {
                throw e
            } catch (e: NetworkException) {
                val code = codeOf(e)
                if (code == PREPARING) throw e
                if (code == null || isTemporary(e)) {
                    pause(backoff, e)
                } else {
                    val again = statusOf(e) to code
                    if (refused == again || code in OUT_OF_STEP || code == "head_unknown") throw e
                    refused = again
                }
            }
        }
    }

    /** Waits for the next attempt, or throws the error where there is none. */
    private fun pause(backoff: Backoff, error: NetworkException) {
        val waitS = backoff.failed(error.retryAfterS)
        if (backoff.failures >= attempts || waitS > 2 * ATTEMPT_WAIT_S || Thread.currentThread().isInterrupted) throw error
        sleep(waitS, error, stopped)
    }

    /**
     * Waits as long as a server asks for that prepares something, and up to a second longer. A run that sends each
     * request once does not wait: its thread does.
     *
     * @throws ServerException if this run has waited for long enough.
     */
    fun waitPrepared(error: ServerException) {
        val nowNs = System.nanoTime()
        val end = untilNs ?: (nowNs + (PREPARING_S * 1e9).toLong()).also { untilNs = it }
        val waitS = Backoff().failed(error.retryAfterS)
        if (attempts == 1 || nowNs + (waitS * 1e9).toLong() > end || Thread.currentThread().isInterrupted) throw error
        sleep(waitS, error, stopped)
    }

    /** Sends each request of a block once, whatever comes back. */
    fun <T> once(block: () -> T): T {
        val before = attempts
        attempts = 1
        try {
            return block()
        } finally {
            attempts = before
        }
    }
}

/** Waits; an interrupted thread throws the error, and stays interrupted. @throws RunEndedException if it is stopped meanwhile. */
internal fun sleep(seconds: Double, error: NetworkException, stopped: () -> Boolean = { false }) {
    val untilNs = System.nanoTime() + (seconds * 1e9).toLong()
    try {
        while (true) {
            if (stopped()) throw stoppedRun()
            val leftMs = (untilNs - System.nanoTime()) / 1_000_000
            if (leftMs <= 0) return
            Thread.sleep(minOf(leftMs, STOP_LOOK_MS))
        }
    } catch (_: InterruptedException) {
        Thread.currentThread().interrupt()
        throw error
    }
}

/** The waiting times between the attempts of one run. */
internal fun attemptBackoff(): Backoff = Backoff(capS = ATTEMPT_WAIT_S, firstS = 0.25)

/** The kind of a refusal; null where nobody refused. */
private fun codeOf(error: NetworkException): String? = when (error) {
    is ServerException -> error.code
    is IntermediaryException -> "intermediary"
    else -> null
}

/** The HTTP status of a refusal; 0 where nobody refused. */
internal fun statusOf(error: NetworkException): Int = (error as? ServerException)?.status ?: (error as? IntermediaryException)?.status ?: 0

/** Whether a refusal may pass by itself: a time-out, a busy or broken server, a damaged request. */
internal fun isTemporary(error: NetworkException): Boolean = when (error) {
    is IntermediaryException -> error.status !in LASTING
    is ServerException -> error.status >= 500 || error.status in TEMPORARY || error.code in ON_THE_WAY
    else -> true
}
