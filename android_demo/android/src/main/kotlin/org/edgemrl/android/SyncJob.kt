package org.edgemrl.android

import android.app.job.JobInfo
import android.app.job.JobParameters
import android.app.job.JobScheduler
import android.app.job.JobService
import android.content.ComponentName
import android.content.Context
import android.os.Build
import java.util.concurrent.ConcurrentHashMap
import java.util.concurrent.TimeUnit
import java.util.concurrent.atomic.AtomicBoolean

/** The job that the phone starts when the conditions hold. Its application is a [SyncHost]. */
public class SyncJob : JobService() {
    private val running = ConcurrentHashMap<Int, AtomicBoolean>()

    override fun onStartJob(parameters: JobParameters): Boolean {
        val synchronizer = (application as? SyncHost)?.synchronizer ?: return false
        val stopped = AtomicBoolean()
        running[parameters.jobId] = stopped
        Thread({ run(parameters, synchronizer, stopped) }, "edge-mrl-sync").start()
        return true
    }

    /** The conditions hold no longer: the exchange ends after its present request, and is tried again. */
    override fun onStopJob(parameters: JobParameters): Boolean {
        running.remove(parameters.jobId)?.set(true)
        return true
    }

    private fun run(parameters: JobParameters, synchronizer: Synchronizer, stopped: AtomicBoolean) {
        val outcome = try {
            synchronizer.sync { stopped.get() }
        } catch (e: RuntimeException) {
            android.util.Log.w("edge-mrl", "the exchange failed", e)
            SyncOutcome.AGAIN
        }
        // A job that was stopped is the phone's again: it must not be finished a second time.
        if (running.remove(parameters.jobId, stopped)) jobFinished(parameters, outcome == SyncOutcome.AGAIN)
    }
}

/** Asks the phone to run [SyncJob]. */
public class SyncSchedule(private val context: Context) {
    private val scheduler: JobScheduler
        get() = context.getSystemService(Context.JOB_SCHEDULER_SERVICE) as JobScheduler

    /**
     * Asks for exchanges under conditions, also after the phone was restarted; another call replaces them.
     *
     * @throws IllegalStateException if the phone refuses the job.
     */
    public fun every(conditions: SyncConditions) {
        val job = request(PERIODIC, conditions).setPeriodic(TimeUnit.MINUTES.toMillis(conditions.periodMinutes))
        submit(job.setPersisted(true))
    }

    /**
     * Asks for one exchange soon, such as after a note was written, under the same conditions.
     *
     * @throws IllegalStateException if the phone refuses the job.
     */
    public fun soon(conditions: SyncConditions) {
        submit(request(ONCE, conditions).setBackoffCriteria(BACKOFF_MS, JobInfo.BACKOFF_POLICY_EXPONENTIAL))
    }

    /** Ends all exchanges in the background. */
    public fun never() {
        scheduler.cancel(PERIODIC)
        scheduler.cancel(ONCE)
    }

    /** Whether the phone knows of the periodic job. */
    public fun isOn(): Boolean = scheduler.allPendingJobs.any { it.id == PERIODIC }

    private fun request(id: Int, conditions: SyncConditions): JobInfo.Builder {
        val network = if (conditions.metered) JobInfo.NETWORK_TYPE_ANY else JobInfo.NETWORK_TYPE_UNMETERED
        val builder = JobInfo.Builder(id, ComponentName(context, SyncJob::class.java))
            .setRequiredNetworkType(network)
            .setRequiresCharging(conditions.charging)
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.O) askForBattery(builder, conditions)
        return builder
    }

    @Guarded(since = 26)
    private fun askForBattery(builder: JobInfo.Builder, conditions: SyncConditions) {
        builder.setRequiresBatteryNotLow(!conditions.batteryLow)
    }

    private fun submit(builder: JobInfo.Builder) {
        check(scheduler.schedule(builder.build()) == JobScheduler.RESULT_SUCCESS) { "the phone refused the job" }
    }

    private companion object {
        const val PERIODIC = 0x0ed6e
        const val ONCE = 0x0ed6f
        const val BACKOFF_MS = 30_000L
    }
}
