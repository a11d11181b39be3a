package org.edgemrl.sync

import java.io.File
import java.io.IOException
import org.edgemrl.StoreException
import org.edgemrl.UsageException
import org.edgemrl.json.Json
import org.edgemrl.store.Durable
import org.edgemrl.store.Store

private val FIELDS = listOf("server", "tenant", "device", "token")

/**
 * What a device needs to talk to its server. It lies beside the store, not in it, so that a copied store is
 * not a second device.
 *
 * @property token the secret that is sent with each request.
 * @property expiresMs when the token expires, in milliseconds since 1970; null if it does not.
 * @property ca a file of certificates to trust instead of the system's.
 * @property insecure whether `http://` to other machines was allowed.
 * @property previous the token before this one. It is valid until this one was used, and again if the server is
 *     restored from a copy of before that.
 * @property replaces the device that the store was before it was enrolled anew; null if it was none.
 */
internal data class Credentials(
    val server: String,
    val tenant: String,
    val device: String,
    val token: String,
    val expiresMs: Long? = null,
    val ca: String? = null,
    val insecure: Boolean = false,
    val previous: String? = null,
    val replaces: String? = null,
) {
    /** Leaves out the secret: what is printed may end up in logs. */
    override fun toString(): String = "Credentials($server, $tenant, $device)"

    /** Writes them, atomically and to the disk; only the file's owner can read them. @throws UsageException if that fails. */
    fun write(store: Store) {
        val path = fileOf(store)
        val part = File("${path.path}.${java.lang.Long.toHexString(System.nanoTime())}-${Thread.currentThread().id}")
        val value = linkedMapOf(
            "server" to server, "tenant" to tenant, "device" to device, "token" to token, "expires_ms" to expiresMs, "ca" to ca,
            "insecure" to insecure, "previous" to previous, "replaces" to replaces,
        )
        try {
            Durable.createPrivate(part)
            part.writeText(Json.write(value))
            Durable.sync(part)
            Durable.replace(part, path)
        } catch (e: IOException) {
            part.delete()
            throw UsageException("$path cannot be written: ${e.message}")
        }
    }

    /**
     * Writes other credentials in place of these, unless another process has replaced them already. The store's
     * write lock makes comparing and writing one step.
     *
     * @return what is on disk now.
     */
    fun replace(store: Store, fresh: Credentials): Credentials = store.changing {
        val there = read(store)
        if (there != null && there != this) there else fresh.also { it.write(store) }
    }

    companion object {
        /** The file with a store's credentials. */
        fun fileOf(store: Store): File = File("${store.path.path}-sync.json")

        /** Deletes a store's credentials, from the disk too. @throws StoreException if that fails. */
        fun delete(store: Store) {
            val path = fileOf(store)
            if (!path.delete() && path.exists()) throw StoreException("$path cannot be deleted: delete it by hand")
            path.absoluteFile.parentFile?.let { Durable.syncFolder(it) }
        }

        /** A store's credentials, or null if there is no file of them. @throws StoreException if edge-mrl did not write it. */
        fun read(store: Store): Credentials? {
            val path = fileOf(store)
            val data = try {
                path.readBytes()
            } catch (e: IOException) {
                if (!path.exists()) return null
                throw StoreException("$path cannot be read: ${e.message}", e)
            }
            val found = try {
                parse(Json.parse(String(data, Charsets.UTF_8)) as Map<*, *>)
            } catch (_: IllegalArgumentException) { // no JSON
                null
            } catch (_: ClassCastException) {
                null
            }
            return found ?: throw StoreException("$path is damaged: delete it and enroll again")
        }

        private fun parse(value: Map<*, *>): Credentials? {
            val texts = FIELDS.map { value[it] as String }
            if (texts.any { it.isEmpty() }) return null
            val insecure = value["insecure"] as Boolean? ?: false
            return Credentials(
                texts[0], texts[1], texts[2], texts[3], value["expires_ms"] as Long?, value["ca"] as String?, insecure, value["previous"] as String?,
                value["replaces"] as String?,
            )
        }
    }
}
