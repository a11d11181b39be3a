package org.edgemrl.sync

import java.net.URLEncoder
import org.edgemrl.NetworkException
import org.edgemrl.WireException
import org.edgemrl.bundle.Manifest
import org.edgemrl.bundle.decodeBase64
import org.edgemrl.codes.CODE_MAX
import org.edgemrl.codes.CodeKind
import org.edgemrl.codes.Packing
import org.edgemrl.store.pythonFloat
import org.edgemrl.store.replica.Restamp
import org.edgemrl.wire.Item
import org.edgemrl.wire.Sums
import org.edgemrl.wire.UnreadableItem
import org.edgemrl.wire.encodeBase64
import org.edgemrl.wire.isHex
import org.edgemrl.wire.parseHex
import org.edgemrl.wire.parseStamp

/** 127 divided by it is still a float32. */
private const val LEAST_SCALE = 1e-30

/** Documents in a page of a pull. */
internal const val PAGE_ITEMS = 512
private const val HEX_DIGITS = 16

/**
 * Which codes a server makes for a device.
 *
 * @property head the id of the projection head.
 * @property dim dimensions of a code.
 * @property scale the scale of int8 values.
 * @property packing how the store packs its codes; a server that knows how sends them packed.
 */
internal class CodeKey(val head: String, val dim: Int, val scale: Double, val packing: Packing) {
    /**
     * Whether an answer names this key. Scales that give the same codes are the same. A server that knows no
     * packed codes says nothing of them, and sends int8 codes.
     */
    fun isNamed(said: Any?): Boolean {
        if (said !is Map<*, *>) return false
        if ("stored" in said && (said["stored"] != packing.kind.label || numberOf(said["step"]) != packing.step)) return false
        val other = numberOf(said["scale"]) ?: return false
        val same = other >= LEAST_SCALE && (CODE_MAX / other).toFloat() == (CODE_MAX / scale).toFloat()
        return same && said["head"] == head && said["dim"] == dim.toLong()
    }

    /** The key as parameters of a request; servers that do not know the last three ignore them. */
    val query: Map<String, String>
        get() {
            val query = linkedMapOf("head" to head, "dim" to dim.toString(), "scale" to pythonFloat(scale))
            if (packing.kind == CodeKind.INT8) return query
            query["stored"] = packing.kind.label
            packing.step?.let { query["step"] = pythonFloat(it) }
            packing.centre?.let { some ->
                val bytes = ByteArray(some.size) { some[it].toByte() }
                query["centre"] = encodeBase64(bytes).replace('+', '-').replace('/', '_').trimEnd('=')
            }
            return query
        }

    companion object {
        /** The key of a bundle's codes. */
        fun of(manifest: Manifest): CodeKey {
            val code = manifest.code
            return CodeKey(manifest.head.id, manifest.dim, code.scale, Packing(CodeKind.of(code.stored), code.step, code.centre))
        }
    }
}

/**
 * What a page of changes contains.
 *
 * @property vectors `coarse`, `full` or `none`.
 * @property code which codes the server makes, if [vectors] is `coarse`.
 * @property text whether texts and metadata come too.
 * @property limit documents at most.
 * @property groups documents of these groups alone; null for all. An older server sends all.
 * @property differs how many groups differ, where that is why some are asked for.
 * @property sums whether the sums of the tenant's documents come too.
 */
internal data class PageForm(
    val vectors: String,
    val code: CodeKey? = null,
    val text: Boolean = true,
    val limit: Int = PAGE_ITEMS,
    val groups: Set<Int>? = null,
    val differs: Int = 0,
    val sums: Boolean = false,
) {
    /** The form as parameters of a request. */
    val query: Map<String, String>
        get() {
            val query = linkedMapOf("limit" to limit.toString(), "vectors" to vectors)
            if (text) query["text"] = "1"
            if (code != null && vectors == "coarse") query += code.query
            if (groups != null) {
                query["groups"] = groups.sorted().joinToString(",")
                query["differs"] = differs.toString()
            }
            if (sums) query["sums"] = "1"
            return query
        }
}

/** Parameters as they stand behind a `?`. */
internal fun urlEncoded(query: Map<String, String>): String =
    query.entries.joinToString("&") { (name, value) -> "$name=${URLEncoder.encode(value, "UTF-8")}" }

/** A page that is what the server sent, and still cannot be read. */
internal class UnreadablePageException(message: String, cause: Throwable) : NetworkException(message, cause)

/**
 * Some changes of a tenant's documents, oldest first.
 *
 * @property unreadable documents among them that cannot be read, by version and reason.
 * @property cursor the last change on this page.
 * @property more whether more changes follow.
 * @property fence the last change among the deletions that the server has forgotten; 0 if it has all.
 * @property epoch the epoch in which the server counts its changes; a restored server begins a new one.
 * @property kept the last push of this device that the server had when the epoch began.
 * @property offsetMs the server's clock minus this machine's.
 * @property offers the largest stamp of other devices' versions that may be sent; null from an older server.
 * @property sum the sum of the tenant's live documents, on the last page; null where the server does not say.
 * @property sums the sums of its groups, where they were asked for.
 * @property restamp how stamps were brought back that were ahead of the server's clock; null if none were.
 */
internal data class ChangePage(
    val items: List<Item>,
    val unreadable: List<UnreadableItem>,
    val cursor: Long,
    val more: Boolean,
    val fence: Long,
    val epoch: String,
    val kept: Long,
    val offsetMs: Long,
    val offers: Long?,
    val sum: Long?,
    val sums: Sums?,
    val restamp: Restamp?,
)

/** A number of 16 digits, as far as it is one: what is beside the documents stops no page. */
internal fun readNumber(value: Any?): Long? =
    (value as? String)?.takeIf { it.length == HEX_DIGITS && isHex(it) }?.let { parseHex(it) }

/** The sums of a page, as far as they are some. */
internal fun readSums(value: Any?): Sums? = (value as? String)?.let { decodeBase64(it) }?.let { Sums.read(it) }

/** The field `restamped` of a page; null if it is not there. @throws NetworkException if it is not what FORMAT.md describes. */
internal fun readRestamp(said: Any?): Restamp? {
    if (said !is Map<*, *>) return null
    val epochs = said["epochs"]
    if (epochs !is List<*> || !epochs.all { it is String }) throw NetworkException("restamped: expected a list of epochs")
    try {
        return Restamp(parseStamp(said["from"]), parseStamp(said["to"]), epochs.map { it as String })
    } catch (e: WireException) {
        throw NetworkException("restamped: ${e.message}", e)
    }
}
