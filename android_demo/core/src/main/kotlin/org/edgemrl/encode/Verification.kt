package org.edgemrl.encode

import java.io.File
import org.edgemrl.EncoderException
import org.edgemrl.GraphException
import org.edgemrl.TokenizerException
import org.edgemrl.bundle.Golden

/** Between machines rounding changes some codes (FORMAT.md, "Golden vectors"). Below these, something is wrong. */
private const val MACHINE_MEAN = 0.999
private const val MACHINE_MIN = 0.995

/** Codes round once more than the vectors behind them. */
private const val CODE_MIN = MACHINE_MIN - 0.005

/** Least cosine of a text's vector alone and in a padded batch. */
private const val BATCH_MIN = 0.999

/** Golden texts that a first trial encodes, and the least cosine of their codes to the exporter's. */
private const val TRIAL_TEXTS = 4
private const val TRIAL_MIN = 0.9

/**
 * How a bundle works on this device. Cosines of full vectors are null if it gives codes only.
 *
 * @property passed whether all checks passed.
 * @property failures one sentence for each check that failed.
 * @property texts number of golden texts compared.
 * @property files number of files whose SHA-256 was compared.
 * @property sameIds whether all token ids are those of the exporting machine.
 * @property fullCosineMean mean cosine of full vectors here and on the exporting machine.
 * @property fullCosineMin the least of these cosines.
 * @property sourceCosineMean mean cosine of full vectors here and of the fp32 source model.
 * @property sourceCosineMin the least of these cosines.
 * @property coarseCosineMin least cosine of codes here and on the exporting machine.
 * @property equalCodes share of the codes' elements that are equal, from 0 to 1.
 * @property batchCosineMin least cosine of a text's vector alone and in a padded batch.
 */
public class Verification internal constructor(
    public val failures: List<String>,
    public val texts: Int,
    public val files: Int,
    public val sameIds: Boolean,
    public val fullCosineMean: Double?,
    public val fullCosineMin: Double?,
    public val sourceCosineMean: Double?,
    public val sourceCosineMin: Double?,
    public val coarseCosineMin: Double,
    public val equalCodes: Double,
    public val batchCosineMin: Double,
) {
    public val passed: Boolean get() = failures.isEmpty()
}

/**
 * Verifies a bundle on this device: every file's hash, the golden texts' token ids, and their vectors.
 *
 * @param path the bundle's folder.
 * @param threads use at most so many threads; null for one per core.
 * @throws org.edgemrl.BundleException if the bundle is damaged; the class and the message say how.
 */
@JvmOverloads
public fun verify(path: File, threads: Int? = null): Verification =
    Encoder.open(path, threads, tried = false).use { encoder -> compare(encoder, encoder.bundle.golden(), encoder.bundle.manifest.files.size) }

/** Encodes the shortest golden texts, as a first trial of a bundle. */
internal fun tryOut(encoder: Encoder) {
    val golden = encoder.bundle.golden()
    val folder = encoder.bundle.folder
    try {
        val shortest = golden.sortedWith(compareBy<Golden> { it.text.length }.thenBy { it.text }).take(TRIAL_TEXTS)
        val result = compare(encoder, shortest, 0)
        if (!result.sameIds) {
            throw TokenizerException(
                "the tokenizer of the bundle $folder gives other ids than on the exporting machine: export the bundle again",
            )
        }
        if (!(result.coarseCosineMin >= TRIAL_MIN)) {
            throw GraphException(
                "the graph of the bundle $folder gives something else than on the exporting machine (cosine ${result.coarseCosineMin})",
            )
        }
        requireDifferences(encoder, golden)
    } catch (e: EncoderException) { // a text that cannot be encoded is a fault of the bundle here
        throw GraphException(e.message.orEmpty(), e)
    }
}

/** Checks that a graph does not give one vector for all texts. */
private fun requireDifferences(encoder: Encoder, golden: List<Golden>) {
    val longest = golden.maxByOrNull { it.ids.size }!!
    val shortest = golden.minByOrNull { it.ids.size }!!
    if (longest.ids.toSet() == shortest.ids.toSet()) return
    val made = encoder.encode(listOf(longest.text, shortest.text), kindOf(longest))
    if (made.code(0).contentEquals(made.code(1))) {
        throw GraphException(
            "the graph of the bundle ${encoder.bundle.folder} gives the same vector for different texts: export the model again",
        )
    }
}

private fun kindOf(golden: Golden): Kind = if (golden.kind == Kind.QUERY.label) Kind.QUERY else Kind.DOCUMENT

private fun compare(encoder: Encoder, golden: List<Golden>, files: Int): Verification {
    val alone = golden.map { encoder.encode(it.text, kindOf(it)) }
    val sameIds = golden.all { encoder.ids(it.text, kindOf(it)).contentEquals(it.ids) }
    val codes = golden.indices.map { cosine(doubles(alone[it].coarse), doubles(golden[it].coarse)) }
    var toGolden: List<Double>? = null
    var toSource: List<Double>? = null
    if (encoder.bundle.manifest.fullDim != null) {
        toGolden = golden.indices.map { cosine(doubles(alone[it].full!!), doubles(golden[it].full!!)) }
        toSource = golden.indices.map { cosine(doubles(alone[it].full!!), doubles(golden[it].source)) }
    }
    val equal = golden.indices.sumOf { n -> alone[n].coarse.indices.count { alone[n].coarse[it] == golden[n].coarse[it] } }
    val batch = batchCosine(encoder, golden, alone)
    val failures = ArrayList<String>()
    if (!sameIds) failures.add("token ids differ from the exporting machine's: export the bundle again")
    if (toGolden != null && !(toGolden.average() >= MACHINE_MEAN && toGolden.min() >= MACHINE_MIN)) {
        failures.add(
            "vectors differ from the exporting machine's: cosine ${toGolden.average()} mean, ${toGolden.min()} min; " +
                "expected at least $MACHINE_MEAN and $MACHINE_MIN",
        )
    }
    if (!(codes.min() >= CODE_MIN)) failures.add("codes differ from the exporting machine's: cosine ${codes.min()} min")
    if (!(batch >= BATCH_MIN)) {
        failures.add("the vectors of a text alone and in a batch differ: cosine $batch, expected at least $BATCH_MIN")
    }
    return Verification(
        failures,
        golden.size,
        files,
        sameIds,
        toGolden?.average(),
        toGolden?.min(),
        toSource?.average(),
        toSource?.min(),
        codes.min(),
        equal.toDouble() / (golden.size * encoder.bundle.manifest.dim),
        batch,
    )
}

/** The least cosine of texts encoded alone and in one padded batch. */
private fun batchCosine(encoder: Encoder, golden: List<Golden>, alone: List<Encoding>): Double {
    var lowest = 1.0
    for ((kind, picks) in golden.indices.groupBy { kindOf(golden[it]) }) {
        val together = encoder.encodePadded(picks.map { golden[it].text }, kind)
        for ((n, pick) in picks.withIndex()) {
            val full = together.vector(n)
            val found = if (full == null) {
                cosine(doubles(together.code(n)), doubles(alone[pick].coarse))
            } else {
                cosine(doubles(full), doubles(alone[pick].full!!))
            }
            lowest = Math.min(lowest, found)
        }
    }
    return lowest
}

private fun doubles(values: ByteArray): DoubleArray = DoubleArray(values.size) { values[it].toDouble() }

private fun doubles(values: FloatArray): DoubleArray = DoubleArray(values.size) { values[it].toDouble() }

/** Cosine of two vectors; 1 for two that are all zeros. */
private fun cosine(left: DoubleArray, right: DoubleArray): Double {
    var both = 0.0
    var a = 0.0
    var b = 0.0
    for (i in left.indices) {
        both += left[i] * right[i]
        a += left[i] * left[i]
        b += right[i] * right[i]
    }
    if (a == 0.0 && b == 0.0) return 1.0
    return both / Math.max(Math.sqrt(a) * Math.sqrt(b), 1e-30)
}
