package org.edgemrl.store

/**
 * Brings a store of an earlier version to the present one. A kill at any moment leaves the store as it was.
 *
 * @param migrations all of them, in their order.
 */
internal class Migration(private val database: Database, private val migrations: List<Map<*, *>>) {
    fun run(): Unit = database.transaction("IMMEDIATE") {
        // Another process may have been first.
        val first = (database.row("PRAGMA user_version")!![0] as Long).toInt()
        for (number in first until migrations.size) {
            val name = migrations[number]["name"]
            when (name) {
                "0010-words-of-one-unicode" -> indexWordsAnew()
                else -> error("the migration $name is not known here")
            }
            database.execute("INSERT INTO migrations VALUES (?, ?, ?)", number + 1, name, System.currentTimeMillis())
            database.run("PRAGMA user_version = ${number + 1}")
        }
    }

    /** Before, the form of words depended on the version of Unicode of whoever wrote them; ASCII has one form. */
    private fun indexWordsAnew() {
        val others = "SELECT 1 FROM documents WHERE length(text) <> length(CAST(text AS BLOB)) LIMIT 1"
        if (database.row(others) == null) return
        indexWords(database)
    }
}
