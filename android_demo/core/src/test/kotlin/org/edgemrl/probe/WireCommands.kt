package org.edgemrl.probe

import org.edgemrl.WireException
import org.edgemrl.wire.Item
import org.edgemrl.wire.Message
import org.edgemrl.wire.Sums
import org.edgemrl.wire.UnreadableItem
import org.edgemrl.wire.Vectors
import org.edgemrl.wire.Version
import org.edgemrl.wire.decodeItems
import org.edgemrl.wire.decodeMessage
import org.edgemrl.wire.decodeReadableItems
import org.edgemrl.wire.digest
import org.edgemrl.wire.encodeItems
import org.edgemrl.wire.encodeMessage
import org.edgemrl.wire.formatStamp
import org.edgemrl.wire.groupOf
import org.edgemrl.wire.latestStamp
import org.edgemrl.wire.matchesDigest
import org.edgemrl.wire.nextStamp
import org.edgemrl.wire.parseStamp
import org.edgemrl.wire.seenHeaders

/** The wire format: frames read and written again, stamps, digests, sums. */
internal val wireCommands: Map<String, Command> = mapOf(
    "wire.frames" to { arguments -> (arguments["frames"] as List<*>).map { readFrame(decode(it as String)) } },
    "wire.stamps" to { arguments -> (arguments["stamps"] as List<*>).map { unlessWrong { formatStamp(parseStamp(it)) } } },
    "wire.next" to { arguments -> formatStamp(nextStamp(arguments["last"] as Long, arguments["offset_ms"] as Long, arguments["now_ms"] as Long)) },
    "wire.latest" to { arguments -> formatStamp(latestStamp(arguments["offset_ms"] as Long, arguments["now_ms"] as Long)) },
    "wire.order" to { arguments ->
        (arguments["versions"] as List<*>).map { pair -> (pair as List<*>).let { Version(it[0] as Long, it[1] as String) } }.sorted().map { listOf(it.stamp, it.device) }
    },
    "wire.digest" to { arguments -> digest(decode(arguments["data"] as String)) },
    "wire.matches" to { arguments -> (arguments["values"] as List<*>).map { matchesDigest(decode(arguments["data"] as String), it as String?) } },
    "wire.seen" to { arguments ->
        @Suppress("UNCHECKED_CAST")
        seenHeaders(arguments["headers"] as Map<String, String>)
    },
    "wire.sums" to { arguments ->
        val sums = Sums()
        for (one in arguments["versions"] as List<*>) (one as List<*>).let { sums.add(it[0] as String, it[1] as Long, it[2] as String) }
        for (one in arguments["gone"] as List<*>) (one as List<*>).let { sums.remove(it[0] as String, it[1] as Long, it[2] as String) }
        val names = (arguments["versions"] as List<*>).map { groupOf((it as List<*>)[0] as String) }
        mapOf("bytes" to encode(sums.bytes), "total" to formatStamp(sums.total), "groups" to names, "differing" to sums.differing(Sums()).sorted())
    },
)

private fun unlessWrong(block: () -> Any?): Any? = try {
    block()
} catch (_: WireException) {
    null
}

/** What a frame says, strictly and leniently, and its bytes when it is written again. */
private fun readFrame(data: ByteArray): Map<String, Any?>? {
    val message = try {
        decodeMessage(data)
    } catch (_: WireException) {
        return null
    }
    val vectors = message.vectors
    val strict = unlessWrong { decodeItems(message).map { describeItem(it) } }
    val lenient = unlessWrong { decodeReadableItems(message).let { found -> listOf(found.items.map { describeItem(it) }, found.unreadable.map { describeUnreadable(it) }) } }
    return mapOf(
        "header" to message.header.filterKeys { it != "items" }, "type" to vectors.type.label, "dim" to vectors.dim, "vectors" to encode(vectors.data),
        "items" to strict, "readable" to lenient, "again" to unlessWrong { encode(writeAgain(message)) },
    )
}

private fun writeAgain(message: Message): ByteArray {
    val header = message.header.filterKeys { it != "items" }
    if ("items" !in message.header) return encodeMessage(message.header, message.vectors)
    return encodeItems(header, decodeItems(message), Vectors(message.vectors.type, message.vectors.dim, ByteArray(0)))
}

private fun describeItem(item: Item): Map<String, Any?> = mapOf(
    "id" to item.id, "stamp" to formatStamp(item.stamp), "device" to item.device, "deleted" to item.deleted, "text" to item.text, "metadata" to item.metadata,
    "spans" to item.spans.map { listOf(it.start, it.end) }, "vectors" to encode(item.vectors.data), "problem" to (item.problem != null),
)

private fun describeUnreadable(item: UnreadableItem): List<Any?> = listOf(item.id, formatStamp(item.stamp), item.device, item.deleted)
