package org.edgemrl.probe

import java.util.Base64
import org.edgemrl.codes.CodeKind
import org.edgemrl.codes.Packing
import org.edgemrl.codes.Scorer
import org.edgemrl.codes.planesOf
import org.edgemrl.codes.quantize
import org.edgemrl.codes.randomHead

/** How codes are packed and compared. */
internal val codeCommands: Map<String, Command> = mapOf(
    "codes.pack" to { arguments ->
        val packing = packingOf(arguments)
        arguments.codes("codes").map { encode(packing.pack(it)) }
    },
    "codes.unpack" to { arguments ->
        val packing = packingOf(arguments)
        arguments.codes("packed").map { encode(packing.unpack(it, (arguments["dim"] as Long).toInt())) }
    },
    "codes.cosines" to { arguments ->
        val packing = packingOf(arguments)
        val dim = (arguments["dim"] as Long).toInt()
        val stored = arguments.codes("packed")
        arguments.codes("queries").map { query ->
            val scorer = Scorer(query, packing)
            if (packing.kind.planes == 0) stored.map { scorer.cosine(it) }
            else stored.map { scorer.cosine(planesOf(it, dim, packing.kind.planes)) }
        }
    },
    "codes.representatives" to { arguments ->
        val packing = packingOf(arguments)
        arguments.codes("packed").map { encode(packing.representative(it, (arguments["dim"] as Long).toInt())) }
    },
    "codes.fits" to { arguments -> packingOf(arguments).fits((arguments["dim"] as Long).toInt()) },
    "codes.quantize" to { arguments ->
        val vector = FloatArray((arguments["vector"] as List<*>).size) { ((arguments["vector"] as List<*>)[it] as Double).toFloat() }
        encode(quantize(vector, arguments["scale"] as Double))
    },
    "codes.head" to { arguments ->
        randomHead((arguments["size"] as Long).toInt(), (arguments["dim"] as Long).toInt()).map { it.toDouble() }
    },
)

internal fun packingOf(arguments: Map<String, Any?>): Packing = Packing(
    CodeKind.of(arguments["kind"] as String),
    (arguments["step"] as Number?)?.toDouble(),
    (arguments["centre"] as List<*>?)?.map { (it as Long).toInt() },
)

internal fun Map<String, Any?>.codes(name: String): List<ByteArray> = (this[name] as List<*>).map { decode(it as String) }

internal fun encode(data: ByteArray): String = Base64.getEncoder().encodeToString(data)

internal fun decode(text: String): ByteArray = Base64.getDecoder().decode(text)
