package org.edgemrl.sync

import org.edgemrl.NotEnrolledException
import org.edgemrl.ServerException
import org.edgemrl.UsageException
import org.edgemrl.store.Store
import org.edgemrl.store.replica.Enrollment
import org.edgemrl.store.replica.drawNonce
import org.edgemrl.store.replica.enrollStore
import org.edgemrl.store.replica.enrollingOf
import org.edgemrl.store.replica.enrollmentOf
import org.edgemrl.wire.Wall

/** A token is renewed when less than this is left of its life. */
private const val RENEW_MS = 14 * 86_400_000L

/** Opens the connection that a store's credentials describe. For one thread at a time. [stopped] ends a request that runs. */
internal class Link(private val store: Store, private val timeouts: Timeouts, private val stopped: () -> Boolean = { false }) {
    private var remote: Remote? = null
    private var credentials: Credentials? = null

    /**
     * The server that the credentials name; another process may have replaced them.
     *
     * @throws NotEnrolledException if the store is not enrolled.
     * @throws UsageException if the store is a copy of one that is.
     */
    fun follow(): Remote {
        val found = ownCredentials()
        store.refresh()
        val spaceId = store.binding.spaceId
        val before = remote
        if (before != null && found == credentials && before.spaceId == spaceId) return before
        credentials = found
        return Remote(found, spaceId, timeouts, stopped).also { remote = it }
    }

    /**
     * Asks for a new token when the present one expires soon. A kill or a power cut at any step leaves a token that
     * works: what is drawn for the request is on disk before it is sent, and both tokens are on disk before the new
     * one is used. The old one is kept behind that too: a server that is restored may know that one alone.
     *
     * @param refused whether the server has just refused the token: it may have expired by its clock, and is good
     *     for a new one for a while.
     */
    fun renew(remote: Remote, refused: Boolean = false) {
        val found = credentials
        if (found == null || !(refused || expiresSoon(found))) return
        val there = Credentials.read(store)
        if (there != null && there != found && there.device == found.device) return takeOver(remote, there) // another process has renewed it
        val nonce = drawNonce(store, found.token)
        val (token, expiresMs) = try {
            remote.newToken(nonce)
        } catch (e: ServerException) {
            // Too many requests, or a server in trouble: the present token is good for some days yet.
            if (refused || e.code == "token") throw e
            return
        }
        // Whichever of the two tokens the server knew: that is the former one now.
        takeOver(remote, found.replace(store, found.copy(token = token, previous = remote.token, expiresMs = expiresMs)))
    }

    /** Writes down which token the server knows, if that is the former one: it is renewed next. */
    fun keep(remote: Remote) {
        val found = credentials
        if (found != null && remote.token == found.previous) {
            takeOver(remote, found.replace(store, found.copy(token = remote.token, previous = found.token, expiresMs = 0)))
        }
    }

    /** Uses the tokens that are on disk, and no others: using one ends all that are not. */
    private fun takeOver(remote: Remote, found: Credentials) {
        credentials = found
        remote.token = found.token
        remote.spare = found.previous
    }

    private fun expiresSoon(found: Credentials): Boolean {
        val expires = found.expiresMs ?: return false
        return expires - (Wall.nowMs() + (enrollmentOf(store)?.offsetMs ?: 0)) <= RENEW_MS
    }

    /** The credentials beside the store, if they are the store's own. */
    private fun ownCredentials(): Credentials {
        val found = Credentials.read(store)
        val enrollment = enrollmentOf(store)
        val file = Credentials.fileOf(store).name
        if (found == null) {
            if (enrollment == null) throw NotEnrolledException(store.path)
            throw UsageException("${store.path} is a copy, or its file $file was deleted. Two stores must not be one device: enroll it with a new invitation")
        }
        if (enrollment == null || enrollment.device != found.device && enrollment.device == found.replaces) {
            finishEnrolling(found) // it was interrupted after the server's answer
        } else if (enrollment.device != found.device) {
            throw UsageException(
                "${store.path} is device ${enrollment.device}, but its file $file belongs to device ${found.device}: one of them was copied or " +
                    "restored; enroll it with a new invitation",
            )
        }
        return found
    }

    private fun finishEnrolling(found: Credentials) {
        val wanted = Enrollment(found.server, found.tenant, found.device)
        val asked = enrollingOf(store)
        enrollStore(store, if (asked == null) wanted else wanted.copy(withText = asked.withText, maxQueue = asked.maxQueue))
    }
}
