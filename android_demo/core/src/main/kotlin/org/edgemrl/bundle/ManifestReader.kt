package org.edgemrl.bundle

import java.math.BigInteger
import org.edgemrl.FormatException
import org.edgemrl.HashException
import org.edgemrl.ManifestException

internal const val FORMAT = "edge-mrl-bundle"
internal const val MANIFEST = "edge_mrl.json"
internal const val SIGNATURE = "edge_mrl.sig"
internal const val GRAPH = "model.onnx"
internal const val WEIGHTS = "model.onnx.data"
internal const val TOKENIZER = "tokenizer.json"
internal const val GOLDEN = "golden.json"
internal const val HEAD = "head.npy"
internal val KINDS = listOf("document", "query")

private val HEAD_KINDS = setOf("prefix", "pca", "rotation", "linear", "random", "matrix")
private val CODE_KEYS = listOf("centre", "step", "stored")
private const val MOST_DIMENSIONS = 65_536L
private const val MOST_TOKENS = 1_000_000L
private const val MOST_PROMPT_CHARS = 10_000
private val ZEROS = "0".repeat(64)
private val OWN_HASH = Regex("\"manifest_sha256\": \"([0-9a-f]{64})\"")
private val PLAIN_NAME = Regex("[0-9A-Za-z_][0-9A-Za-z_.-]{0,99}")
private val DIGEST = Regex("[0-9a-f]{64}")

/**
 * Parses and checks a manifest's bytes (FORMAT.md, "Manifest").
 *
 * @throws FormatException if the bytes are not a bundle's manifest, or its version is unknown.
 * @throws HashException if they are not the bytes that were written.
 * @throws ManifestException if a key is missing, unknown, of the wrong type or value.
 */
internal fun parseManifest(data: ByteArray): Manifest {
    val parsed = parseJson(data, MANIFEST) as? Map<*, *>
    if (parsed == null || parsed["format"] != FORMAT) {
        throw FormatException("$MANIFEST: format is ${brief(parsed?.get("format"))}, expected '$FORMAT'")
    }
    val version = parsed["version"]
    if (version !is Long || version !in 1..3) {
        throw FormatException(
            "bundle format version ${brief(version)}, this edge-mrl reads 1 to 3: update edge-mrl, or export the bundle again",
        )
    }
    val manifest = read(Fields(parsed, ""), version.toInt())
    checkOwnHash(data, manifest)
    checkValues(manifest)
    return manifest
}

private fun read(top: Fields, version: Int): Manifest {
    top.expect(
        "format", "version", "manifest_sha256", "name", "source", "space_id", "dims", "inputs", "outputs", "code",
        "head", "prompts", "max_tokens", "padding", "precision", "quality", "tools", "files",
    )
    val source = top.inner("source").expect("model", "architecture", "licence")
    val dims = top.inner("dims").expect("coarse", "full")
    val head = top.inner("head").expect("id", "kind", "layer_norm")
    val padding = top.inner("padding").expect("side", "id")
    val precision = top.inner("precision").expect("weights", "activations", "integer_products", "smoothed_products")
    return Manifest(
        version = version,
        manifestSha256 = top.text("manifest_sha256"),
        name = top.text("name"),
        source = SourceModel(source.text("model"), source.text("architecture"), source.text("licence")),
        spaceId = top.text("space_id"),
        dims = Dims(dims.small("coarse"), if (dims.isNull("full")) null else dims.small("full")),
        inputs = top.items("inputs").map { top.asText("inputs", it) },
        outputs = top.entries("outputs") { where, value -> top.asText(where, value) },
        code = readCode(top.inner("code"), version),
        head = Head(head.text("id"), head.text("kind"), head.flag("layer_norm")),
        prompts = top.entries("prompts") { where, value -> top.asText(where, value) },
        maxTokens = top.small("max_tokens"),
        padding = Padding(padding.text("side"), padding.small("id")),
        precision = Precision(
            precision.text("weights"),
            precision.text("activations"),
            precision.whole("integer_products"),
            precision.whole("smoothed_products"),
        ),
        quality = top.entries("quality") { where, value -> top.asNumber(where, value) },
        tools = top.entries("tools") { where, value -> top.asText(where, value) },
        files = top.entries("files") { where, value ->
            val entry = Fields(value, where).expect("sha256", "size_bytes")
            FileEntry(entry.text("sha256"), entry.whole("size_bytes"))
        },
    )
}

private fun readCode(code: Fields, version: Int): Code {
    if (version == 1) {
        val unknown = CODE_KEYS.filter { it in code.values }
        if (unknown.isNotEmpty()) throw ManifestException("$MANIFEST: unknown ${unknown.joinToString()} in code")
        code.expect("id", "scale", "int8", "bit")
        return Code(code.text("id"), code.number("scale"), code.text("int8"), code.text("bit"), "int8", null, null)
    }
    code.expect("id", "scale", "int8", "bit", "stored", "step", "centre")
    val centre = if (code.isNull("centre")) null else code.items("centre").map { code.asSmall("centre", it) }
    val step = if (code.isNull("step")) null else code.number("step")
    return Code(code.text("id"), code.number("scale"), code.text("int8"), code.text("bit"), code.text("stored"), step, centre)
}

/** An object of the manifest, whose values are taken out with their types checked. */
private class Fields(value: Any?, private val where: String) {
    val values: Map<*, *> = value as? Map<*, *>
        ?: throw ManifestException("$MANIFEST: ${brief(where.ifEmpty { "the manifest" })} must be an object")

    fun expect(vararg names: String): Fields {
        val missing = names.filter { it !in values }.sorted()
        val unknown = values.keys.filter { it !in names }.map { it.toString() }.sorted()
        if (missing.isEmpty() && unknown.isEmpty()) return this
        val what = if (missing.isNotEmpty()) "missing ${missing.joinToString()}" else "unknown ${unknown.joinToString()}"
        throw ManifestException("$MANIFEST: ${brief(what)}${if (where.isEmpty()) "" else " in $where"}")
    }

    fun inner(key: String): Fields = Fields(values[key], place(key))

    fun isNull(key: String): Boolean = values[key] == null

    fun text(key: String): String = asText(place(key), values[key])

    fun flag(key: String): Boolean = values[key] as? Boolean ?: wrong(place(key), values[key], "true or false")

    fun whole(key: String): Long = asWhole(place(key), values[key])

    /** A number that is compared with a limit below 2^31 later: what is beyond becomes the outermost value. */
    fun small(key: String): Int = asSmall(place(key), values[key])

    fun number(key: String): Double = asNumber(place(key), values[key])

    fun items(key: String): List<*> = values[key] as? List<*> ?: wrong(place(key), values[key], "a list")

    fun <T> entries(key: String, convert: (String, Any?) -> T): Map<String, T> {
        val found = LinkedHashMap<String, T>()
        for ((name, value) in inner(key).values) found[asText(place(key), name)] = convert("${place(key)}.$name", value)
        return found
    }

    fun asText(where: String, value: Any?): String {
        if (value !is String) wrong(where, value, "text")
        if (hasLoneSurrogate(value)) throw ManifestException("$MANIFEST: ${brief(where)} holds half of a character (a surrogate)")
        return value
    }

    fun asSmall(where: String, value: Any?): Int =
        asWhole(where, value).coerceIn(Int.MIN_VALUE.toLong(), Int.MAX_VALUE.toLong()).toInt()

    fun asNumber(where: String, value: Any?): Double = when {
        value is Double -> value
        value is Long && value > -(1L shl 53) && value < (1L shl 53) -> value.toDouble()
        else -> wrong(where, value, "a number")
    }

    private fun asWhole(where: String, value: Any?): Long = when (value) {
        is Long -> value
        is BigInteger -> if (value.signum() < 0) Long.MIN_VALUE else Long.MAX_VALUE
        else -> wrong(where, value, "a whole number")
    }

    private fun place(key: String): String = if (where.isEmpty()) key else "$where.$key"

    private fun wrong(where: String, value: Any?, expected: String): Nothing =
        throw ManifestException("$MANIFEST: ${brief(where)} is ${value?.javaClass?.simpleName ?: "null"}, expected $expected")
}

private fun checkOwnHash(data: ByteArray, manifest: Manifest) {
    val match = OWN_HASH.find(String(data, Charsets.ISO_8859_1))
    val place = match?.groups?.get(1)?.range
    val blanked = if (place == null) ByteArray(0) else data.copyOf().also { ZEROS.toByteArray().copyInto(it, place.first) }
    if (sha256(blanked) != manifest.manifestSha256) {
        throw HashException("$MANIFEST is damaged or was edited: its SHA-256 is not the one that it names")
    }
}

private fun checkValues(m: Manifest) {
    val checks = linkedMapOf(
        "dims.coarse" to (m.dims.coarse in 1..MOST_DIMENSIONS),
        "dims.full" to (m.dims.full == null || m.dims.full in 1..MOST_DIMENSIONS),
        "max_tokens" to (m.maxTokens in 1..MOST_TOKENS),
        "code.scale" to (m.code.scale > 0 && m.code.scale < Double.POSITIVE_INFINITY),
        "code.stored" to (m.version == lowestVersion(m.code.stored, m.head.kind) && storedFits(m.code, m.dims.coarse)),
        "padding.side" to (m.padding.side == "right"),
        "padding.id" to (m.padding.id in 0 until Int.MAX_VALUE),
        "head.kind" to (m.head.kind in HEAD_KINDS),
        "prompts" to (m.prompts.keys == KINDS.toSet() && m.prompts.values.all { points(it) <= MOST_PROMPT_CHARS }),
        "inputs" to (m.inputs == listOf("input_ids", "attention_mask")),
        "outputs" to (m.outputs == expectedOutputs(m.dims)),
        "files" to (
            m.files.keys.containsAll(listOf(GRAPH, WEIGHTS, TOKENIZER, GOLDEN)) &&
                (HEAD in m.files) == (m.head.kind != "prefix") &&
                m.files.all { (name, entry) -> isPlain(name, entry) }
            ),
    )
    val wrong = checks.filterValues { !it }.keys
    if (wrong.isNotEmpty()) throw ManifestException("$MANIFEST: invalid value of ${wrong.joinToString()}")
    requireSizes(m)
}

private fun lowestVersion(stored: String, headKind: String): Int =
    if (stored == "2bit" || headKind == "random") 3 else if (stored == "int8") 1 else 2

private fun expectedOutputs(dims: Dims): Map<String, String> =
    if (dims.full == null) mapOf("coarse" to "int8") else mapOf("coarse" to "int8", "full" to "float32")

/** Whether codes of so many dimensions can be stored as a manifest says (FORMAT.md, "Codes"). */
private fun storedFits(code: Code, dim: Int): Boolean {
    val step = code.step
    val centre = code.centre
    val outermost = when (code.stored) {
        "int8" -> return step == null && centre == null
        "int4" -> return centre == null && step != null && step > 0 && step < Double.POSITIVE_INFINITY
        "2bit" -> 3
        "1bit" -> if (centre == null) return step == null else 1
        else -> return false
    }
    if (step == null || step < 1 || step > 127 / outermost || step != Math.floor(step)) return false
    return centre == null || (centre.size == dim && centre.all { Math.abs(it.toLong()) + outermost * step <= 127 })
}

private fun isPlain(name: String, entry: FileEntry): Boolean =
    PLAIN_NAME.matches(name) && name != MANIFEST && name != SIGNATURE && entry.sizeBytes >= 0 && DIGEST.matches(entry.sha256)
