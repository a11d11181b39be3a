package org.edgemrl.probe

import java.io.File
import org.edgemrl.Document
import org.edgemrl.PassageRule
import org.edgemrl.Span
import org.edgemrl.store.Binding
import org.edgemrl.store.Entry
import org.edgemrl.store.Health
import org.edgemrl.store.Store
import org.edgemrl.store.checksum
import org.edgemrl.store.compileFilter
import org.edgemrl.store.encodeMetadata
import org.edgemrl.store.fromHalf
import org.edgemrl.store.keywordText
import org.edgemrl.store.matchExpression
import org.edgemrl.store.metadataProblem
import org.edgemrl.store.toHalf
import org.edgemrl.store.words

/** The stores that are open, by path. */
internal val stores = HashMap<String, Store>()

internal fun storeOf(arguments: Map<String, Any?>): Store = stores.getValue(arguments["path"] as String)

/** A store: made, opened, written, read and checked. */
internal val storeCommands: Map<String, Command> = mapOf(
    "store.open" to { arguments ->
        val path = arguments["path"] as String
        stores[path] = Store.open(File(path), (arguments["timeout_ms"] as Long? ?: 10_000L).toInt())
        describe(stores.getValue(path))
    },
    "store.create" to { arguments ->
        val path = arguments["path"] as String
        val rule = PassageRule(100, 10)
        stores[path] = Store.create(File(path), bindingOf(arguments), rule, arguments["keep_full"] as String?)
        describe(stores.getValue(path))
    },
    "store.close" to { arguments -> stores.remove(arguments["path"])!!.close() .let { null } },
    "store.put" to { arguments ->
        val entries = (arguments["entries"] as List<*>).map { entryOf(it.asObject()) }
        val unchanged = (arguments["unchanged"] as List<*>? ?: emptyList<Any?>()).map { documentOf(it.asObject()) }
        storeOf(arguments).put(entries, unchanged).map { it.id }
    },
    "store.delete" to { arguments -> storeOf(arguments).delete((arguments["ids"] as List<*>).map { it as String }) },
    "store.get" to { arguments ->
        storeOf(arguments).get((arguments["ids"] as List<*>).map { it as String }).mapValues { (_, one) ->
            mapOf("text" to one.text, "metadata" to one.metadata, "source" to one.source)
        }
    },
    "store.hashes" to { arguments ->
        storeOf(arguments).hashes((arguments["ids"] as List<*>).map { it as String }).mapValues { encode(it.value) }
    },
    "store.count" to { arguments -> storeOf(arguments).count().let { listOf(it.documents, it.passages) } },
    "store.check" to { arguments -> describe(storeOf(arguments).check()) },
    "store.repair" to { arguments -> describe(storeOf(arguments).repairIndexes()) },
    "store.compact" to { arguments -> storeOf(arguments).compact().rowsDropped },
    "store.setting" to { arguments -> storeOf(arguments).setSetting(arguments["name"] as String, arguments["value"] as String?).let { null } },
    "store.select" to { arguments -> storeOf(arguments).reading { it.idsWhere(arguments["filter"].asObject()) } },
    "filter" to { arguments -> compileFilter(arguments["filter"].asObject()).sql },
    "checksum" to { arguments -> checksum((arguments["values"] as List<*>).map { if (it is Map<*, *>) decode(it["blob"] as String) else it }) },
    "metadata.problem" to { arguments -> metadataProblem(arguments["metadata"].asObject()) },
    "metadata.encode" to { arguments -> encodeMetadata(arguments["metadata"].asObject(), "a") },
    "words.text" to { arguments -> (arguments["texts"] as List<*>).map { keywordText(it as String) } },
    "words.match" to { arguments -> (arguments["texts"] as List<*>).map { matchExpression(it as String) } },
    "words.words" to { arguments -> (arguments["texts"] as List<*>).map { words(it as String).sorted() } },
    "half" to { arguments ->
        (arguments["values"] as List<*>).map { value ->
            val half = toHalf((value as Double).toFloat())
            listOf(half.toInt() and 0xFFFF, fromHalf(half).toDouble().takeIf { !it.isInfinite() })
        }
    },
)

@Suppress("UNCHECKED_CAST")
internal fun Any?.asObject(): Map<String, Any?> = this as Map<String, Any?>

private fun describe(store: Store): Map<String, Any?> = mapOf(
    "space_id" to store.binding.spaceId, "code_id" to store.binding.codeId, "dim" to store.binding.dim, "keep_full" to store.keepFull,
    "bundle" to store.binding.bundle, "writable" to store.writable, "candidates" to store.bundleCandidates.map { it.path },
)

private fun bindingOf(arguments: Map<String, Any?>): Binding {
    val dim = (arguments["dim"] as Long).toInt()
    val fullDim = (arguments["full_dim"] as Long?)?.toInt()
    return Binding(arguments["space_id"] as String, arguments["code_id"] as String, dim, 1.0, arguments["bundle"] as String, fullDim, packingOf(arguments))
}

private fun documentOf(one: Map<String, Any?>): Document =
    Document(one["id"] as String, one["text"] as String, one["metadata"].asObject(), one["source"] as String?)

private fun entryOf(one: Map<String, Any?>): Entry {
    val spans = (one["spans"] as List<*>).map { pair -> (pair as List<*>).map { (it as Long).toInt() }.let { Span(it[0], it[1]) } }
    val full = (one["full"] as List<*>?)?.map { row -> (row as List<*>).map { (it as Double).toFloat() }.toFloatArray() }
    return Entry(documentOf(one), spans, one.codes("codes"), full)
}

private fun describe(health: Health): Map<String, Any?> =
    mapOf("documents" to health.documents, "problems" to health.problems, "ids" to health.damagedIds, "notes" to health.notes)
