package org.edgemrl.bundle

import java.io.File
import java.io.IOException
import org.edgemrl.MissingFileException
import org.edgemrl.SignatureException
import org.edgemrl.UsageException

private const val HEADER = "edge-mrl-signature 1\n"
private const val MOST_SIGNATURES = 8
private const val MOST_KEY_BYTES = 65_536
private const val ID_DIGITS = 16
private val LINE = Regex("ed25519 ([0-9a-f]{16}) ([A-Za-z0-9+/]{86}==)")
private val BLOCK = Regex("-----BEGIN PUBLIC KEY-----\\s([A-Za-z0-9+/=\\s]+?)-----END PUBLIC KEY-----")
private val REVOKED = Regex("revoke ([0-9a-f]{64})")

/** What stands before the 32 bytes of an Ed25519 key in DER (RFC 8410). */
private val PREFIX = byteArrayOf(0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00)

/**
 * Public keys whose signatures of bundles count, and bundles that no longer do (FORMAT.md, "Signature"). Only bundles
 * that one of the keys has signed are opened with it.
 *
 * @property ids the keys' ids: the first 16 digits of the SHA-256 of each.
 */
public class TrustedKeys private constructor(private val keys: Map<String, ByteArray>, private val revoked: Set<String>, private val name: String) {
    public val ids: Set<String> get() = keys.keys

    /**
     * The id of the key that vouches for a manifest, of which nothing has been parsed.
     *
     * @throws SignatureException if none does, or the bundle is revoked.
     */
    internal fun vouch(folder: File, manifest: ByteArray): String {
        if (sha256(manifest) in revoked) throw SignatureException("the bundle $folder is revoked in $name: use a newer one")
        val data = try {
            readBounded(folder, SIGNATURE)
        } catch (_: MissingFileException) {
            throw SignatureException("the bundle $folder is not signed, and only bundles signed by a key of $name are opened: get a signed one, or sign it with `edge-mrl sign`")
        }
        val signatures = signaturesOf(data)
        for ((id, signature) in signatures) if (keys[id]?.let { Ed25519.verify(it, manifest, signature) } == true) return id
        throw SignatureException(
            "the bundle $folder was changed after it was signed, or its key ${signatures.joinToString { it.first }} is not one of $name: get it " +
                "again from who made it",
        )
    }

    public companion object {
        /**
         * Reads public keys in PEM, one after the other, lines `revoke SHA256`, and comments behind `#`.
         *
         * @param name what errors call them, such as the name of their file.
         * @throws UsageException if there is no key, or something else.
         */
        @JvmStatic
        public fun parse(text: String, name: String = "the trusted keys"): TrustedKeys {
            val keys = BLOCK.findAll(text).associate { keyOf(it.groupValues[1], name).let { key -> sha256(key).take(ID_DIGITS) to key } }
            val revoked = HashSet<String>()
            for (line in BLOCK.replace(text, "\n").lineSequence().map { it.trim() }) {
                val found = REVOKED.matchEntire(line)
                if (found != null) {
                    revoked.add(found.groupValues[1])
                } else if (line.isNotEmpty() && !line.startsWith("#")) {
                    throw UsageException("$name holds '${brief(line, 60)}': expected public keys in PEM, lines `revoke SHA256`, and comments behind #")
                }
            }
            if (keys.isEmpty()) throw UsageException("$name holds no public key: expected one in PEM")
            return TrustedKeys(keys, revoked, name)
        }

        /** Reads a file of them, see [parse]. @throws UsageException if it cannot be read, or holds something else. */
        @JvmStatic
        public fun read(file: File): TrustedKeys {
            if (!file.isFile || file.length() > MOST_KEY_BYTES) throw UsageException("$file is no file of up to $MOST_KEY_BYTES bytes: expected keys in PEM")
            val text = try {
                file.readText()
            } catch (e: IOException) {
                throw UsageException("cannot read the keys in $file: ${e.message}")
            }
            return parse(text, file.path)
        }

        private fun keyOf(block: String, name: String): ByteArray {
            val der = decodeBase64(block.filterNot { it.isWhitespace() }) ?: throw UsageException("$name holds a damaged public key")
            val key = der.copyOfRange(minOf(PREFIX.size, der.size), der.size)
            if (der.size != PREFIX.size + ED25519_KEY_BYTES || !der.copyOf(PREFIX.size).contentEquals(PREFIX)) {
                throw UsageException("$name holds a key of another kind: expected Ed25519")
            }
            if (!Ed25519.isKey(key)) throw UsageException("$name holds a damaged public key")
            return key
        }
    }
}

/** Key ids and signatures of a signature file. @throws SignatureException if it is something else. */
internal fun signaturesOf(data: ByteArray): List<Pair<String, ByteArray>> {
    val text = String(data, Charsets.ISO_8859_1)
    if (text.startsWith(HEADER) && text.endsWith("\n")) {
        val lines = text.removePrefix(HEADER).dropLast(1).split("\n").map { LINE.matchEntire(it) }
        val found = lines.map { it?.let { line -> decodeBase64(line.groupValues[2])?.let { value -> line.groupValues[1] to value } } }
        if (found.size in 1..MOST_SIGNATURES && null !in found) return found.filterNotNull()
    }
    throw SignatureException("$SIGNATURE is not a signature of edge-mrl: get the bundle again")
}
