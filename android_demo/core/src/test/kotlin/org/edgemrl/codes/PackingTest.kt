package org.edgemrl.codes

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test

/** The test vectors of FORMAT.md, "Codes". */
class PackingTest {
    private fun hex(data: ByteArray) = data.joinToString(" ") { "%02x".format(it) }

    private fun code(vararg values: Int) = ByteArray(values.size) { values[it].toByte() }

    private fun check(packing: Packing, packed: String, code: ByteArray, vararg levels: Int) {
        assertEquals(packed, hex(packing.pack(code)))
        assertEquals(levels.toList(), packing.unpack(packing.pack(code), code.size).map { it.toInt() })
    }

    @Test
    fun `int8 and 1-bit codes`() {
        fun both(x: FloatArray, int8: List<Int>, bits: String) {
            assertEquals(int8, quantize(x).map { it.toInt() })
            assertEquals(bits, hex(Packing(CodeKind.ONE_BIT).pack(quantize(x))))
        }
        both(floatArrayOf(0.6f, -0.8f), listOf(76, -102), "80")
        both(floatArrayOf(1f, 0f, -0f), listOf(127, 0, 0), "80")
        both(floatArrayOf(0.003937f, -0.003937f, 0.00393f), listOf(0, 0, 0), "00")
        both(floatArrayOf(0.5f / 127, 1.5f / 127, 2.5f / 127), listOf(0, 2, 2), "60")
        both(floatArrayOf(1.2f, -1.2f), listOf(127, -127), "80")
        both(FloatArray(9) { 0.1f }, List(9) { 13 }, "ff 80")
    }

    @Test
    fun `int4 codes`() {
        val four = Packing(CodeKind.INT4, 4.0)
        check(four, "f0", code(76, -102), 15, -15)
        check(four, "78 89", code(0, 1, 4, 5), -1, 1, 1, 3)
        check(four, "77 66 50", code(-1, -3, -4, -5, -8), -1, -1, -3, -3, -5)
        check(four, "ef f1 10 00", code(28, 29, 127, -24, -27, -28, -127), 13, 15, 15, -13, -13, -15, -15)
        check(Packing(CodeKind.INT4, 2.5), "9a 55", code(5, 6, -5, -6), 3, 5, -5, -5)
    }

    @Test
    fun `2-bit codes`() {
        val four = Packing(CodeKind.TWO_BIT, 4.0)
        check(four, "9c a6", code(76, -102, 0, 1, 8, 9, -7, -8), 3, -3, -1, 1, 1, 3, -1, -3)
        check(four, "ff 00 ff 00", code(13, 13, 13, 13, 13, 13, 13, 13, -13), 3, 3, 3, 3, 3, 3, 3, 3, -3)
        check(Packing(CodeKind.TWO_BIT, 5.0, listOf(0, 3, -4)), "80 c0", code(11, 3, -14), 15, -2, -19)
        check(Packing(CodeKind.TWO_BIT, 2.0, listOf(121, -121)), "80 80", code(127, -127), 127, -127)
    }

    @Test
    fun `1-bit codes around a centre`() {
        check(Packing(CodeKind.ONE_BIT, 9.0, listOf(0, 3, -4)), "a0", code(1, 3, -3), 9, -6, 5)
        check(Packing(CodeKind.ONE_BIT, 5.0, listOf(122, -122, 0)), "80", code(127, -127, 0), 127, -127, -5)
    }

    @Test
    fun `SplitMix64 gives the outputs of its paper`() {
        val chance = SplitMix()
        assertEquals(listOf(-0x1ddf57c684e23251L, 0x6e789e6aa1b965f4L), listOf(chance.next(), chance.next()))
    }
}
