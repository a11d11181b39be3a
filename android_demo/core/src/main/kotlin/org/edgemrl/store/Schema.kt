package org.edgemrl.store

import java.util.zip.CRC32
import org.edgemrl.DamagedException
import org.edgemrl.NotAStoreException
import org.edgemrl.StoreException
import org.edgemrl.StoreVersionException
import org.edgemrl.json.Json

/** "eMRL" in the database header: how a store is told from any other SQLite file. */
internal const val APPLICATION_ID = 0x654D524CL

private val RENAMED = Regex("^CREATE TABLE \"(\\w+)\"")

/** What an encrypted store has beside the tables of the migrations. */
private const val BESIDE = "private"

/** The oldest version that an edge-mrl for Android has written; older ones come from computers. */
private const val OLDEST_OWN = 9L

/** The tables of a store (FORMAT.md, "Store"), as the Python package defines them; android_demo/tools/tables.py. */
internal object Schema {
    private val made: Map<*, *> by lazy {
        val stream = Schema::class.java.getResourceAsStream("/org/edgemrl/store/tables.json") ?: error("tables.json is missing")
        Json.parse(stream.use { it.readBytes() }.toString(Charsets.UTF_8)) as Map<*, *>
    }
    private val migrations: List<Map<*, *>> get() = (made["migrations"] as List<*>).map { it as Map<*, *> }

    /** Migrations that a store of the present version has had. */
    val version: Int get() = migrations.size

    /** Makes the tables of a new store. Call it in a transaction that writes. */
    fun create(database: Database) {
        database.run("PRAGMA application_id = $APPLICATION_ID")
        database.run(made["first"] as String)
        migrations.forEachIndexed { i, migration ->
            for (step in migration["steps"] as List<*>) database.run(step as String)
            database.execute("INSERT INTO migrations VALUES (?, ?, ?)", i + 1, migration["name"], System.currentTimeMillis())
            database.run("PRAGMA user_version = ${i + 1}")
        }
    }

    /**
     * Whether the database is a store of the present version; false if it is empty.
     *
     * @param migrate whether a store of an earlier version, which an earlier edge-mrl for Android may have written, is
     *     brought to the present one, in one transaction. It can be written then.
     * @throws StoreException if it is another file, of another version, or not defined as it was.
     */
    fun isPresent(database: Database, path: String, migrate: Boolean = false): Boolean {
        if (database.row("PRAGMA application_id")!![0] != APPLICATION_ID) {
            if (database.row("SELECT count(*) FROM sqlite_master")!![0] != 0L) throw foreign(path)
            return false
        }
        val found = database.row("PRAGMA user_version")!![0] as Long
        if (found > version) {
            throw StoreVersionException("$path has store version $found, this edge-mrl reads up to $version: update edge-mrl")
        }
        val names = database.rows("SELECT name FROM migrations ORDER BY version").map { it[0] }
        if (names != migrations.take(found.toInt()).map { it["name"] }) {
            throw DamagedException("$path is damaged (its migrations are $names): restore a copy")
        }
        if (found in OLDEST_OWN until version && migrate) {
            Migration(database, migrations).run()
        } else if (found < version) {
            throw StoreVersionException(
                "$path is of store version $found, and this edge-mrl for Android reads version $version: open it once with " +
                    "edge-mrl on a computer (`edge-mrl stats --store $path`), which brings it to version $version",
            )
        }
        return true
    }

    /** Names of tables and indexes that are not defined as they were; empty for a sound store. */
    fun problem(database: Database): String? {
        val there = HashMap<Long, String>()
        for ((kind, name, table, sql) in database.rows("SELECT type, name, tbl_name, sql FROM sqlite_master")) {
            if (table == BESIDE) continue
            val plain = (sql as? String)?.let { RENAMED.replace(it, "CREATE TABLE $1") } ?: ""
            val crc = CRC32().also { it.update(listOf(kind, name, table, plain).joinToString("\u0000").toByteArray(Charsets.UTF_8)) }
            there[crc.value] = name.toString()
        }
        val wanted = (made["checks"] as List<*>).map { it as Long }.toSet()
        if (there.keys.containsAll(wanted)) return null
        return there.filterKeys { it !in wanted }.values.firstOrNull { !it.startsWith("keywords_") && !it.startsWith("sqlite_") } ?: "a table"
    }

    fun foreign(path: String): NotAStoreException =
        NotAStoreException("$path is not an edge-mrl store, and was left as it is: name another file")
}
