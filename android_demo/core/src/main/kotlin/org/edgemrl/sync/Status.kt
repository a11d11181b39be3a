package org.edgemrl.sync

import org.edgemrl.NotEnrolledException
import org.edgemrl.store.Store
import org.edgemrl.store.Queue
import org.edgemrl.store.replica.agreementOf
import org.edgemrl.store.replica.countDeadLetters
import org.edgemrl.store.replica.enrollmentOf
import org.edgemrl.store.replica.queueOf

/**
 * Where a store's sync stands.
 *
 * @property server the server's address.
 * @property tenant the tenant whose documents the store syncs.
 * @property device this store's name at the server.
 * @property queue what waits to be sent.
 * @property dead how many versions are dead letters: they will not be sent.
 * @property cursor the last change of the server that was pulled; 0 for none.
 * @property successMs when a sync last succeeded, in milliseconds since 1970; null for never.
 * @property withText whether text and metadata are sent.
 * @property waiting why the last run ended early; null if it did not.
 * @property differs in how many of 256 groups of ids store and server held different documents when they were last
 *     compared, after the groups were pulled again; 0 if they held the same.
 */
public data class Status(
    public val server: String,
    public val tenant: String,
    public val device: String,
    public val queue: Queue,
    public val dead: Long,
    public val cursor: Long,
    public val successMs: Long?,
    public val withText: Boolean,
    public val waiting: String?,
    public val differs: Int,
)

/**
 * Where a store's sync stands.
 *
 * @param waiting why the last run ended early, if the caller knows.
 * @throws NotEnrolledException if the store is not enrolled.
 */
public fun statusOf(store: Store, waiting: String? = null): Status {
    val found = enrollmentOf(store) ?: throw NotEnrolledException(store.path)
    return Status(
        found.server, found.tenant, found.device, queueOf(store), countDeadLetters(store), found.cursor, found.successMs.takeIf { it != 0L },
        found.withText, waiting, agreementOf(store).differs.toInt(),
    )
}
