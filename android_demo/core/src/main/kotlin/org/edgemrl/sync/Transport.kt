package org.edgemrl.sync

import java.io.ByteArrayOutputStream
import java.io.IOException
import java.io.InputStream
import java.net.HttpURLConnection
import java.net.SocketTimeoutException
import java.net.URL
import java.util.concurrent.ExecutionException
import java.util.concurrent.FutureTask
import java.util.concurrent.TimeUnit
import java.util.concurrent.TimeoutException
import javax.net.ssl.HttpsURLConnection
import javax.net.ssl.SSLSocketFactory
import org.edgemrl.NetworkException
import org.edgemrl.OversizedAnswerException
import org.edgemrl.ServerException
import org.edgemrl.VERSION
import org.edgemrl.bundle.brief
import org.edgemrl.clean
import org.edgemrl.json.Json
import org.edgemrl.json.JsonException
import org.edgemrl.store.replica.random
import org.edgemrl.wire.PROTOCOL
import org.edgemrl.wire.SEEN
import org.edgemrl.wire.digest
import org.edgemrl.wire.matchesDigest
import org.edgemrl.wire.seenHeaders

private const val CHUNK_BYTES = 1 shl 16
private const val SEQUENCE_BYTES = 16

/** Characters of a refusal of the server that are shown. */
private const val REFUSAL_CHARS = 2_000
private const val SHOWN_CHARS = 200

/** Statuses that may name a time to wait. */
private val WAITING = setOf(429, 502, 503, 504)

/**
 * How long to wait, in seconds.
 *
 * @property connectS for a connection.
 * @property readS for the next bytes of a response.
 * @property totalS for a request and its whole response, even while bytes keep coming.
 */
public data class Timeouts(public val connectS: Double = 10.0, public val readS: Double = 30.0, public val totalS: Double = 120.0)

/** A server's response to one request; [headers] by lower-case name, and a body that matches its digest. */
internal class Response(val status: Int, val headers: Map<String, String>, val body: ByteArray) {
    /** The body as a JSON object. @throws NetworkException if it is none. */
    fun json(): Map<String, Any?> {
        val value = try {
            Json.parseMessage(Charsets.UTF_8.newDecoder().decode(java.nio.ByteBuffer.wrap(body)).toString())
        } catch (e: JsonException) {
            throw NetworkException("the server's response is not JSON: ${e.message}", e)
        } catch (e: java.nio.charset.CharacterCodingException) {
            throw NetworkException("the server's response is not JSON: it is not UTF-8", e)
        }
        @Suppress("UNCHECKED_CAST")
        return value as? Map<String, Any?> ?: throw NetworkException("the server's response is not a JSON object")
    }
}

/**
 * HTTP to one server. Redirects are not followed: the token is for the server that gave it. Incomplete or
 * damaged responses are not used. For one thread at a time.
 *
 * The platform may send a request again by itself, on a connection that was kept open and had ended: every
 * request of the protocol may be repeated.
 *
 * @param ca a file of certificates to trust instead of the system's; null for the system's.
 * @param insecure allow `http://` to other machines.
 * @param stopped ends a request that runs.
 */
internal class Transport(
    server: String,
    ca: String? = null,
    insecure: Boolean = false,
    val timeouts: Timeouts = Timeouts(),
    private val stopped: () -> Boolean = { false },
) {
    val server: String = serverAddress(server, insecure)
    private val trusted: SSLSocketFactory? = ca?.let { trust(it) }

    @Volatile
    var bytesSent = 0L
        private set

    @Volatile
    var bytesReceived = 0L
        private set

    /**
     * Sends a request and reads its whole response.
     *
     * @param path the path from /v1 on, with its query.
     * @param totalS seconds for request and response; null for the transport's own limit.
     * @throws ServerException if the server refused the request.
     * @throws org.edgemrl.IntermediaryException if a proxy or the like answered in the server's place.
     * @throws OversizedAnswerException if the response is larger than one to this path can be.
     * @throws NetworkException if no response came, or it is incomplete, damaged or for another request.
     * @throws RunEndedException if it was stopped.
     */
    fun request(method: String, path: String, body: ByteArray? = null, headers: Map<String, String> = emptyMap(), totalS: Double? = null): Response {
        val sent = linkedMapOf("User-Agent" to "edge-mrl/$VERSION", "Accept-Encoding" to "identity")
        sent["Edge-MRL-Protocol"] = PROTOCOL
        sent["Edge-MRL-Sequence"] = random(SEQUENCE_BYTES)
        if (body != null) sent["Content-Digest"] = digest(body)
        sent += headers
        val connection = open(method, path, sent)
        val untilNs = System.nanoTime() + ((totalS ?: timeouts.totalS) * 1e9).toLong()
        var done = false
        try {
            val response = within(connection, untilNs) { exchange(connection, path, body, untilNs) }
            check(response, sent)
            done = true
            return response
        } catch (e: ServerException) {
            done = true // it was a whole answer
            throw e
        } finally {
            if (!done) abandon(connection) // its next answer may be another request's
        }
    }

    private fun open(method: String, path: String, headers: Map<String, String>): HttpURLConnection {
        val connection = URL(server + path).openConnection() as HttpURLConnection
        connection.requestMethod = method
        connection.instanceFollowRedirects = false
        connection.useCaches = false
        connection.connectTimeout = milliseconds(timeouts.connectS)
        connection.readTimeout = milliseconds(timeouts.readS)
        for ((name, value) in headers) connection.setRequestProperty(name, value)
        if (trusted != null && connection is HttpsURLConnection) connection.sslSocketFactory = trusted
        return connection
    }

    /** Runs a block in a thread of its own until a time: a limit of each read does not limit a slow stream. */
    private fun within(connection: HttpURLConnection, untilNs: Long, block: () -> Response): Response {
        val task = FutureTask(block)
        Thread(task, "edge-mrl-request").also { it.isDaemon = true }.start()
        try {
            while (true) {
                val leftNs = maxOf(untilNs - System.nanoTime(), 0)
                try {
                    return task.get(minOf(leftNs, STOP_LOOK_MS * 1_000_000), TimeUnit.NANOSECONDS)
                } catch (e: TimeoutException) {
                    if (stopped()) throw stoppedRun()
                    if (leftNs == 0L) throw NetworkException("$server took too long", e)
                }
            }
        } catch (e: InterruptedException) {
            Thread.currentThread().interrupt()
            throw NetworkException("the exchange with $server was interrupted", e)
        } catch (e: ExecutionException) {
            val cause = e.cause
            if (cause is NetworkException || cause is Error) throw cause
            val said = if (cause is SocketTimeoutException) "no response in time" else brief(cause?.message ?: cause)
            throw NetworkException("$server: $said", cause)
        }
    }

    /** Closes a connection, however long that takes. */
    private fun abandon(connection: HttpURLConnection) {
        Thread({ connection.disconnect() }, "edge-mrl-disconnect").also { it.isDaemon = true }.start()
    }

    private fun exchange(connection: HttpURLConnection, path: String, body: ByteArray?, untilNs: Long): Response {
        if (body != null) {
            connection.doOutput = true
            // Not streamed: then the platform would keep a refusal with 401 to itself.
            connection.outputStream.use { it.write(body) }
            bytesSent += body.size
        }
        val status = connection.responseCode
        if (status < 0) throw IOException("the response is not HTTP")
        val stream = if (status >= 400) connection.errorStream else connection.inputStream
        val data = stream?.use { read(it, if (status < 300) answerLimit(path) else MAX_REFUSAL_BYTES, connection.contentLengthLong, untilNs) } ?: ByteArray(0)
        val names = connection.headerFields.filterKeys { it != null }.map { (name, values) -> name.lowercase() to values.joinToString(", ") }
        return Response(status, names.toMap(), data)
    }

    /** A response's body, of [most] bytes at most, however they are framed. */
    private fun read(stream: InputStream, most: Int, announced: Long, untilNs: Long): ByteArray {
        if (announced > most) throw oversized("$announced", most)
        val found = ByteArrayOutputStream()
        val part = ByteArray(CHUNK_BYTES)
        while (true) {
            val size = stream.read(part, 0, minOf(CHUNK_BYTES, most + 1 - found.size()))
            if (size < 0) break
            found.write(part, 0, size)
            bytesReceived += size
            if (found.size() > most) throw oversized("more than $most", most)
            if (System.nanoTime() > untilNs) throw NetworkException("$server took too long")
        }
        if (announced >= 0 && found.size() < announced) throw IOException("the response ended after ${found.size()} of $announced bytes")
        return found.toByteArray()
    }

    private fun oversized(size: String, most: Int) = OversizedAnswerException(
        "$server answers with $size bytes, expected at most $most to this request: it was not read to its end; check that this is an edge-mrl server",
        OVERSIZED_WAIT_S,
    )

    /** Makes sure that a response is complete, belongs to this request, and is not a refusal. */
    private fun check(response: Response, sent: Map<String, String>) {
        val headers = response.headers
        val status = response.status
        val named = headers["edge-mrl-sequence"]
        if (named != sent["Edge-MRL-Sequence"] || !matchesDigest(response.body, headers["content-digest"])) {
            val wait = if (status in WAITING) retryAfter(headers) else null
            if (named == null) throw intermediary(server, status, headers, wait)
            throw NetworkException("$server: the response ($status) is damaged, or belongs to another request", retryAfterS = wait)
        }
        val own = seenHeaders(sent.mapKeys { it.key.lowercase() })
        if (headers[SEEN.lowercase()] ?: own != own) { // from servers of before, nothing
            throw NetworkException(
                "$server refuses with $status what this device did not send: something between them has changed, or taken away, a header of the request",
            )
        }
        if (status in 300..399) {
            val place = brief(headers["location"] ?: "?", SHOWN_CHARS)
            throw ServerException("$server redirects to $place: if that is the server's new address, name it with `move`; the token is not sent there by itself", status)
        }
        if (status >= 400) throw refusal(response)
    }

    private fun refusal(response: Response): ServerException {
        val said = try {
            response.json()["error"] as? Map<*, *>
        } catch (_: NetworkException) {
            null
        }
        @Suppress("UNCHECKED_CAST")
        val details = (said ?: mapOf("message" to String(response.body, Charsets.UTF_8).take(SHOWN_CHARS))) as Map<String, Any?>
        // It goes to screens and logs, whatever it is.
        val code = clean((details["code"] ?: "unknown").toString()).take(SHOWN_CHARS)
        val message = brief(clean((details["message"] ?: "").toString()), REFUSAL_CHARS)
        val text = if (message.isEmpty()) code else "$message ($code)"
        return ServerException("$server refuses with ${response.status}: $text", response.status, code, details, retryAfter(response.headers))
    }
}

private fun milliseconds(seconds: Double): Int = (seconds * 1000).toInt().coerceAtLeast(1)

/** Seconds that the server asks to wait; null if it does not ask. A date counts as a minute. */
private fun retryAfter(headers: Map<String, String>): Double? {
    val text = (headers["retry-after"] ?: "").trim()
    return if (text.isEmpty()) null else if (text.length < 10 && text.all { it in '0'..'9' }) text.toDouble() else 60.0
}
