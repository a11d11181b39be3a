package org.edgemrl.store.replica

import org.edgemrl.store.Store

/** The setting that names another embedding space that documents came from. */
private const val FOREIGN = "foreign"

/**
 * Deletes here what other devices wrote, and tells no server. The next sync pulls everything again.
 *
 * @return how many documents were deleted.
 */
internal fun forgetReceived(store: Store): Int = store.taking { taking ->
    val database = taking.database
    val now = requireEnrollment(database, store)
    val own = ownNames(database, now)
    val rows = database.rows("SELECT id, device FROM versions WHERE id NOT IN (SELECT id FROM outbox)")
    val names = rows.filter { it[1] !in own }.map { it[0] as String }
    val there = database.rows("SELECT id FROM documents").mapTo(HashSet()) { it[0] as String }
    val gone = names.filter { it in there }
    database.many("DELETE FROM versions WHERE id = ?", names.map { listOf(it) })
    writeEnrollment(database, now.copy(cursor = 0))
    writeSetting(database, FOREIGN, null)
    taking.delete(gone)
    gone.size
}
