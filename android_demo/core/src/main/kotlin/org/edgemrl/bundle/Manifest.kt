package org.edgemrl.bundle

/**
 * Dimensions of the two outputs.
 *
 * @property coarse of the int8 code.
 * @property full of the full vector, or null in a bundle that gives codes only.
 */
public data class Dims(public val coarse: Int, public val full: Int?)

/**
 * How codes are made from unit-length vectors (FORMAT.md, "Codes").
 *
 * @property id SHA-256 that names the code. A store is bound to it.
 * @property scale the value that 127 stands for in int8 codes.
 * @property int8 the name of the rule for int8 codes.
 * @property bit the name of the rule for 1-bit codes.
 * @property stored the kind of code that a store keeps of documents: "int8", "int4", "2bit" or "1bit".
 * @property step the step of what is stored, in units of the int8 code, or null.
 * @property centre the centre of what is stored, one int8 value for each dimension, or null.
 */
public data class Code(
    public val id: String,
    public val scale: Double,
    public val int8: String,
    public val bit: String,
    public val stored: String,
    public val step: Double?,
    public val centre: List<Int>?,
)

/**
 * The linear map from the full vector to what is truncated and quantised.
 *
 * @property id SHA-256 of the head; equal matrices have equal ids, however they were made.
 * @property kind "prefix" for no matrix, or how the matrix in head.npy was made.
 * @property layerNorm whether vectors are centred first.
 */
public data class Head(public val id: String, public val kind: String, public val layerNorm: Boolean)

/**
 * How a batch is padded.
 *
 * @property side always "right".
 * @property id the token that fills a row, with attention mask 0.
 */
public data class Padding(public val side: String, public val id: Int)

/**
 * How the graph computes.
 *
 * @property weights "fp32", "int8", "int4", or "uint8".
 * @property activations "fp32", "int8 per block", "fixed", "per token", or "fixed and per token".
 * @property integerProducts number of matrix products that run on integers.
 * @property smoothedProducts number of groups of products whose input is smoothed.
 */
public data class Precision(
    public val weights: String,
    public val activations: String,
    public val integerProducts: Long,
    public val smoothedProducts: Long,
)

/** Where the weights come from. */
public data class SourceModel(public val model: String, public val architecture: String, public val licence: String)

/** Size in bytes and SHA-256 (64 hexadecimal digits) of one file of the bundle. */
public data class FileEntry(public val sha256: String, public val sizeBytes: Long)

/**
 * All that a runtime must know in addition to the graph and the tokenizer (FORMAT.md, "Manifest").
 *
 * @property version version of the format, 1 to 3.
 * @property manifestSha256 SHA-256 of the manifest's own bytes with these 64 digits as zeros.
 * @property name a short name, for people.
 * @property source where the weights come from.
 * @property spaceId SHA-256 that names the embedding space of full vectors.
 * @property dims dimensions of the outputs.
 * @property inputs the graph's inputs, int64[texts, tokens] each.
 * @property outputs the graph's outputs and their types.
 * @property code how codes are made.
 * @property head the linear map before truncation.
 * @property prompts text that is put in front of the input, by kind: "document", "query".
 * @property maxTokens longest input in tokens, special tokens included.
 * @property padding how a batch is padded.
 * @property precision how the graph computes.
 * @property quality what was measured at export, by name.
 * @property tools versions of the tools that made the bundle.
 * @property files the bundle's other files, by name.
 */
public data class Manifest(
    public val version: Int,
    public val manifestSha256: String,
    public val name: String,
    public val source: SourceModel,
    public val spaceId: String,
    public val dims: Dims,
    public val inputs: List<String>,
    public val outputs: Map<String, String>,
    public val code: Code,
    public val head: Head,
    public val prompts: Map<String, String>,
    public val maxTokens: Int,
    public val padding: Padding,
    public val precision: Precision,
    public val quality: Map<String, Double>,
    public val tools: Map<String, String>,
    public val files: Map<String, FileEntry>,
) {
    /** Dimensions of the code. */
    public val dim: Int get() = dims.coarse

    /** Dimensions of the full vector, or null if the bundle gives codes only. */
    public val fullDim: Int? get() = dims.full

    /** Total size in bytes of the files that the manifest names. */
    public val sizeBytes: Long get() = files.values.fold(0L) { sum, entry -> sum + entry.sizeBytes }
}
