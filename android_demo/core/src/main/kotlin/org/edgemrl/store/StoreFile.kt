package org.edgemrl.store

import java.io.File
import java.io.IOException
import java.io.RandomAccessFile
import java.nio.channels.FileLock
import java.nio.channels.OverlappingFileLockException
import org.edgemrl.DamagedException
import org.edgemrl.NoStoreException
import org.edgemrl.NotAStoreException
import org.edgemrl.StoreBusyException
import org.edgemrl.StoreException
import org.edgemrl.StoreKeyException

/** What may be left beside a file that is gone or empty: none of it belongs to the new store. */
private val LEFT = listOf("-wal", "-shm", "-journal")
private const val RETRY_MS = 20L

/** An open database, and whether this process can write it. */
internal class Opened(val database: Database, val writable: Boolean)

/** The store's file: telling it from other files, making it, opening it. */
internal object StoreFile {
    /**
     * Opens a store's database; makes it where there is none and [fill] is given.
     *
     * @param fill fills the tables of a new store.
     * @throws StoreException if the file cannot be used; see the classes below it.
     */
    fun connect(file: File, timeoutMs: Int, fill: ((Database) -> Unit)?): Opened {
        val there = recognise(file)
        if (!there && fill == null) throw missing(file)
        if (there && !canWrite(file)) return Opened(connectToRead(file, timeoutMs), false)
        if (!there && fill != null) make(file, timeoutMs, fill)
        return Opened(connectToWrite(file, timeoutMs, null), true).also { tighten(file) }
    }

    fun beside(file: File, suffix: String): File = File(file.path + suffix)

    /** Whether there is a store; false for no file or an empty one. Nothing is written. */
    private fun recognise(file: File): Boolean {
        if (file.isDirectory) throw NotAStoreException("$file is a folder, expected a store's file")
        if (file.length() == 0L) return false
        val found = try {
            val probe = Database.open(file, "mode=ro&immutable=1", 0)
            try {
                probe.run("PRAGMA writable_schema = ON") // tolerates a file shorter than its header says
                probe.row("PRAGMA application_id")!![0]
            } finally {
                probe.close()
            }
        } catch (e: SqlException) {
            if (e.code != SQLITE_NOTADB) throw e
            null
        }
        if (found == null && hasMagic(file)) {
            throw StoreKeyException("$file is encrypted: edge-mrl for Android opens plain stores only; make one of a copy with `edge-mrl decrypt` on a computer")
        }
        if (found != APPLICATION_ID) throw Schema.foreign(file.path)
        return true
    }

    private fun hasMagic(file: File): Boolean = RandomAccessFile(file, "r").use { open ->
        ByteArray(8).also { open.read(it) }.contentEquals("eMRLcryp".toByteArray(Charsets.US_ASCII))
    }

    private fun missing(file: File) = NoStoreException("no store at $file: make one from a bundle")

    private fun canWrite(file: File): Boolean = file.canWrite() && file.absoluteFile.parentFile?.canWrite() == true

    private fun connectToRead(file: File, timeoutMs: Int): Database {
        // A store opened without its log would show an older state.
        val pending = beside(file, "-wal").length() > 0
        val database = Database.open(file, if (pending) "mode=ro" else "mode=ro&immutable=1", timeoutMs)
        return closing(database) {
            if (!Schema.isPresent(database, file.path)) throw missing(file)
            requireDefined(database, file)
        }
    }

    private fun connectToWrite(file: File, timeoutMs: Int, fill: ((Database) -> Unit)?): Database {
        val database = Database.open(file, "mode=rw", timeoutMs)
        return closing(database) {
            database.run("PRAGMA foreign_keys = ON")
            // FULL syncs each commit: what was acknowledged survives a power cut, not only a crash.
            database.run("PRAGMA synchronous = FULL")
            database.run("PRAGMA secure_delete = ON")
            if (!Schema.isPresent(database, file.path, migrate = true)) {
                if (fill == null) throw missing(file)
                database.transaction("IMMEDIATE") {
                    Schema.create(database)
                    fill(database)
                }
            }
            requireDefined(database, file)
            useWal(database, timeoutMs)
        }
    }

    private fun closing(database: Database, prepare: () -> Unit): Database {
        var done = false
        try {
            prepare()
            done = true
            return database
        } finally {
            if (!done) database.close()
        }
    }

    private fun requireDefined(database: Database, file: File) {
        val wrong = Schema.problem(database) ?: return
        throw DamagedException(
            "$file is damaged (the definition of $wrong is not what it was): `edge-mrl check --repair --store $file` on a " +
                "computer mends that, or restore a copy",
        )
    }

    /** Switches to write-ahead logging, for which SQLite does not wait by itself. */
    private fun useWal(database: Database, timeoutMs: Int) {
        val deadline = System.nanoTime() + timeoutMs * 1_000_000L
        while (true) {
            try {
                return database.run("PRAGMA journal_mode = WAL")
            } catch (e: StoreBusyException) {
                if (System.nanoTime() > deadline) throw e
            }
            Thread.sleep(RETRY_MS)
        }
    }

    /** Takes everybody else's rights from a store's files. */
    private fun tighten(file: File) {
        for (suffix in listOf("", "-wal", "-shm", "-codes")) {
            val one = beside(file, suffix)
            if (one.exists()) Durable.makePrivate(one)
        }
    }

    /** Makes a store under another name, syncs it and renames it: it is there as a whole, or not at all. */
    private fun make(file: File, timeoutMs: Int, fill: (Database) -> Unit) {
        val deadline = System.nanoTime() + timeoutMs * 1_000_000L
        val target = file.canonicalFile
        val before = target.exists()
        try {
            var placed = false
            while (!placed) {
                Durable.createPrivate(target)
                // Whoever makes the store holds a lock on the empty file in its place; it may be gone by the time we have it.
                placed = RandomAccessFile(target, "rw").use { place -> lock(place, deadline, file).use { makeAt(place, target, timeoutMs, fill) } }
            }
        } catch (e: IOException) {
            if (!before && target.length() == 0L) target.delete()
            throw StoreException("$file cannot be made: ${e.message}", e)
        }
    }

    /** Makes the store unless it is there; false if the locked file is not at the path any more. */
    private fun makeAt(place: RandomAccessFile, target: File, timeoutMs: Int, fill: (Database) -> Unit): Boolean {
        if (target.length() == 0L) {
            if (!target.exists()) return false
            if (place.length() == 0L) makeWhole(target, timeoutMs, fill)
        }
        return true
    }

    private fun lock(place: RandomAccessFile, deadline: Long, file: File): FileLock {
        while (true) {
            try {
                place.channel.tryLock()?.let { return it }
            } catch (_: OverlappingFileLockException) {
                // Another thread of this process makes it.
            }
            if (System.nanoTime() > deadline) throw StoreBusyException("$file is being made by another process: try again in a moment")
            Thread.sleep(RETRY_MS)
        }
    }

    private fun makeWhole(target: File, timeoutMs: Int, fill: (Database) -> Unit) {
        val temporary = File(target.parentFile, ".${target.name}-edge-mrl-new")
        for (suffix in listOf("") + LEFT) beside(temporary, suffix).delete()
        var done = false
        try {
            Durable.createPrivate(temporary)
            connectToWrite(temporary, timeoutMs, fill).close()
            Durable.sync(temporary)
            for (suffix in LEFT) beside(target, suffix).delete()
            Durable.replace(temporary, target)
            done = true
        } finally {
            if (!done) for (suffix in listOf("") + LEFT) beside(temporary, suffix).delete()
        }
    }
}
