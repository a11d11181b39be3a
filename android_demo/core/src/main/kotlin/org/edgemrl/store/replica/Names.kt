package org.edgemrl.store.replica

import org.edgemrl.DamagedException
import org.edgemrl.json.Json
import org.edgemrl.store.Database
import org.edgemrl.store.FORMER_NAMES
import org.edgemrl.store.checksum
import org.edgemrl.store.insertInto

/** Names that are kept: whoever is enrolled more often writes mostly under the last ones. */
private const val MAX_NAMES = 64

/** The text of a setting, or null. @throws DamagedException if it is not what was written. */
internal fun readSetting(database: Database, name: String): String? {
    val (value, crc) = database.row("SELECT value, crc FROM settings WHERE name = ?", name) ?: return null
    if (checksum(name, value) != crc) throw DamagedException("its setting '$name' cannot be trusted")
    return value.toString()
}

/** Writes a setting; null deletes it. */
internal fun writeSetting(database: Database, name: String, value: String?) {
    database.execute("DELETE FROM settings WHERE name = ?", name)
    if (value != null) database.execute(insertInto("settings", "name, value, crc"), name, value, checksum(name, value))
}

/** All names of this store's device with its server, as versions have them: a device that is enrolled anew has another one. */
internal fun ownNames(database: Database, enrollment: Enrollment): Set<String> = setOf(enrollment.device) + former(database)

/** Remembers a name that is given up; null forgets all, where the server is another one. */
internal fun keepName(database: Database, name: String?) {
    val names = if (name == null) emptyList() else (former(database) + name).takeLast(MAX_NAMES)
    writeSetting(database, FORMER_NAMES, if (names.isEmpty()) null else Json.write(names))
}

private fun former(database: Database): List<String> =
    readSetting(database, FORMER_NAMES)?.let { text -> (Json.parse(text) as List<*>).map { it as String } } ?: emptyList()
