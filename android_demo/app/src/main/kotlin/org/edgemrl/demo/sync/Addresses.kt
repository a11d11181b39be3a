package org.edgemrl.demo.sync

import java.net.URI
import java.net.URISyntaxException
import org.edgemrl.UsageException

/** An invitation as it is pasted or scanned: the secret alone, or the server's address, a space, and the secret. */
data class Pasted(val server: String?, val invitation: String)

/** Reads what was pasted or scanned; null if it is nothing of the kind. */
fun readInvitation(text: String): Pasted? {
    val parts = text.trim().split(Regex("\\s+")).filter { it.isNotEmpty() }
    return when {
        parts.size == 1 && "://" !in parts[0] -> Pasted(null, parts[0])
        parts.size == 2 -> Pasted(parts[0], parts[1])
        else -> null
    }
}

/**
 * Whether an address needs leave to be used without encryption.
 *
 * @param address what the user typed.
 * @param cleartext whether the user has chosen to go without in a private network.
 * @return true for `http://` to a machine of a private network; false for `https://`, and for this machine itself.
 * @throws UsageException for `http://` to any other machine, or to a private one without that choice.
 */
fun needsCleartext(address: String, cleartext: Boolean): Boolean {
    if (!address.trim().startsWith("http://", ignoreCase = true)) return false
    val host = try {
        URI(address.trim()).host?.lowercase()?.trim('[', ']').orEmpty()
    } catch (e: URISyntaxException) {
        throw UsageException("server $address: ${e.reason}")
    }
    if (host == "localhost" || host == "::1" || LOOPBACK.matches(host)) return false
    if (!isPrivate(host)) {
        throw UsageException("server $address: without encryption anybody on the way can read the token and the notes; use https://")
    }
    if (!cleartext) {
        throw UsageException("server $address: it is in your own network, and not encrypted: allow that below, or use https://")
    }
    return true
}

/** Whether a host is an address that only private networks use (RFC 1918, 3927, 4193, 4291), or a name of mDNS (RFC 6762). */
private fun isPrivate(host: String): Boolean {
    if (host.endsWith(".local")) return true
    if (':' in host) return PRIVATE_6.containsMatchIn(host)
    val parts = host.split('.').map { it.toIntOrNull() ?: return false }
    if (parts.size != 4 || parts.any { it !in 0..255 }) return false
    val (a, b) = parts
    return a == 10 || a == 172 && b in 16..31 || a == 192 && b == 168 || a == 169 && b == 254
}

private val LOOPBACK = Regex("127(\\.[0-9]{1,3}){3}")
private val PRIVATE_6 = Regex("^(f[cd][0-9a-f]{2}|fe[89ab][0-9a-f]):")
