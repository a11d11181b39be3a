package org.edgemrl.android

import java.io.ByteArrayInputStream
import java.io.ByteArrayOutputStream
import java.io.File
import java.io.IOException
import java.security.MessageDigest
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream
import org.edgemrl.FormatException
import org.edgemrl.HashException
import org.edgemrl.ManifestException
import org.edgemrl.MissingFileException
import org.edgemrl.TruncatedException
import org.edgemrl.json.Json
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.BeforeEach
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir

/** Counts what is brought to the disk; it can be full, or lose power. */
internal class TestDisk : Disk {
    var free = Long.MAX_VALUE
    var synced = 0
    var failAt = -1

    override fun syncFolder(folder: File) {
        if (synced++ == failAt) throw IOException("power lost")
    }

    override fun freeBytes(folder: File): Long = free
}

internal class BundleFolderTest {
    @TempDir
    lateinit var root: File
    private val disk = TestDisk()
    private lateinit var bundles: BundleFolder

    @BeforeEach
    fun make() {
        bundles = BundleFolder(File(root, "bundles"), disk)
    }

    private fun sha256(data: ByteArray) =
        MessageDigest.getInstance("SHA-256").digest(data).joinToString("") { "%02x".format(it) }

    private fun files(name: String = "tiny", weights: String = "weights"): MutableMap<String, ByteArray> {
        val data = weights.toByteArray()
        val listed = mapOf("model.onnx" to mapOf("sha256" to sha256(data), "size_bytes" to data.size.toLong()))
        val manifest = Json.write(mapOf("name" to name, "files" to listed)).toByteArray()
        return linkedMapOf("edge_mrl.json" to manifest, "model.onnx" to data)
    }

    private fun source(files: Map<String, ByteArray>) = BundleSource { take ->
        for ((name, data) in files) take(name, ByteArrayInputStream(data))
    }

    private fun zip(files: Map<String, ByteArray>): ZipSource {
        val out = ByteArrayOutputStream()
        ZipOutputStream(out).use { zip ->
            for ((name, data) in files) {
                zip.putNextEntry(ZipEntry(name))
                zip.write(data)
            }
        }
        return ZipSource { ByteArrayInputStream(out.toByteArray()) }
    }

    @Test
    fun `a bundle is installed whole and is the current one`() {
        assertNull(bundles.current())
        val folder = bundles.install(source(files()))
        assertEquals(folder, bundles.current())
        assertEquals("weights", File(folder, "model.onnx").readText())
        assertEquals("tiny", bundles.describe())
        assertEquals(BundleFolder.Checked(2, files().values.sumOf { it.size.toLong() }), bundles.check())
        assertTrue(disk.synced >= 3) // the files' names, the folder's, and the pointer's
    }

    @Test
    fun `another bundle takes its place and the first can be removed`() {
        val first = bundles.install(source(files()))
        val second = bundles.install(source(files(weights = "other")))
        assertTrue(first.exists())
        bundles.removeOthers()
        assertFalse(first.exists())
        assertEquals(second, bundles.current())
        assertEquals("other", File(second, "model.onnx").readText())
    }

    @Test
    fun `power that is lost at any point leaves the bundle before or the one after`() {
        bundles.install(source(files()))
        for (moment in 0..2) {
            disk.synced = 0
            disk.failAt = moment
            assertThrows(IOException::class.java) { bundles.install(source(files(weights = "other"))) }
            disk.failAt = -1
            val reopened = BundleFolder(bundles.folder, disk)
            val text = File(reopened.current()!!, "model.onnx").readText()
            assertEquals(if (moment < 2) "weights" else "other", text)
            reopened.check()
            assertFalse(File(bundles.folder, "partial").exists())
        }
    }

    @Test
    fun `what is damaged on its way is refused and nothing of it stays`() {
        val changed = files().also { it["model.onnx"] = "WEIGHTS".toByteArray() }
        assertThrows(HashException::class.java) { bundles.install(source(changed)) }
        val short = files().also { it["model.onnx"] = "weight".toByteArray() }
        assertThrows(TruncatedException::class.java) { bundles.install(source(short)) }
        assertThrows(MissingFileException::class.java) { bundles.install(source(files() - "model.onnx")) }
        assertThrows(MissingFileException::class.java) { bundles.install(source(files() - "edge_mrl.json")) }
        val none = files().also { it["edge_mrl.json"] = "{".toByteArray() }
        assertThrows(ManifestException::class.java) { bundles.install(source(none)) }
        assertNull(bundles.current())
        assertEquals(emptyList<String>(), bundles.folder.list()!!.toList())
    }

    @Test
    fun `the check of the caller can refuse`() {
        assertThrows(IllegalStateException::class.java) {
            bundles.install(source(files())) { folder ->
                assertTrue(File(folder, "model.onnx").exists())
                throw IllegalStateException("wrong answers")
            }
        }
        assertNull(bundles.current())
    }

    @Test
    fun `a file that was changed after the installation is found`() {
        val folder = bundles.install(source(files()))
        File(folder, "model.onnx").writeText("weighty")
        assertThrows(HashException::class.java) { bundles.check() }
        bundles.install(source(files()))
        bundles.check()
        val manifest = File(folder, "edge_mrl.json")
        manifest.writeText(manifest.readText().replace("tiny", "tony"))
        assertThrows(HashException::class.java) { bundles.check() }
    }

    @Test
    fun `a zip may have the files in one folder`() {
        val folder = bundles.install(zip(files().mapKeys { "minilm/" + it.key }))
        assertEquals("weights", File(folder, "model.onnx").readText())
    }

    @Test
    fun `a zip that leads elsewhere is refused`() {
        for (name in listOf("../evil", "a/../../evil", "/etc/evil", "a/b/evil", "..", ".hidden", "a\\evil", "C:evil")) {
            val found = assertThrows(Exception::class.java, { bundles.install(zip(files() + (name to ByteArray(1)))) }, name)
            assertTrue(found is IOException || found is FormatException, "$name: $found")
            assertEquals(emptyList<String>(), bundles.folder.list()!!.toList(), name)
        }
        assertEquals(listOf("bundles"), root.list()!!.toList())
        assertThrows(IOException::class.java) { bundles.install(ZipSource { ByteArrayInputStream("no zip".toByteArray()) }) }
    }

    @Test
    fun `files that the manifest does not name do not stay`() {
        val folder = bundles.install(source(files() + ("notes.txt" to ByteArray(3))))
        assertEquals(setOf("edge_mrl.json", "model.onnx"), folder.list()!!.toSet())
    }

    @Test
    fun `too many files, one that is given twice, and a large manifest are refused`() {
        val many = files() + (0..70).associate { "file$it" to ByteArray(1) }
        assertThrows(FormatException::class.java) { bundles.install(source(many)) }
        val twice = BundleSource { take -> repeat(2) { take("model.onnx", ByteArrayInputStream(ByteArray(1))) } }
        assertThrows(FormatException::class.java) { bundles.install(twice) }
        val large = files().also { it["edge_mrl.json"] = ByteArray((1 shl 20) + 1) }
        assertThrows(FormatException::class.java) { bundles.install(source(large)) }
    }

    @Test
    fun `a full disk is said before it is full`() {
        disk.free = 1000
        val error = assertThrows(IOException::class.java) { bundles.install(source(files())) }
        assertTrue("nearly full" in error.message!!)
        assertNull(bundles.current())
    }

    @Test
    fun `a pointer to nothing is as if nothing were installed`() {
        val folder = bundles.install(source(files()))
        folder.deleteRecursively()
        assertNull(bundles.current())
        File(bundles.folder, "current").writeText("../..")
        assertNull(bundles.current())
    }

    @Test
    fun `conditions have the least period that Android takes`() {
        assertThrows(IllegalArgumentException::class.java) { SyncConditions(periodMinutes = 14) }
        assertEquals(15, SyncConditions(periodMinutes = 15).periodMinutes)
    }
}
