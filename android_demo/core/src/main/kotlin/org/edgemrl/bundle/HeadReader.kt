package org.edgemrl.bundle

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import org.edgemrl.HashException
import org.edgemrl.ManifestException

/**
 * The head's matrix, float32[rows, columns] in C order.
 *
 * @property rows dimensions of the full vector.
 * @property columns dimensions of the code.
 */
public class Matrix(public val rows: Int, public val columns: Int, public val values: FloatArray)

/** A head's values are about 1. Far beyond, lengths of what it makes are no float32 any more. */
private const val MAX_VALUE = 1e9f
private const val BEFORE_HEADER = 10
private const val MOST_HEADER_BYTES = 4096
private val HEADER = Regex("\\{'descr': '<f4', 'fortran_order': False, 'shape': \\(([0-9]{1,9}), ([0-9]{1,9})\\), \\} *\n")

/**
 * Reads and checks the head of a bundle (FORMAT.md, "Head").
 *
 * @return null if the head is the prefix.
 * @throws ManifestException if the file does not hold a matrix of the manifest's dimensions.
 * @throws HashException if the matrix, or the file, is not the one that the manifest names.
 */
internal fun readHead(folder: File, manifest: Manifest): Matrix? {
    if (manifest.head.kind == "prefix") return null
    val data = readFile(folder, HEAD, manifest.files.getValue(HEAD))
    val matrix = matrixOf(data, manifest) ?: throw ManifestException(
        "$HEAD holds something else than finite float32[${manifest.fullDim ?: "D"}, ${manifest.dim}] in NumPy's format 1.0: " +
            "export the bundle again",
    )
    val digest = MessageDigest.getInstance("SHA-256")
    digest.update(data, data.size - 4 * matrix.values.size, 4 * matrix.values.size)
    // JSON with sorted keys, as Python writes it.
    val named = "{\"kind\": \"matrix\", \"layer_norm\": ${manifest.head.layerNorm}, \"sha256\": \"${hex(digest.digest())}\", " +
        "\"shape\": [${matrix.rows}, ${matrix.columns}]}"
    if (sha256(named.toByteArray()) != manifest.head.id) {
        throw HashException("$HEAD is not the head that the manifest names: copy the bundle again")
    }
    return matrix
}

/** The matrix in NumPy's format 1.0, in the one form that FORMAT.md has; null for anything else. */
private fun matrixOf(data: ByteArray, manifest: Manifest): Matrix? {
    val magic = byteArrayOf(0x93.toByte(), 'N'.code.toByte(), 'U'.code.toByte(), 'M'.code.toByte(), 'P'.code.toByte(), 'Y'.code.toByte(), 1, 0)
    if (data.size < BEFORE_HEADER || !data.copyOf(magic.size).contentEquals(magic)) return null
    val length = (data[8].toInt() and 0xFF) or ((data[9].toInt() and 0xFF) shl 8)
    val start = BEFORE_HEADER + length
    if (length > MOST_HEADER_BYTES || start > data.size) return null
    val header = HEADER.matchEntire(String(data, BEFORE_HEADER, length, Charsets.ISO_8859_1)) ?: return null
    val rows = header.groupValues[1].toLong()
    val columns = header.groupValues[2].toLong()
    if (data.size - start.toLong() != 4 * rows * columns || rows == 0L) return null
    if (columns != manifest.dim.toLong() || (manifest.fullDim != null && rows != manifest.fullDim?.toLong())) return null
    val values = FloatArray((rows * columns).toInt())
    ByteBuffer.wrap(data, start, data.size - start).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(values)
    // A comparison with what is not finite is false.
    if (!values.all { Math.abs(it) <= MAX_VALUE }) return null
    return Matrix(rows.toInt(), columns.toInt(), values)
}
