package org.edgemrl

import org.edgemrl.json.Json
import org.edgemrl.json.JsonException
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test

class JsonTest {
    @Test
    fun `what was written is read again`() {
        val value = mapOf("a" to listOf(1L, -2.5, null, true, "x\n\"\\\u0001é😀"), "b" to emptyMap<String, Any?>())
        assertEquals(value, Json.parse(Json.write(value)))
    }

    @Test
    fun `what is not JSON is refused`() {
        for (text in listOf("", "{", "[1,]", "{\"a\":1,\"a\":2}", "01", "1.", "+1", "NaN", "\"\u0001\"", "\"\\x\"", "1 2", "tru", "[".repeat(5000))) {
            assertThrows(JsonException::class.java, { Json.parse(text) }, text.take(20))
        }
    }

    @Test
    fun `numbers keep their kind`() {
        assertEquals(listOf<Any?>(0L, -7L, 1.0, 1e300, java.math.BigInteger("9223372036854775808")), Json.parse("[0,-7,1.0,1e300,9223372036854775808]"))
    }
}
