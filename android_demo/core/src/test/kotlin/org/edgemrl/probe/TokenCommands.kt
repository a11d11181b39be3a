package org.edgemrl.probe

import java.io.File
import java.util.zip.CRC32
import org.edgemrl.bundle.checkTokenizer
import org.edgemrl.json.Json
import org.edgemrl.tokenize.Tokenizer

private val tokenizers = HashMap<String, Tokenizer>()

private fun tokenizer(arguments: Map<String, Any?>): Tokenizer {
    val path = arguments["path"] as String
    val maxTokens = (arguments["max_tokens"] as Long).toInt()
    return tokenizers.getOrPut("$path $maxTokens") {
        val parsed = Json.parse(File(path).readText())
        checkTokenizer(parsed, maxTokens)
        Tokenizer(parsed, maxTokens)
    }
}

/** CRC-32 of token ids as int32, little-endian, with -1 behind each text's. */
private fun CRC32.add(ids: LongArray) {
    for (id in ids) number(id.toInt())
    number(-1)
}

private fun CRC32.number(value: Int) {
    for (shift in 0..24 step 8) update(value shr shift and 0xFF)
}

/** What tests ask of tokenizers. */
internal val tokenCommands: Map<String, Command> = mapOf(
    "tokens.ids" to { arguments ->
        (arguments["texts"] as List<*>).map { tokenizer(arguments).ids(it as String).toList() }
    },
    "tokens.places" to { arguments ->
        val places = tokenizer(arguments).places(arguments["text"] as String)
        listOf(places.ids.toList(), places.starts.toList(), places.words.toList())
    },
    // Every code point, some of them together in a text: sums of the ids of so many texts.
    "tokens.sums" to { arguments ->
        val (together, block) = (arguments["sizes"] as List<*>).map { (it as Long).toInt() }
        val form = arguments["form"] as String
        val points = (0..Character.MAX_CODE_POINT).filter { it !in 0xD800..0xDFFF }
        points.chunked(together).chunked(block).map { texts ->
            val sum = CRC32()
            for (some in texts) sum.add(tokenizer(arguments).ids(some.joinToString("") { form.replace("*", String(Character.toChars(it))) }))
            sum.value
        }
    },
)
