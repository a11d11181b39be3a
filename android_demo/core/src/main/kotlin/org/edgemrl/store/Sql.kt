package org.edgemrl.store

import java.io.File
import java.sql.Connection
import java.sql.PreparedStatement
import java.sql.ResultSet
import java.sql.SQLException
import org.edgemrl.StoreBusyException
import org.edgemrl.StoreException
import org.sqlite.SQLiteConfig
import org.sqlite.SQLiteException
import org.sqlite.SQLiteOpenMode

/** Values in one statement; builds of SQLite may allow no more than 999. */
private const val SQL_PARAMETERS = 500
private const val STATEMENTS = 64

internal const val SQLITE_BUSY = 5
internal const val SQLITE_CORRUPT = 11
internal const val SQLITE_NOTADB = 26
private const val SQLITE_LOCKED = 6
private const val SQLITE_FULL = 13
private const val SQLITE_CANTOPEN = 14

/** SQLite refused; [code] is its primary result code, 0 if it has none. */
internal class SqlException(message: String, cause: Throwable, val code: Int) : StoreException(message, cause)

/**
 * A connection to a database. All of JDBC that the core uses is in this file, so that another driver of a
 * SQLite with FTS5 can take its place.
 *
 * Values are null, Long, Double, String and ByteArray; text that is no UTF-8 is read as [BadText].
 */
internal class Database private constructor(private val file: File, private val connection: Connection) {
    private val statements = LinkedHashMap<String, PreparedStatement>()

    /** Whether a transaction of [transaction] is open. */
    var inTransaction = false
        private set

    /** Runs a statement that gives no rows that matter. */
    fun run(sql: String): Unit = told { connection.createStatement().use { it.execute(sql) } }

    /** Runs a statement with values; returns how many rows it changed. */
    fun execute(sql: String, vararg values: Any?): Int = prepared(sql) { statement ->
        bind(statement, values.asList())
        statement.executeUpdate()
    }

    /** Runs a statement once for each list of values. */
    fun many(sql: String, rows: Iterable<List<Any?>>): Unit = prepared(sql) { statement ->
        for (values in rows) {
            bind(statement, values)
            statement.executeUpdate()
        }
    }

    /** Reads rows one by one. */
    fun each(sql: String, values: List<Any?> = emptyList(), action: (Row) -> Unit): Unit = prepared(sql) { statement ->
        bind(statement, values)
        statement.executeQuery().use { result ->
            val columns = result.metaData.columnCount
            while (result.next()) action(Array(columns) { read(result, it + 1) })
        }
    }

    /** Reads all rows. */
    fun rows(sql: String, vararg values: Any?): List<Row> {
        val found = ArrayList<Row>()
        each(sql, values.asList()) { found.add(it) }
        return found
    }

    /** The first row, or null. */
    fun row(sql: String, vararg values: Any?): Row? = rows(sql, *values).firstOrNull()

    /** Reads the rows whose column [by] has one of the values, however many values there are. */
    fun select(columns: String, by: String, values: Collection<Any?>, table: String = "documents"): List<Row> =
        values.chunked(SQL_PARAMETERS).flatMap { some ->
            val marks = some.joinToString(",") { "?" }
            rows("SELECT $columns FROM $table WHERE $by IN ($marks)", *some.toTypedArray())
        }

    /**
     * Runs a block in a transaction.
     *
     * @param kind `IMMEDIATE` to write, `DEFERRED` to read one state of the database.
     */
    fun <T> transaction(kind: String, block: () -> T): T {
        run("BEGIN $kind")
        inTransaction = true
        try {
            val result = block()
            run("COMMIT")
            inTransaction = false
            return result
        } finally {
            if (inTransaction) {
                inTransaction = false
                // Some errors, such as a full disk, end the transaction themselves.
                try {
                    run("ROLLBACK")
                } catch (_: SqlException) {
                }
            }
        }
    }

    fun close(): Unit = told {
        statements.values.forEach { it.close() }
        statements.clear()
        connection.close()
    }

    private fun <T> prepared(sql: String, block: (PreparedStatement) -> T): T = told {
        val statement = statements.remove(sql) ?: connection.prepareStatement(sql)
        var done = false
        try {
            block(statement).also { done = true }
        } finally {
            // A statement that failed is not used again; others are, once nobody reads from them.
            if (!done || statements.containsKey(sql)) {
                statement.close()
            } else {
                statements[sql] = statement
                if (statements.size > STATEMENTS) statements.remove(statements.keys.first())!!.close()
            }
        }
    }

    private fun bind(statement: PreparedStatement, values: List<Any?>) {
        for ((i, value) in values.withIndex()) {
            when (value) {
                null -> statement.setNull(i + 1, java.sql.Types.NULL)
                is Boolean -> statement.setLong(i + 1, if (value) 1 else 0)
                is Int -> statement.setLong(i + 1, value.toLong())
                is Long -> statement.setLong(i + 1, value)
                is Double -> statement.setDouble(i + 1, value)
                is String -> statement.setString(i + 1, value)
                is ByteArray -> statement.setBytes(i + 1, value)
                else -> throw IllegalArgumentException("${value.javaClass.name} is no value of SQLite's")
            }
        }
    }

    private fun read(result: ResultSet, column: Int): Any? = when (val value = result.getObject(column)) {
        is Int -> value.toLong()
        is String -> {
            // Only text with U+FFFD can have been no UTF-8.
            val bytes = if ('\ufffd' in value) result.getBytes(column) else null
            if (bytes != null && !bytes.contentEquals(value.toByteArray(Charsets.UTF_8))) BadText(bytes) else value
        }
        else -> value
    }

    private inline fun <T> told(block: () -> T): T = try {
        block()
    } catch (e: SQLException) {
        throw explained(e, file)
    }

    companion object {
        /**
         * Opens a database that exists.
         *
         * @param options of SQLite's URI, such as `mode=ro&immutable=1`.
         * @param timeoutMs how long to wait for another process's write.
         */
        fun open(file: File, options: String, timeoutMs: Int): Database {
            val config = SQLiteConfig()
            if ("mode=ro" in options) config.setReadOnly(true) else config.resetOpenMode(SQLiteOpenMode.CREATE)
            config.busyTimeout = timeoutMs
            config.setGetGeneratedKeys(false) // else a statement stays open behind each INSERT, and VACUUM refuses
            val uri = "jdbc:sqlite:file://${file.absoluteFile.toURI().rawPath}?$options"
            try {
                val database = Database(file, config.createConnection(uri))
                // A page whose header does not fit its cells is an error: else its rows would only not be found.
                database.run("PRAGMA cell_size_check = ON")
                return database
            } catch (e: SQLException) {
                throw explained(e, file)
            }
        }

        /** An error of SQLite as an error of edge-mrl about a file. */
        private fun explained(error: SQLException, file: File): StoreException {
            val code = (error as? SQLiteException)?.resultCode?.code?.and(0xFF) ?: error.errorCode.and(0xFF)
            val said = error.message
            return when (code) {
                SQLITE_BUSY, SQLITE_LOCKED ->
                    StoreBusyException("$file is being written by another process: try again in a moment", error)
                SQLITE_CORRUPT, SQLITE_NOTADB ->
                    SqlException("$file is damaged ($said): restore a copy, or make the store again", error, code)
                SQLITE_FULL -> SqlException("$file cannot grow ($said): free some space and try again", error, code)
                SQLITE_CANTOPEN -> SqlException("$file cannot be used: $said", error, code)
                else -> SqlException(
                    if ("closed" in (said ?: "")) "the store $file is closed: open it again" else "$file cannot be used: $said", error, code,
                )
            }
        }
    }
}

/** A statement that inserts one row with values for these columns, in this order. */
internal fun insertInto(table: String, columns: String, replace: Boolean = false): String {
    val marks = columns.split(",").joinToString(", ") { "?" }
    return "${if (replace) "INSERT OR REPLACE" else "INSERT"} INTO $table ($columns) VALUES ($marks)"
}
