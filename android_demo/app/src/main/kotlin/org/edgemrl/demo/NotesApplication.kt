package org.edgemrl.demo

import android.app.Application
import android.content.Context
import android.os.Handler
import android.os.Looper
import java.io.File
import java.io.InputStream
import java.util.concurrent.Executor
import java.util.concurrent.Executors
import org.edgemrl.UsageException
import org.edgemrl.android.AssetSource
import org.edgemrl.android.BundleFolder
import org.edgemrl.android.EdgeMrl
import org.edgemrl.android.MemoryWatch
import org.edgemrl.android.PhoneDisk
import org.edgemrl.android.Releasable
import org.edgemrl.android.SyncConditions
import org.edgemrl.android.SyncHost
import org.edgemrl.android.SyncSchedule
import org.edgemrl.android.Synchronizer
import org.edgemrl.android.ZipSource
import org.edgemrl.demo.notes.FileNotebook
import org.edgemrl.demo.notes.IndexNotebook
import org.edgemrl.demo.state.Runner
import org.edgemrl.demo.state.SettingsStore
import org.edgemrl.demo.state.policyOf
import org.edgemrl.demo.sync.StoreLink
import org.edgemrl.encode.verify

/** What lives as long as the process: the notes, the model's files, and the threads. */
class NotesApplication : Application(), SyncHost, Releasable {
    private val disk = PhoneDisk()

    /** The threads of work and of views. */
    val runner: Runner by lazy {
        val handler = Handler(Looper.getMainLooper())
        Runner(Executors.newSingleThreadExecutor { Thread(it, "notes") }, Executor { handler.post(it) })
    }

    /** The threads of what the Sync screen asks for, and of its views: a search must not wait for a server. */
    val syncRunner: Runner by lazy { Runner(Executors.newSingleThreadExecutor { Thread(it, "sync-screen") }, runner.screen) }

    /** The notes. First asked for in the background: it reads the disk. */
    val notebook: IndexNotebook by lazy {
        val folder = File(filesDir, "index")
        IndexNotebook(folder, FileNotebook(File(filesDir, "notes"), disk), ::exchangeSoon) { bundles.current() }
    }

    /** The server. */
    val link: StoreLink by lazy {
        val work = Executors.newSingleThreadExecutor { Thread(it, "edge-mrl-sync") }
        StoreLink({ notebook.storeFile() }, StoredValues(this), { policyOf(settings.read()) }, { power(this) }, work, ::joined)
    }

    /** The model's files. */
    val bundles: BundleFolder by lazy { BundleFolder(File(filesDir, "bundles"), disk) }

    /** What the user chose. */
    val settings: SettingsStore by lazy { SettingsStore(StoredValues(this)) }

    override val synchronizer: Synchronizer get() = link

    /** Whether there is a server, as far as it is known. */
    @Volatile
    private var isJoined = false

    override fun onCreate() {
        super.onCreate()
        EdgeMrl.prepare()
        registerComponentCallbacks(MemoryWatch(this))
        runner.background.execute {
            installBundle()
            lookForServer()
        }
    }

    /** Brings the conditions of the jobs in the background up to date; no server, no jobs. */
    fun reschedule(conditions: SyncConditions) {
        val schedule = SyncSchedule(this)
        if (isJoined) schedule.every(conditions) else schedule.never()
    }

    private fun joined(now: Boolean) {
        isJoined = now
        asking { reschedule(settings.read().conditions) }
    }

    /** A note was written or deleted. */
    private fun exchangeSoon() {
        if (isJoined) asking { SyncSchedule(this).soon(settings.read().conditions) }
    }

    /** Asks for a job. The note is saved, and the server joined, also where the phone refuses it. */
    private fun asking(ask: () -> Unit) {
        try {
            ask()
        } catch (e: IllegalStateException) {
            android.util.Log.w("edge-mrl", "the phone refuses the job: notes are exchanged from the screen Sync alone", e)
        }
    }

    /** The jobs outlast the process; they are asked for again if the phone has forgotten them. */
    private fun lookForServer() {
        try {
            isJoined = link.state() != null
            if (isJoined && !SyncSchedule(this).isOn()) reschedule(settings.read().conditions)
        } catch (e: Exception) { // the Sync screen says what is wrong
            android.util.Log.w("edge-mrl", "the link to the server cannot be read", e)
        }
    }

    /** In the background: views must not wait for a search that runs. */
    override fun releaseCaches(): Unit = runner.background.execute { notebook.releaseCaches() }

    override fun releaseAll(): Unit = runner.background.execute { notebook.release() }

    /**
     * Installs a model out of a zip, if this phone verifies it; the notes are then indexed by it.
     *
     * @throws org.edgemrl.BundleException if its files are not those of its manifest, or it fails its verification.
     * @throws UsageException if it is another model, and the notes are exchanged with a server.
     */
    fun installModel(zip: () -> InputStream) {
        bundles.install(ZipSource(zip)) { folder ->
            requireVerified(verify(folder, THREADS))
            if (isJoined && notebook.wouldChange(folder)) {
                throw UsageException("these notes are exchanged with a server, which has vectors of the present model: leave the server on the screen Sync first")
            }
        }
        notebook.reopen()
        bundles.removeOthers()
    }

    private fun installBundle() {
        try {
            if (bundles.current() == null) bundles.install(AssetSource(assets))
            bundles.removeOthers()
        } catch (e: Exception) {
            // Notes can be read and written without a model; the Verify screen says what is wrong.
            android.util.Log.e("edge-mrl", "the bundle of the app cannot be installed", e)
        }
    }

    companion object {
        /** Threads of a verification: a phone's large cores. */
        const val THREADS = 2

        /** The application of a screen. */
        fun of(context: Context): NotesApplication = context.applicationContext as NotesApplication
    }
}
