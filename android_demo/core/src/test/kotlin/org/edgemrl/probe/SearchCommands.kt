package org.edgemrl.probe

import org.edgemrl.search.Funnel
import org.edgemrl.search.Mode
import org.edgemrl.search.QueryVectors
import org.edgemrl.search.Results
import org.edgemrl.search.SearchOptions
import org.edgemrl.search.search
import org.edgemrl.search.tune
import org.edgemrl.search.tuned

/** The options of a search, out of a command's arguments. */
internal fun optionsOf(arguments: Map<String, Any?>): SearchOptions = SearchOptions(
    (arguments["k"] as Long? ?: 10L).toInt(),
    arguments["filter"]?.asObject(),
    Mode.valueOf((arguments["mode"] as String? ?: "vector").uppercase()),
    arguments["exact"] == true,
    (arguments["width"] as Long?)?.toInt(),
    (arguments["stages"] as String?)?.let { Funnel.of(it) },
    (arguments["diversity"] as Double?) ?: 0.0,
)

/** A list of numbers as floats, or null. */
internal fun floatsOf(values: Any?): FloatArray? = (values as List<*>?)?.map { (it as Double).toFloat() }?.toFloatArray()

/** What a search found, as JSON has it. */
internal fun describe(results: Results): Map<String, Any?> {
    val hits = results.hits.map { mapOf("id" to it.id, "text" to it.text, "start" to it.start, "end" to it.end, "score" to it.score, "metadata" to it.metadata) }
    return mapOf("hits" to hits, "damaged" to results.damaged)
}

/** Searches of an open store, with vectors in. */
internal val searchCommands: Map<String, Command> = mapOf(
    "search" to { arguments ->
        val vectors = (arguments["code"] as String?)?.let { QueryVectors(decode(it), floatsOf(arguments["full"])) }
        describe(search(storeOf(arguments), arguments["query"] as String? ?: "", vectors, optionsOf(arguments)))
    },
    "search.options" to { arguments -> optionsOf(arguments).toString() },
    "funnel" to { arguments -> Funnel.of(arguments["text"] as String).toString() },
    "tune" to { arguments -> tune(storeOf(arguments), (arguments["stages"] as String?)?.let { Funnel.of(it) }).let { null } },
    "tuned" to { arguments -> tuned(storeOf(arguments))?.toString() },
)
