package org.edgemrl.bundle

import java.io.File
import org.edgemrl.BundleException
import org.edgemrl.MissingFileException
import org.edgemrl.UsageException

/**
 * A bundle that was checked: a folder with a graph, a tokenizer, and a manifest that says what they are.
 *
 * @property folder the bundle's folder.
 * @property manifest its manifest.
 * @property digest SHA-256 of the manifest's file, which names every other file.
 * @property signer the id of the trusted key that signed it; null if no keys were given.
 */
public class Bundle private constructor(
    public val folder: File,
    public val manifest: Manifest,
    public val digest: String,
    public val signer: String?,
    internal val tokenizer: Any?,
) {
    /** The graph's file, for a library that opens files by their path. */
    internal val graph: File get() = File(folder, GRAPH)

    /**
     * Reads the head's matrix, float32[D, dim].
     *
     * @return null if the head is the prefix.
     * @throws BundleException if the file was changed since.
     */
    public fun head(): Matrix? = readHead(folder, manifest)

    /**
     * Reads the golden texts, with the vectors that the exporting machine made of them.
     *
     * @throws BundleException if the file was changed since, or is none.
     */
    public fun golden(): List<Golden> = readGolden(folder, manifest)

    public companion object {
        /**
         * Opens a bundle: its manifest, files, graph, tokenizer and head are checked as FORMAT.md says under
         * "What a reader refuses". Nothing is run; `org.edgemrl.encode.Encoder.open` does that.
         *
         * @param path the bundle's folder.
         * @param hashes compare every file's SHA-256. False for a folder that nothing but this app can write
         *     to, and whose hashes were compared when it was filled: then only sizes, links, graph, tokenizer
         *     and head are.
         * @param trust refuse a bundle that none of these keys has signed, before anything of it is parsed; then every
         *     file is compared, whatever [hashes] says. Null asks for no signature.
         * @throws UsageException if the folder does not exist.
         * @throws org.edgemrl.SignatureException if no trusted key vouches for it.
         * @throws BundleException if the bundle is damaged or unknown; the class says how.
         */
        @JvmStatic
        @JvmOverloads
        public fun open(path: File, hashes: Boolean = true, trust: TrustedKeys? = null): Bundle {
            if (!path.isDirectory) throw UsageException("no bundle at $path: expected a folder made by `edge-mrl export`")
            val folder = path.absoluteFile
            val data = try {
                readBounded(folder, MANIFEST)
            } catch (e: MissingFileException) {
                throw MissingFileException("$path has no $MANIFEST: it is not a bundle, or the copy is incomplete")
            }
            val signer = trust?.vouch(folder, data)
            val manifest = parseManifest(data)
            checkFiles(folder, manifest, hashes || trust != null)
            val files = manifest.files
            val weights = listOf(WEIGHTS, HEAD).filter { it in files }
            val graph = readFile(folder, GRAPH, files.getValue(GRAPH))
            readGraph(graph, weights.associateWith { files.getValue(it).sizeBytes })
            val tokenizer = parseJson(readFile(folder, TOKENIZER, files.getValue(TOKENIZER)), TOKENIZER)
            checkTokenizer(tokenizer, manifest.maxTokens)
            readHead(folder, manifest)
            return Bundle(folder, manifest, sha256(data), signer, tokenizer)
        }
    }
}
