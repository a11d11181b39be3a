package org.edgemrl.sync

import java.net.URI
import java.net.URISyntaxException
import org.edgemrl.UsageException
import org.edgemrl.shorten

private val LOOPBACK = Regex("127(\\.[0-9]{1,3}){3}")

/**
 * A server's address in its normal form: scheme, host, port, and a path before /v1 if it has one.
 *
 * @param text what the user typed, with or without `https://`.
 * @param insecure allow `http://` to other machines.
 * @throws UsageException if the text is no address, or the token would travel unencrypted over a network.
 */
internal fun serverAddress(text: String, insecure: Boolean = false): String {
    val named = "server ${shorten(text)}"
    val url = try {
        URI(if ("://" in text) text else "https://$text")
    } catch (e: URISyntaxException) {
        throw UsageException("$named: ${e.reason}")
    }
    val scheme = url.scheme?.lowercase()
    val host = url.host?.lowercase()?.trim('[', ']')
    if (scheme != "http" && scheme != "https" || host.isNullOrEmpty() || url.port > 65_535) {
        throw UsageException("$named: expected https://HOST[:PORT]")
    }
    if (url.rawUserInfo != null || url.rawQuery != null || url.rawFragment != null) throw UsageException("$named: expected no user, query or fragment")
    if (scheme == "http" && !insecure && !isLoopback(host)) {
        throw UsageException("$named: over http:// anybody on the network can read token and vectors; use https://, or `insecure` if you trust the network")
    }
    val name = if (':' in host) "[$host]" else host
    val port = if (url.port < 0) "" else ":${url.port}"
    return "$scheme://$name$port${(url.rawPath ?: "").trimEnd('/')}"
}

private fun isLoopback(host: String): Boolean = host == "localhost" || host == "::1" || LOOPBACK.matches(host)
