package org.edgemrl.probe

import org.edgemrl.EdgeMrlException
import org.edgemrl.json.Json

/** What a test asks for: arguments by name in, a value that JSON can write out. */
internal typealias Command = (Map<String, Any?>) -> Any?

/** Every command, by name. Each area of the core has a file of its own with a map like this one. */
private val commands: Map<String, Command> = mapOf<String, Command>(
    "echo" to { arguments -> arguments["value"] },
) + bundleCommands + encodeCommands + tokenCommands + codeCommands + storeCommands + searchCommands + indexCommands + wireCommands + syncCommands

/**
 * The program that the tests in Python talk to: a line of JSON in, a line of JSON out.
 *
 * `{"do": NAME, ...}` is answered with `{"value": ...}`, or with `{"error": CLASS, "message": ...}`.
 */
public fun main() {
    val out = java.io.PrintStream(java.io.FileOutputStream(java.io.FileDescriptor.out), false, "UTF-8")
    System.setOut(System.err)
    java.io.InputStreamReader(System.`in`, Charsets.UTF_8).buffered().forEachLine { line ->
        @Suppress("UNCHECKED_CAST")
        val request = Json.parse(line) as Map<String, Any?>
        val answer = try {
            val command = commands[request["do"]] ?: error("no command ${request["do"]}")
            mapOf("value" to command(request).takeUnless { it is Unit })
        } catch (e: EdgeMrlException) {
            mapOf("error" to e.javaClass.simpleName, "message" to e.message)
        } catch (e: Exception) {
            mapOf("error" to e.javaClass.name, "message" to e.stackTraceToString())
        }
        out.println(Json.write(answer))
        out.flush()
    }
}
