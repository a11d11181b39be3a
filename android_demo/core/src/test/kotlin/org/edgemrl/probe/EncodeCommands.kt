package org.edgemrl.probe

import java.io.File
import org.edgemrl.PassageRule
import org.edgemrl.Span
import org.edgemrl.encode.Encoder
import org.edgemrl.encode.Encoding
import org.edgemrl.encode.Kind
import org.edgemrl.encode.passageRule
import org.edgemrl.encode.splitPassages
import org.edgemrl.encode.tokenSpans
import org.edgemrl.encode.verify

private var encoder: Encoder? = null

private fun texts(arguments: Map<String, Any?>): List<String> = (arguments["texts"] as List<*>).map { it as String }

private fun kind(arguments: Map<String, Any?>): Kind = if (arguments["kind"] == "query") Kind.QUERY else Kind.DOCUMENT

private fun values(made: Encoding): Map<String, Any?> = mapOf(
    "coarse" to List(made.size) { made.code(it).map(Byte::toLong) },
    "full" to made.full?.let { List(made.size) { made.vector(it)!!.map(Float::toDouble) } },
)

private fun pairs(spans: List<Span>): List<List<Int>> = spans.map { listOf(it.start, it.end) }

/** What tests ask of encoders. One is open at a time. */
internal val encodeCommands: Map<String, Command> = mapOf(
    "encoder.open" to { arguments ->
        encoder?.close()
        encoder = null
        encoder = Encoder.open(
            File(arguments["path"] as String),
            (arguments["threads"] as Long?)?.toInt(),
            arguments["low_memory"] == true,
            tried = arguments["tried"] != false,
        )
        null
    },
    "encoder.close" to {
        encoder!!.close()
        null
    },
    "encoder.encode" to { arguments -> values(encoder!!.encode(texts(arguments), kind(arguments))) },
    "encoder.padded" to { arguments -> values(encoder!!.encodePadded(texts(arguments), kind(arguments))) },
    "encoder.ids" to { arguments -> texts(arguments).map { encoder!!.ids(it, kind(arguments)).toList() } },
    "encoder.rule" to { arguments ->
        val rule = passageRule(encoder!!, (arguments["max_tokens"] as Long?)?.toInt(), (arguments["overlap"] as Long?)?.toInt())
        listOf(rule.maxTokens, rule.overlap)
    },
    "encoder.passages" to { arguments ->
        val rule = PassageRule((arguments["max_tokens"] as Long).toInt(), (arguments["overlap"] as Long).toInt())
        texts(arguments).map {
            listOf(pairs(splitPassages(encoder!!, it, rule)), pairs(tokenSpans(encoder!!, it, rule)))
        }
    },
    "encoder.verify" to { arguments ->
        val found = verify(File(arguments["path"] as String))
        mapOf(
            "failures" to found.failures,
            "texts" to found.texts,
            "files" to found.files,
            "same_ids" to found.sameIds,
            "full_cosine_mean" to found.fullCosineMean,
            "full_cosine_min" to found.fullCosineMin,
            "source_cosine_mean" to found.sourceCosineMean,
            "source_cosine_min" to found.sourceCosineMin,
            "coarse_cosine_min" to found.coarseCosineMin,
            "equal_codes" to found.equalCodes,
            "batch_cosine_min" to found.batchCosineMin,
        )
    },
)
