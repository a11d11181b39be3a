package org.edgemrl.android

/** What exchanges an index with a server. The job calls it; it blocks, and may be asked from any thread. */
public interface Synchronizer {
    /**
     * Sends what waits and fetches what is new.
     *
     * @param stopped is asked between requests: true means that the phone wants the job to end now. What was
     *     exchanged until then stays.
     */
    public fun sync(stopped: () -> Boolean): SyncOutcome
}

/** How an exchange ended. */
public enum class SyncOutcome {
    /** Nothing waits on either side. */
    DONE,

    /** It was stopped, or the server could not be reached: the phone tries again later. */
    AGAIN,

    /** Trying again does not help before the user does something, such as enrolling. */
    REFUSED,
}

/** An application whose background jobs exchange with a server. */
public interface SyncHost {
    /** What to run, or null while no server is set: then the job ends at once. */
    public val synchronizer: Synchronizer?
}

/**
 * When the phone may exchange in the background.
 *
 * @property metered also where each byte costs money, such as on a mobile network.
 * @property charging only while the phone is charged.
 * @property batteryLow also while the battery is low. Asked from Android 8 on; before, the phone decides.
 * @property periodMinutes time between two exchanges, at least 15: the phone takes no less.
 */
public data class SyncConditions(
    val metered: Boolean = false,
    val charging: Boolean = false,
    val batteryLow: Boolean = false,
    val periodMinutes: Long = 60,
) {
    init {
        require(periodMinutes >= LEAST_MINUTES) {
            "periodMinutes is $periodMinutes: expected at least $LEAST_MINUTES, the least that Android takes"
        }
    }

    public companion object {
        /** The least time between two exchanges, in minutes. */
        public const val LEAST_MINUTES: Long = 15
    }
}
