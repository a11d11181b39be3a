package org.edgemrl.sync

import org.edgemrl.NetworkException
import org.edgemrl.ServerException
import org.edgemrl.WireException
import org.edgemrl.store.toHalf
import org.edgemrl.wire.CONTENT_TYPE
import org.edgemrl.wire.VectorType
import org.edgemrl.wire.Vectors
import org.edgemrl.wire.Wall
import org.edgemrl.wire.decodeMessage
import org.edgemrl.wire.decodeReadableItems
import org.edgemrl.wire.encodeMessage
import org.edgemrl.wire.messageJson

/** A server asks for another mark once; more often only where two copies of a store sync at one time. */
private const val MARKS_IN_A_ROW = 3
private const val JSON_TYPE = "application/json"
private const val SHOWN_CHARS = 64

/** What a test may change. */
internal object Ranges {
    /** Bytes of a snapshot in one request: cheap to repeat, and large beside the time of a round trip. */
    @Volatile
    var snapshotBytes: Long = 4L shl 20
}

/** The status of an answer that has the range that was asked for. */
private const val PARTIAL = 206

/** What became of a push: of each document, the server's clock minus ours, and what was refused of an earlier one. */
internal class PushResult(val results: List<Result>, val offsetMs: Long, val refused: List<String>?)

/**
 * A server, as one device uses it: the requests of FORMAT.md, "Wire". Every response is checked before it is
 * used. For one thread at a time.
 *
 * @property spaceId the embedding space of the store's full vectors.
 * @param stopped ends a request that runs.
 */
internal class Remote(credentials: Credentials, val spaceId: String, timeouts: Timeouts, stopped: () -> Boolean = { false }) {
    private val transport = Transport(credentials.server, credentials.ca, credentials.insecure, timeouts, stopped)

    /** The token that is sent. */
    var token = credentials.token

    /** Another one, tried where that is refused; null if there is none. */
    var spare = credentials.previous

    /** Those of the store's copy, sent with each request; null to send none. */
    var marks: Marks? = null

    /** Whether the server has named its tenant's space, which was this one then. */
    var namesSpace = false
        private set
    val server: String get() = transport.server

    /** Bytes of bodies sent and received so far. */
    val traffic: Pair<Long, Long> get() = transport.bytesSent to transport.bytesReceived

    /**
     * Sends a frame of [count] documents.
     *
     * @throws ServerException if the server refused the push; nothing was stored.
     * @throws NetworkException if it is unknown whether anything was stored: send it again.
     */
    fun push(frame: ByteArray, count: Int): PushResult {
        val started = Wall.nowMs()
        val answer = ask("POST", "/v1/push", frame).json()
        val offset = offsetOf(answer["now_ms"], started)
        requireSpace(answer)
        val rows = answer["results"]
        if (rows !is List<*> || rows.size != count) throw NetworkException("$server: results: expected a list of $count")
        return PushResult(rows.map { resultOf(it) }, offset, refusedOf(answer))
    }

    /**
     * Asks for the changes after [since], with the text if the server has it.
     *
     * @param since a cursor; 0 for everything.
     * @param fence the fence on the first page, when everything is pulled.
     * @param epoch the epoch of [since]; null if any epoch will do.
     * @param push the last push that is known to have arrived or not.
     */
    fun pull(since: Long, form: PageForm, fence: Long?, epoch: String?, push: Long): ChangePage {
        val query = linkedMapOf("since" to since.toString())
        query += form.query
        fence?.let { query["fence"] = it.toString() }
        if (epoch != null) {
            query["epoch"] = epoch
            query["push"] = push.toString()
        }
        val started = Wall.nowMs()
        val response = ask("GET", "/v1/pull?${urlEncoded(query)}")
        try {
            val message = decodeMessage(response.body)
            val found = decodeReadableItems(message, 2 * PAGE_ITEMS)
            requireAnswer(message.header, form.code.takeIf { form.vectors == "coarse" })
            val page = page(message.header, since, offsetOf(message.header["now_ms"], started)).copy(items = found.items, unreadable = found.unreadable)
            val any = page.more || page.items.isNotEmpty() || page.unreadable.isNotEmpty()
            if (any && page.cursor <= since) throw NetworkException("$server: the page's cursor does not advance")
            return page
        } catch (e: WireException) {
            throw UnreadablePageException("$server: a page of changes: ${e.message}", e)
        }
    }

    /** A page without its documents. */
    private fun page(header: Map<String, Any?>, since: Long, offsetMs: Long): ChangePage {
        // Without TLS, nothing else would show that a bit of the request's first line was changed.
        if (header["since"] != since) throw NetworkException("$server: the page does not begin after change $since")
        val cursor = header["cursor"]
        val more = header["more"]
        if (!isCount(cursor) || (cursor as Long) < since || more !is Boolean) throw NetworkException("$server: the page has no valid cursor")
        val fence = header.getOrElse("fence") { 0L }
        val kept = header.getOrElse("kept") { 0L }
        val epoch = header.getOrElse("epoch") { "" }
        if (!isCount(fence) || !isCount(kept) || epoch != "" && !isWord(epoch)) {
            throw NetworkException("$server: expected fence and kept as numbers, epoch as text")
        }
        return ChangePage(
            emptyList(), emptyList(), cursor, more, fence as Long, epoch as String, kept as Long, offsetMs,
            readNumber(header["offers"]), readNumber(header["sum"]), readSums(header["sums"]), readRestamp(header["restamped"]),
        )
    }

    /**
     * Asks for a range of a snapshot, which has the codes of all documents that are not deleted.
     *
     * @param start the first byte.
     * @param etag the ETag of the snapshot that earlier ranges were of; null for a new snapshot.
     * @throws ServerException if the server makes no snapshot, or has another one now.
     */
    fun snapshot(code: CodeKey, start: Long, etag: String?): SnapshotPart {
        val more = linkedMapOf("Range" to "bytes=$start-${start + Ranges.snapshotBytes - 1}")
        if (etag != null) {
            more["If-Match"] = etag
            more["If-Range"] = etag
        }
        val response = ask("GET", "/v1/snapshot/coarse?${urlEncoded(code.query + ("text" to "1"))}", more = more)
        val name = response.headers["etag"].orEmpty()
        if (name.isEmpty() || etag != null && name != etag) throw NetworkException("the snapshot changed while it was read")
        val digest = response.headers["repr-digest"]
        val body = response.body
        if (response.status != PARTIAL) {
            return SnapshotPart(body.copyOfRange(minOf(start, body.size.toLong()).toInt(), body.size), body.size.toLong(), name, digest)
        }
        val (first, size) = contentRange(response.headers["content-range"].orEmpty())
        if (first != start || start + body.size > size || body.isEmpty()) {
            throw NetworkException("the server sent another range of the snapshot than requested")
        }
        return SnapshotPart(body, size, name, digest)
    }

    /** Registers a projection head, float32[D, dim] in C order, so that the server can make its codes. */
    fun putHead(name: String, matrix: Vectors, layerNorm: Boolean) {
        ask("PUT", "/v1/heads/$name", encodeMessage(mapOf("layer_norm" to layerNorm), matrix))
    }

    /**
     * Asks for the cosine of a query and the best passage of each document.
     *
     * @param ids at most 1,000 documents.
     * @param query the query's full vector, float32[D].
     * @return cosines by id, in [-1, 1], for the documents that the server has.
     */
    fun rerank(ids: List<String>, query: FloatArray, totalS: Double): Map<String, Double> {
        val answer = ask("POST", "/v1/rerank", encodeMessage(mapOf("ids" to ids), halves(query)), totalS = totalS).json()
        val scores = answer["scores"]
        if (scores !is List<*> || scores.size != ids.size) throw NetworkException("$server: scores: expected a list of ${ids.size}")
        val found = LinkedHashMap<String, Double>()
        ids.forEachIndexed { i, id -> numberOf(scores[i])?.let { found[id] = it } }
        return found
    }

    /**
     * Has a server compare spaces that does not do so when it is pulled from (of before that): it does so when it
     * reranks. So it is asked to rerank nothing.
     */
    fun askSpace(fullDim: Int) {
        ask("POST", "/v1/rerank", encodeMessage(mapOf("ids" to emptyList<String>()), halves(FloatArray(fullDim).also { it[0] = 1f })))
        namesSpace = true
    }

    private fun halves(vector: FloatArray): Vectors {
        val data = java.nio.ByteBuffer.allocate(2 * vector.size).order(java.nio.ByteOrder.LITTLE_ENDIAN)
        for (value in vector) data.putShort(toHalf(value))
        return Vectors(VectorType.FLOAT16, vector.size, data.array())
    }

    /**
     * Asks for a new token, and when it expires. The old one is valid until the new one is used.
     *
     * @param nonce drawn for this request, and kept: with it, the same request again gives the same token.
     */
    fun newToken(nonce: String): Pair<String, Long?> {
        val answer = ask("POST", "/v1/token", messageJson(mapOf("nonce" to nonce)).toByteArray(), kind = JSON_TYPE).json()
        val token = answer["token"]
        if (!isWord(token)) throw NetworkException("$server: token: expected text")
        return token as String to answer["expires_ms"].takeIf { isCount(it) } as Long?
    }

    /** Compares what an answer says that its vectors are with what was asked for. A receipt is kept. */
    fun requireAnswer(header: Map<String, Any?>, code: CodeKey?) {
        requireSpace(header)
        val said = header["code"]
        if (code != null && said != null && !code.isNamed(said)) throw NetworkException("$server: the answer has other codes than were asked for")
    }

    private fun requireSpace(answer: Map<String, Any?>) {
        val space = answer["space"]
        if (space != null && space != spaceId) {
            throw ServerException(
                "$server has vectors of embedding space ${space.toString().take(SHOWN_CHARS)}, this store of $spaceId: use a bundle of that space, " +
                    "or another tenant. Nothing was stored (space)",
                409, "space", mapOf("space" to space),
            )
        }
        namesSpace = namesSpace || "space" in answer
        val receipt = answer["receipt"]
        if (isWord(receipt)) marks?.receipt = receipt as String
    }

    private fun ask(
        method: String,
        path: String,
        body: ByteArray? = null,
        totalS: Double? = null,
        kind: String = CONTENT_TYPE,
        more: Map<String, String> = emptyMap(),
    ): Response = asItself {
        val headers = linkedMapOf("Authorization" to "Bearer $token", "Edge-MRL-Space" to spaceId)
        headers += more
        marks?.let { headers["Edge-MRL-Copy"] = it.header }
        if (body != null) headers["Content-Type"] = kind
        transport.request(method, path, body, headers, totalS)
    }

    /** Sends a request; once more with the other token, or with another mark, where it takes that. */
    private fun asItself(ask: () -> Response): Response {
        repeat(MARKS_IN_A_ROW) {
            try {
                return ask().also { marks?.answered() }
            } catch (e: ServerException) {
                if (e.code == "token" && spare != null) return withSpare(ask, e)
                if (e.code != "copy_unsure") throw e
                (marks ?: throw e).step()
            }
        }
        return ask()
    }

    /** Sends a request with the other token, which is the token from then on if it is accepted. */
    private fun withSpare(ask: () -> Response, refused: ServerException): Response {
        swapTokens()
        try {
            return ask()
        } catch (e: ServerException) {
            if (e.code != "token") throw e
            swapTokens()
            throw refused
        }
    }

    private fun swapTokens() {
        val before = token
        token = spare!!
        spare = before
    }
}
