package org.edgemrl.bundle

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.edgemrl.FormatException

/**
 * One text with the vectors that the exporting machine computed (FORMAT.md, "Golden vectors").
 *
 * @property kind "document" or "query".
 * @property text the text; it may have lone surrogates.
 * @property ids the token ids that the graph was given.
 * @property coarse the code, int8[dim].
 * @property full the full vector, float32[D], or null if the bundle gives codes only.
 * @property source the vector of the fp32 source model, float32[D].
 */
public class Golden(
    public val kind: String,
    public val text: String,
    public val ids: LongArray,
    public val coarse: ByteArray,
    public val full: FloatArray?,
    public val source: FloatArray,
)

/**
 * Reads the golden texts of a bundle.
 *
 * @throws FormatException if the file is damaged, or its version is unknown.
 */
internal fun readGolden(folder: File, manifest: Manifest): List<Golden> {
    val parsed = parseJson(readFile(folder, GOLDEN, manifest.files.getValue(GOLDEN)), GOLDEN) as? Map<*, *>
        ?: cannot("it is no object")
    if (parsed["format"] != "edge-mrl-golden" || parsed["version"] != 1L) {
        throw FormatException("$GOLDEN: unknown format ${brief("${parsed["format"]} ${parsed["version"]}", 80)}")
    }
    val texts = parsed["texts"] as? List<*> ?: cannot("texts is no list")
    val golden = texts.map { golden(it as? Map<*, *> ?: cannot("a text is no object"), manifest) }
    if (golden.map { it.source.size }.toSet().size != 1) {
        throw FormatException("$GOLDEN has no texts, or vectors of several lengths")
    }
    return golden
}

private fun golden(entry: Map<*, *>, manifest: Manifest): Golden {
    if ("full" !in entry) cannot("a text has no full vector")
    val coarse = bytes(entry["coarse"])
    val full = if (entry["full"] == null) null else floats(bytes(entry["full"]))
    val source = bytes(entry["source"])
    if (source.size % 2 != 0) cannot("a vector of ${source.size} bytes of float16")
    if (coarse.size != manifest.dim || full?.size != manifest.fullDim) {
        cannot("vectors of ${coarse.size} and ${full?.size} dimensions")
    }
    if (full != null && source.size / 2 != full.size) cannot("vectors of ${source.size / 2} dimensions of the source")
    val kind = entry["kind"] as? String
    if (kind == null || kind !in KINDS) cannot("a text of the kind ${brief(entry["kind"], 40)}")
    val ids = entry["ids"] as? List<*> ?: cannot("ids that are no list")
    return Golden(
        kind,
        entry["text"] as? String ?: cannot("a text that is none"),
        LongArray(ids.size) { ids[it] as? Long ?: cannot("ids that are no numbers") },
        coarse,
        full,
        halves(source),
    )
}

private fun cannot(what: String): Nothing = throw FormatException("$GOLDEN cannot be read: ${brief(what)}")

private fun bytes(value: Any?): ByteArray = decodeBase64(value as? String ?: cannot("a vector is no text")) ?: cannot("a vector is no base64")

private fun floats(data: ByteArray): FloatArray {
    if (data.size % 4 != 0) cannot("a vector of ${data.size} bytes of float32")
    return FloatArray(data.size / 4).also { ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(it) }
}

/** Values of IEEE 754 half precision. */
private fun halves(data: ByteArray): FloatArray = FloatArray(data.size / 2) {
    val bits = (data[2 * it].toInt() and 0xFF) or ((data[2 * it + 1].toInt() and 0xFF) shl 8)
    val exponent = bits shr 10 and 31
    val fraction = bits and 1023
    val size = when (exponent) {
        0 -> fraction * HALF_UNIT
        31 -> if (fraction == 0) Float.POSITIVE_INFINITY else Float.NaN
        else -> Float.fromBits((exponent + 112) shl 23 or (fraction shl 13))
    }
    if (bits and 0x8000 != 0) -size else size
}

/** 2^-24, the unit of half precision's smallest numbers. */
private val HALF_UNIT = Math.scalb(1f, -24)
