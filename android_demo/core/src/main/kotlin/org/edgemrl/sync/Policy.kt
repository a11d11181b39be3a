package org.edgemrl.sync

import java.util.Random

/** The longest wait after failures by default, and the longest after the first one, in seconds. */
internal const val MAX_WAIT_S = 300.0
private const val FIRST_WAIT_S = 1.0
private const val DAY_S = 86_400.0

/** 2 to this power is beyond any limit; more would overflow one day. */
private const val MAX_DOUBLINGS = 30

/**
 * The state of a device's power and network, as its application knows it.
 *
 * @property online whether there is a network at all.
 * @property metered whether the connection is paid by volume.
 * @property charging whether it is on external power.
 * @property batteryLow whether the battery is low.
 */
public data class Conditions(
    public val online: Boolean = true,
    public val metered: Boolean = false,
    public val charging: Boolean = true,
    public val batteryLow: Boolean = false,
)

/**
 * Under which conditions a device syncs. "Sync now" overrides everything but [maxBytes].
 *
 * @property onMetered sync over a metered connection too.
 * @property onlyCharging sync on external power only.
 * @property onLowBattery sync when the battery is low too.
 * @property maxBytes most bytes sent and received in one run; null for no limit. A run ends before a request that
 *     would exceed it, but it always makes one request.
 */
public data class Policy(
    public val onMetered: Boolean = false,
    public val onlyCharging: Boolean = false,
    public val onLowBattery: Boolean = false,
    public val maxBytes: Long? = null,
) {
    /** Why a device must wait, in plain words; null if it may sync. */
    public fun whyNot(conditions: Conditions): String? = when {
        !conditions.online -> "there is no network"
        conditions.metered && !onMetered -> "the connection is metered"
        onlyCharging && !conditions.charging -> "the device is not charging"
        conditions.batteryLow && !conditions.charging && !onLowBattery -> "the battery is low"
        else -> null
    }
}

/**
 * Waiting times after failures: random, doubling with each failure, up to a limit ("full jitter": AWS
 * architecture blog, "Exponential Backoff And Jitter", 2015).
 *
 * @param capS the longest wait, in seconds.
 * @param firstS the longest wait after the first failure, in seconds.
 */
internal class Backoff(private val capS: Double = MAX_WAIT_S, private val firstS: Double = FIRST_WAIT_S) {
    private val random = Random()
    var failures = 0
        private set

    fun succeeded() {
        failures = 0
    }

    /** Counts a failure; returns seconds to wait, at least what the server asked for, if it did. */
    fun failed(retryAfterS: Double? = null): Double {
        val most = minOf(capS, firstS * (1L shl minOf(failures, MAX_DOUBLINGS)))
        failures++
        // At most a day: a server with a broken clock must not stop a device for ever.
        return random.nextDouble() * most + minOf(retryAfterS ?: 0.0, DAY_S)
    }
}
