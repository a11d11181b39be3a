package org.edgemrl.sync

import java.io.File
import org.edgemrl.NetworkException
import org.edgemrl.NotEnrolledException
import org.edgemrl.UsageException
import org.edgemrl.store.Store
import org.edgemrl.store.replica.Enrollment
import org.edgemrl.store.replica.MAX_QUEUE_BYTES
import org.edgemrl.store.replica.beginEnrolling
import org.edgemrl.store.replica.changeEnrollment
import org.edgemrl.store.replica.enrollStore
import org.edgemrl.store.replica.enrollmentOf
import org.edgemrl.wire.Wall
import org.edgemrl.wire.messageJson

/**
 * What may be chosen when a store is enrolled.
 *
 * @property name a name of the device for people.
 * @property ca a file of certificates to trust instead of the system's.
 * @property insecure allow `http://` to other machines.
 * @property withText send text and metadata too.
 * @property maxQueue most bytes of vectors that wait in the store. Further documents wait without their vectors, and
 *     are embedded again when they are sent.
 */
public data class EnrollmentOptions(
    public val name: String = "Android",
    public val ca: File? = null,
    public val insecure: Boolean = false,
    public val withText: Boolean = false,
    public val maxQueue: Long = MAX_QUEUE_BYTES,
)

/**
 * Makes a store a device of a tenant, and queues all its documents. Calling this again with the same invitation
 * is harmless, whatever was lost or killed.
 *
 * @param server the server's address.
 * @param invitation the one-time secret from the server's administrator.
 * @return where the store's sync stands now.
 * @throws UsageException if the address is none, the store is read-only, or its bundle gives no full vectors.
 * @throws NetworkException if the server cannot be reached, or refuses the invitation, or its tenant is of another
 *     embedding space.
 */
public fun enroll(store: Store, server: String, invitation: String, options: EnrollmentOptions = EnrollmentOptions()): Status {
    if (store.binding.fullDim == null) {
        throw UsageException("${store.path} cannot be synced: its bundle gives no full vectors (it was exported with --coarse-only)")
    }
    if (!store.writable) throw UsageException("${store.path} cannot be synced: it is read-only")
    val before = enrollmentOf(store)
    val ca = options.ca?.canonicalPath
    val transport = Transport(server, ca, options.insecure)
    // On disk before it is sent: whatever is lost now, the same request gives the same token.
    val asked = beginEnrolling(store, invitation, options.withText, options.maxQueue)
    val request = messageJson(mapOf("code" to invitation, "name" to options.name, "nonce" to asked.nonce, "space" to store.binding.spaceId))
    val headers = mapOf("Content-Type" to "application/json")
    val grant = Budget().attempt {
        val started = Wall.nowMs()
        grantOf(transport.request("POST", "/v1/enroll", request.toByteArray(Charsets.UTF_8), headers).json(), transport.server, started)
    }
    val found = Credentials(
        transport.server, grant.tenant, grant.device, grant.token, grant.expiresMs, ca, options.insecure, replaces = before?.device,
    )
    // The invitation is used up now: the token is written first, then the store, which `Link` can bind to what the file says.
    found.write(store)
    val wanted = Enrollment(
        transport.server, grant.tenant, grant.device, offsetMs = grant.offsetMs, withText = asked.withText, maxQueue = asked.maxQueue,
    )
    enrollStore(store, wanted)
    return statusOf(store)
}

/**
 * Whether a store has what it needs to be synced: a copy of a store has not, nor has one that left its server.
 *
 * @throws org.edgemrl.StoreException if its file of credentials is damaged.
 */
public fun isEnrolled(store: Store): Boolean = Credentials.read(store) != null

/**
 * Has a store leave its server: the token is deleted from this device, and nothing is sent or received any more.
 * Documents, the queue and dead letters stay, and an invitation of the same server and tenant takes them up; for
 * another one all documents are queued, and dead letters go. The server is not told: an operator ends the token
 * there with `edge-mrl admin tokens revoke`. Does nothing to a store that is not enrolled.
 *
 * @throws org.edgemrl.StoreException if the token cannot be deleted.
 */
public fun leave(store: Store): Unit = store.changing { Credentials.delete(store) }

/**
 * Changes the address of the store's server, or the certificates to trust; null keeps what is there.
 *
 * @throws NotEnrolledException if the store is not enrolled.
 * @throws UsageException if the address is none.
 */
public fun move(store: Store, server: String? = null, ca: File? = null) {
    var found = Credentials.read(store) ?: throw NotEnrolledException(store.path)
    if (server != null) found = found.copy(server = serverAddress(server, found.insecure))
    if (ca != null) found = found.copy(ca = ca.canonicalPath)
    found.write(store)
    changeEnrollment(store) { it.copy(server = found.server) }
}

/** What a server gives a new device. */
private class Grant(val tenant: String, val device: String, val token: String, val expiresMs: Long?, val offsetMs: Long)

private fun grantOf(answer: Map<String, Any?>, server: String, startedMs: Long): Grant {
    val texts = listOf("tenant", "device", "token").map { answer[it] }
    if (!texts.all { isWord(it) }) throw NetworkException("$server: expected tenant, device and token")
    val (tenant, device, token) = texts.map { it as String }
    return Grant(tenant, device, token, answer["expires_ms"].takeIf { isCount(it) } as Long?, offsetOf(answer["now_ms"], startedMs))
}
