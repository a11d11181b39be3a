package org.edgemrl.demo

import java.io.File
import org.edgemrl.Index
import org.edgemrl.android.Disk
import org.edgemrl.demo.notes.FileNotebook
import org.edgemrl.demo.notes.IndexNotebook
import org.edgemrl.demo.notes.Note
import org.edgemrl.demo.notes.sentences
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNotNull
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir

private object TrustedDisk : Disk {
    override fun syncFolder(folder: File): Unit = Unit

    override fun freeBytes(folder: File): Long = Long.MAX_VALUE
}

/** Notes in a real index, by the bundles of the tests. */
internal class IndexNotebookTest {
    @TempDir
    lateinit var root: File
    private val bundles = File(checkNotNull(System.getProperty("edge.bundles")) { "edge.bundles names the folder of the tests' bundles" })
    private var model: File? = File(bundles, "tiny-bert-16")

    private fun files() = FileNotebook(File(root, "notes"), TrustedDisk)

    private fun book() = IndexNotebook(File(root, "index"), files()) { model }

    private fun stores() = File(root, "index").list()!!.filter { it.endsWith(".db") }.sorted()

    private fun waiting() = File(root, "notes").list()!!.size

    private val soup = Note("a", "Soup\n\nBoil the water.  Add salt. Serve!", 1)
    private val flat = Note("b", "Flat in Lisbon\n\nThe landlord wants the deposit.", 2)

    @Test
    fun `notes are found, changed and deleted, and are there after a restart`() {
        val book = book()
        book.put(listOf(soup, flat))
        assertEquals(listOf("b", "a"), book.all().map { it.id })
        val found = book.search("salt wat", 9)
        assertEquals("a", found[0].note.id)
        assertEquals("Boil the water.", found[0].sentence)
        assertEquals(2, found.size)
        assertTrue(found[1].sentence in flat.text.replace("\n", " "), found[1].sentence)
        assertNull(book.problem)
        book.put(listOf(soup.copy(text = "Soup without salt", changedMs = 3)))
        book.release()
        assertEquals("Soup without salt", book.search("soup", 1).single().note.text)
        book.delete("b")
        book.reopen()
        assertEquals(listOf(Note("a", "Soup without salt", 3)), book().all())
        assertNull(book().get("b"))
        assertEquals(0, waiting())
    }

    @Test
    fun `notes of an earlier version move in, and of two versions the later one counts`() {
        files().put(listOf(soup, flat))
        val book = book()
        assertEquals("Soup\n\nBoil the water.  Add salt. Serve!", book.get("a")!!.text)
        assertEquals(0, waiting())
        book.put(listOf(soup.copy(text = "newer", changedMs = 9)))
        files().put(listOf(soup)) // a kill between the index and the file's removal leaves it
        book.reopen()
        assertEquals("newer", book().get("a")!!.text)
        assertEquals(0, waiting())
    }

    @Test
    fun `without a model notes are kept as files, and move in when there is one`() {
        val tiny = model
        model = null
        val book = book()
        book.put(listOf(soup))
        assertEquals(listOf(soup), book.all())
        assertEquals("Add salt.", book.search("salt", 9).single().sentence)
        assertNotNull(book.problem)
        assertEquals(1, waiting())
        model = tiny
        book.reopen()
        assertEquals("a", book.search("salt", 9).single().note.id)
        assertNull(book.problem)
        assertEquals(0, waiting())
    }

    @Test
    fun `a model that cannot be opened loses no note`() {
        val broken = File(root, "broken")
        File(bundles, "tiny-bert-16").copyRecursively(broken)
        book().run { put(listOf(soup)); reopen() }
        File(broken, "tokenizer.json").writeText("{}")
        model = broken
        val book = book()
        book.put(listOf(flat, soup.copy(text = "Soup, changed", changedMs = 5)))
        assertNotNull(book.problem)
        assertEquals(listOf("Soup, changed", flat.text), book.all().map { it.text })
        assertEquals("Soup, changed", book.search("soup", 9).single().note.text)
        book.delete("b")
        assertEquals(1, book.all().size)
        book.reopen()
        model = File(bundles, "tiny-bert-16")
        assertEquals("Soup, changed", book().search("soup", 1).single().note.text)
        assertEquals(0, waiting())
    }

    @Test
    fun `another model gets a store of its own with all notes, also when that was interrupted`() {
        book().run { put((1..150).map { Note("n$it", "note number $it about soup", it.toLong()) }); reopen() }
        val former = File(root, "former").also { File(root, "index").copyRecursively(it) }
        model = File(bundles, "tiny-bert-coarse-8")
        book().run {
            assertEquals(150, all().size)
            assertTrue(search("number 7.", 20).any { it.note.id == "n7" })
            reopen()
        }
        assertEquals(listOf("notes-2.db"), stores())
        former.copyRecursively(File(root, "index"), overwrite = true) // as if it had been killed before the removal
        assertEquals(listOf("notes-1.db", "notes-2.db"), stores())
        book().run { put(listOf(Note("n1", "later", 1000))); reopen() }
        assertEquals(listOf("notes-2.db"), stores())
        assertEquals(150, book().all().size)
        assertEquals("later", book().get("n1")!!.text)
        Index.open(File(root, "index/notes-2.db")).use { assertTrue(it.check().problems.isEmpty()) }
    }

    @Test
    fun `sentences end with lines, and blank ones are none`() {
        val text = "One. Two!\n\n  \nThree"
        assertEquals(listOf("One. ", "Two!", "Three"), sentences(text).map { text.substring(it) })
        assertFalse(sentences("").any())
        assertEquals(listOf("Two!"), sentences(text, 6..7).map { text.substring(it) })
        assertEquals(listOf("One. ", "Two!"), sentences(text, 3..5).map { text.substring(it) })
    }
}
