package org.edgemrl.bundle

import java.math.BigInteger
import java.security.MessageDigest

/** Bytes of a public key. */
internal const val ED25519_KEY_BYTES: Int = 32
private const val SIGNATURE_BYTES = 64

/**
 * Verifies signatures of Ed25519 (RFC 8032, 5.1.7), for Android before 13, which has none. Everything here is public,
 * so that nothing has to take the same time; there is no code that signs.
 */
internal object Ed25519 {
    private val ONE = BigInteger.ONE
    private val TWO = BigInteger.valueOf(2)

    /** The field's prime, 2^255 - 19. */
    private val P = TWO.pow(255) - BigInteger.valueOf(19)

    /** The order of the base point. */
    private val L = TWO.pow(252) + BigInteger("27742317777372353535851937790883648493")
    private val D = (BigInteger.valueOf(-121665) * BigInteger.valueOf(121666).modInverse(P)).mod(P)
    private val ROOT_OF_MINUS_1 = TWO.modPow((P - ONE).shiftRight(2), P)
    private val BASE = point(BigInteger("46316835694926478169428394003475163141307993866256225615783033603165251855960"))!!

    /** A point in extended coordinates: x = X/Z, y = Y/Z, XY = ZT. */
    private class Point(val x: BigInteger, val y: BigInteger, val z: BigInteger, val t: BigInteger)

    private val NEUTRAL = Point(BigInteger.ZERO, ONE, ONE, BigInteger.ZERO)

    /** Whether 32 bytes are a point of the curve, in their one form. */
    fun isKey(key: ByteArray): Boolean = key.size == ED25519_KEY_BYTES && decode(key) != null

    /** Whether a key signed these bytes; false for whatever is no key or no signature. */
    fun verify(key: ByteArray, data: ByteArray, signature: ByteArray): Boolean {
        if (key.size != ED25519_KEY_BYTES || signature.size != SIGNATURE_BYTES) return false
        val a = decode(key) ?: return false
        val r = signature.copyOf(ED25519_KEY_BYTES)
        val s = number(signature.copyOfRange(ED25519_KEY_BYTES, SIGNATURE_BYTES))
        if (s >= L) return false // the same signature would have a second form
        val sha = MessageDigest.getInstance("SHA-512")
        sha.update(r)
        sha.update(key)
        val h = number(sha.digest(data)).mod(L)
        // R = sB - hA, compared as bytes: a point in another form is no signature.
        val minusA = Point((P - a.x).mod(P), a.y, a.z, (P - a.t).mod(P))
        return encode(add(times(BASE, s), times(minusA, h))).contentEquals(r)
    }

    private fun times(point: Point, factor: BigInteger): Point {
        var sum = NEUTRAL
        for (bit in factor.bitLength() - 1 downTo 0) {
            sum = add(sum, sum)
            if (factor.testBit(bit)) sum = add(sum, point)
        }
        return sum
    }

    /** The sum of any two points (RFC 8032, 5.1.4). */
    private fun add(p: Point, q: Point): Point {
        val a = ((p.y - p.x) * (q.y - q.x)).mod(P)
        val b = ((p.y + p.x) * (q.y + q.x)).mod(P)
        val c = (TWO * p.t * q.t % P * D).mod(P)
        val d = (TWO * p.z * q.z).mod(P)
        val e = b - a
        val f = d - c
        val g = d + c
        val h = b + a
        return Point((e * f).mod(P), (g * h).mod(P), (f * g).mod(P), (e * h).mod(P))
    }

    private fun encode(point: Point): ByteArray {
        val inverse = point.z.modInverse(P)
        val x = (point.x * inverse).mod(P)
        val bytes = (point.y * inverse).mod(P).toByteArray()
        val out = ByteArray(ED25519_KEY_BYTES) { bytes.getOrElse(bytes.size - 1 - it) { 0 } }
        if (x.testBit(0)) out[ED25519_KEY_BYTES - 1] = (out[ED25519_KEY_BYTES - 1].toInt() or 0x80).toByte()
        return out
    }

    private fun decode(bytes: ByteArray): Point? {
        val all = number(bytes)
        val odd = all.testBit(255)
        val y = all.clearBit(255)
        if (y >= P) return null // a second form of a point
        val found = point(y) ?: return null
        if (found.x.signum() == 0 && odd) return null
        if (found.x.testBit(0) == odd) return found
        val x = P - found.x
        return Point(x, y, ONE, (x * y).mod(P))
    }

    /** The point with this y and an even x; null if there is none. For the base point, whose x is even. */
    private fun point(y: BigInteger): Point? {
        val square = y * y
        val wanted = ((square - ONE) * (D * square + ONE).modInverse(P)).mod(P)
        var x = wanted.modPow((P + BigInteger.valueOf(3)).shiftRight(3), P)
        if ((x * x - wanted).mod(P).signum() != 0) x = (x * ROOT_OF_MINUS_1).mod(P)
        if ((x * x - wanted).mod(P).signum() != 0) return null
        if (x.testBit(0)) x = P - x
        return Point(x, y, ONE, (x * y).mod(P))
    }

    /** A number of little-endian bytes. */
    private fun number(bytes: ByteArray) = BigInteger(1, bytes.reversedArray())
}
