package org.edgemrl.probe

import org.edgemrl.search.Funnel
import org.edgemrl.search.Mode
import org.edgemrl.search.QueryVectors
import org.edgemrl.search.SearchOptions
import org.edgemrl.search.search
import org.edgemrl.search.tune
import org.edgemrl.search.tuned

/** Searches of an open store, with vectors in. */
internal val searchCommands: Map<String, Command> = mapOf(
    "search" to { arguments ->
        val options = SearchOptions(
            (arguments["k"] as Long).toInt(),
            arguments["filter"]?.asObject(),
            Mode.valueOf((arguments["mode"] as String? ?: "vector").uppercase()),
            arguments["exact"] == true,
            (arguments["width"] as Long?)?.toInt(),
            (arguments["stages"] as String?)?.let { Funnel.of(it) },
        )
        val full = (arguments["full"] as List<*>?)?.map { (it as Double).toFloat() }?.toFloatArray()
        val vectors = (arguments["code"] as String?)?.let { QueryVectors(decode(it), full) }
        val results = search(storeOf(arguments), arguments["query"] as String? ?: "", vectors, options)
        val hits = results.hits.map { mapOf("id" to it.id, "text" to it.text, "start" to it.start, "end" to it.end, "score" to it.score, "metadata" to it.metadata) }
        mapOf("hits" to hits, "damaged" to results.damaged)
    },
    "funnel" to { arguments -> Funnel.of(arguments["text"] as String).toString() },
    "tune" to { arguments -> tune(storeOf(arguments), (arguments["stages"] as String?)?.let { Funnel.of(it) }).let { null } },
    "tuned" to { arguments -> tuned(storeOf(arguments))?.toString() },
)
