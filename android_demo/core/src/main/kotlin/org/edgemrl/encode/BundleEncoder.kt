package org.edgemrl.encode

import java.io.Closeable
import java.io.File
import org.edgemrl.BY_TOKENS
import org.edgemrl.Document
import org.edgemrl.PassageRule
import org.edgemrl.TextEncoder
import org.edgemrl.UsageException
import org.edgemrl.bundle.MANIFEST
import org.edgemrl.bundle.Manifest
import org.edgemrl.bundle.Matrix
import org.edgemrl.bundle.parseManifest
import org.edgemrl.bundle.readBounded
import org.edgemrl.bundle.readHead
import org.edgemrl.codes.CodeKind
import org.edgemrl.codes.Packing
import org.edgemrl.codes.quantize
import org.edgemrl.codes.unit
import org.edgemrl.isMarkdown
import org.edgemrl.search.QueryVectors
import org.edgemrl.shorten
import org.edgemrl.store.Binding
import org.edgemrl.store.Entry

/**
 * A bundle as an index takes it.
 *
 * @property encoder encodes the texts; it is closed with this.
 */
public class BundleEncoder(public val encoder: Encoder) : TextEncoder, Closeable {
    override val binding: Binding = bindingOf(encoder.bundle.manifest, encoder.bundle.folder)

    override fun encodeQuery(text: String): QueryVectors {
        val made = encoder.encode(text, Kind.QUERY)
        return QueryVectors(made.code(0), made.vector(0))
    }

    override fun codeOf(full: FloatArray): ByteArray = codeOf(full, encoder.bundle.head(), encoder.bundle.manifest)

    override fun embed(documents: List<Document>, rule: PassageRule, full: Boolean): List<Entry> {
        if (rule.splitter != BY_TOKENS) {
            documents.firstOrNull { isMarkdown(it.id) }?.let { throw UsageException(refusal(it, rule)) }
        }
        val cut = documents.map { splitPassages(encoder, it.text, rule) }
        val texts = documents.indices.flatMap { i -> partsOf(documents[i].text, cut[i]) }
        val codes = ArrayList<ByteArray>(texts.size)
        val vectors = if (full) ArrayList<FloatArray>(texts.size) else null
        for (made in encoder.stream(texts)) {
            for (i in 0 until made.size) {
                codes.add(made.code(i))
                vectors?.add(made.vector(i)!!)
            }
        }
        var first = 0
        return documents.mapIndexed { i, document ->
            val after = first + cut[i].size
            Entry(document, cut[i], codes.subList(first, after), vectors?.subList(first, after)).also { first = after }
        }
    }

    override fun close() {
        encoder.close()
    }
}

private fun refusal(document: Document, rule: PassageRule): String =
    "${shorten(document.id)} is Markdown, which this store splits by ${shorten(rule.splitter)}, and this library by tokens: put it with " +
        "edge-mrl on a computer, or under an id that does not end with .md"

/** What a store that is made with this bundle is bound to. */
internal fun bindingOf(manifest: Manifest, folder: File): Binding {
    val code = manifest.code
    val packing = Packing(CodeKind.of(code.stored), code.step, code.centre)
    return Binding(manifest.spaceId, code.id, manifest.dim, code.scale, folder.canonicalPath, manifest.fullDim, packing)
}

/** The manifest of a bundle, without a look at its other files. @throws org.edgemrl.BundleException if there is none. */
internal fun manifestOf(folder: File): Manifest = parseManifest(readBounded(folder, MANIFEST))

/** Makes a code of a full vector of unit length as a bundle's graph does; no model is loaded. */
internal fun codeOf(full: FloatArray, folder: File): ByteArray = manifestOf(folder).let { codeOf(full, readHead(folder, it), it) }

/** The same, with a head that was read before. */
internal fun codeOf(full: FloatArray, head: Matrix?, manifest: Manifest): ByteArray {
    val mean = if (manifest.head.layerNorm) (full.sumOf { it.toDouble() } / full.size).toFloat() else 0f
    val made = FloatArray(manifest.dim) { column ->
        if (head == null) return@FloatArray full[column] - mean
        var sum = 0.0
        for (row in 0 until head.rows) sum += (full[row] - mean).toDouble() * head.values[row * head.columns + column]
        sum.toFloat()
    }
    return quantize(unit(made), manifest.code.scale)
}
