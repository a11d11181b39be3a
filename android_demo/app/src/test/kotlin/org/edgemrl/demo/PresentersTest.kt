package org.edgemrl.demo

import java.io.ByteArrayInputStream
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.util.concurrent.Executor
import org.edgemrl.android.Disk
import org.edgemrl.android.SyncConditions
import org.edgemrl.demo.notes.FileNotebook
import org.edgemrl.demo.notes.Found
import org.edgemrl.demo.notes.Note
import org.edgemrl.demo.notes.Notebook
import org.edgemrl.demo.notes.bestSentence
import org.edgemrl.demo.state.BundleChecks
import org.edgemrl.demo.state.Check
import org.edgemrl.demo.state.CheckState
import org.edgemrl.demo.state.ImportPresenter
import org.edgemrl.demo.state.ImportState
import org.edgemrl.demo.state.ImportedFile
import org.edgemrl.demo.state.Look
import org.edgemrl.demo.state.NotePresenter
import org.edgemrl.demo.state.NotesPresenter
import org.edgemrl.demo.state.NotesState
import org.edgemrl.demo.state.Runner
import org.edgemrl.demo.state.Settings
import org.edgemrl.demo.state.SettingsPresenter
import org.edgemrl.demo.state.SettingsStore
import org.edgemrl.demo.state.Skipped
import org.edgemrl.demo.state.Values
import org.edgemrl.demo.state.VerifyPresenter
import org.edgemrl.demo.state.VerifyState
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir

private object NoDisk : Disk {
    override fun syncFolder(folder: File): Unit = Unit

    override fun freeBytes(folder: File): Long = Long.MAX_VALUE
}

/** Work that waits until a test lets it run. */
private class Later : Executor {
    val waiting = ArrayDeque<Runnable>()

    override fun execute(work: Runnable): Unit = waiting.addLast(work)

    fun runAll() {
        while (waiting.isNotEmpty()) waiting.removeFirst().run()
    }
}

private class Memory(vararg notes: Note) : Notebook {
    val notes = notes.associateByTo(LinkedHashMap()) { it.id }
    val searches = ArrayList<String>()
    var broken = false

    override fun all() = if (broken) throw IOException("no disk") else notes.values.toList()

    override fun get(id: String) = notes[id]

    override fun put(notes: List<Note>) {
        if (broken) throw IOException("no disk")
        notes.forEach { this.notes[it.id] = it }
    }

    override fun delete(id: String) {
        notes.remove(id)
    }

    override fun search(query: String, count: Int): List<Found> {
        searches.add(query)
        return notes.values.filter { query in it.text }.map { Found(it, null) }
    }
}

private val AT_ONCE = Executor { it.run() }
private val NOW = Runner(AT_ONCE, AT_ONCE)

internal class PresentersTest {
    @TempDir
    lateinit var root: File

    private val soup = Note("a", "Soup\n\nBoil the water.  Add salt. Serve!", 1)

    @Test
    fun `a note has a title and a preview`() {
        assertEquals("Soup", soup.title)
        assertEquals("Boil the water. Add salt. Serve!", soup.preview)
        assertEquals("", Note("b", " \n\n", 0).title)
    }

    @Test
    fun `notes are there after a restart, and leftovers and damage do not hide them`() {
        val folder = File(root, "notes")
        FileNotebook(folder, NoDisk).put(listOf(soup, Note("../../b", "two\u0000 😀", 2)))
        File(folder, "x.json.new").writeText("{")
        File(folder, "y.json").writeText("{\"id\": 3}")
        val again = FileNotebook(folder, NoDisk)
        assertEquals(listOf("../../b", "a"), again.all().map { it.id })
        assertEquals("two\u0000 😀", again.get("../../b")!!.text)
        assertEquals(listOf("y.json"), again.damaged)
        assertFalse(File(folder, "x.json.new").exists())
        again.delete("a")
        assertEquals(listOf("../../b"), FileNotebook(folder, NoDisk).all().map { it.id })
        assertEquals(listOf("notes"), root.list()!!.toList())
    }

    @Test
    fun `search by words shows the sentence that fits best`() {
        val book = FileNotebook(File(root, "notes"), NoDisk)
        book.put(listOf(soup, Note("b", "Water the plants", 5)))
        assertEquals(listOf("b", "a"), book.search("wat", 9).map { it.note.id })
        assertEquals("Add salt.", book.search("SALT serv add", 9).single().sentence)
        assertEquals("Boil the water.", book.search("boil water", 9).single().sentence)
        assertEquals(emptyList<Found>(), book.search("pepper", 9))
        assertEquals(emptyList<Found>(), book.search(" ?! ", 9))
        assertEquals(1, book.search("water", 1).size)
        assertNull(bestSentence("nothing", setOf("else")))
    }

    @Test
    fun `only the answer to the last query is shown, and the others are not computed`() {
        val background = Later()
        val shown = ArrayList<NotesState>()
        val book = Memory(soup)
        val presenter = NotesPresenter({ book }, Runner(background, AT_ONCE)) { shown.add(it) }
        presenter.refresh()
        for (text in listOf("s", "sa", "salt")) presenter.search(text)
        background.runAll()
        assertEquals(listOf("salt"), book.searches)
        assertEquals(1, shown.size)
        assertEquals("salt", (shown[0] as NotesState.Results).query)
        presenter.search("salt ")
        assertTrue(background.waiting.isEmpty())
        presenter.search("")
        presenter.leave()
        background.runAll()
        assertEquals(1, shown.size)
    }

    @Test
    fun `no notes, all notes, and a broken disk are said`() {
        val shown = ArrayList<NotesState>()
        val book = Memory()
        val presenter = NotesPresenter({ book }, NOW) { shown.add(it) }
        presenter.refresh()
        book.put(listOf(soup))
        presenter.refresh()
        book.broken = true
        presenter.refresh()
        assertEquals(listOf(NotesState.Empty, NotesState.All(listOf(soup)), NotesState.Failed("no disk")), shown)
    }

    private fun writer(book: Notebook) = NotePresenter({ book }, NOW, { "new" }, { 7 })

    private fun fail(error: Exception): Unit = throw AssertionError(error)

    @Test
    fun `a note is written once, and only if there is something to write`() {
        val book = Memory()
        val presenter = writer(book)
        presenter.begin(null, null)
        presenter.edit("  ")
        presenter.save(::fail) {}
        assertTrue(book.notes.isEmpty())
        presenter.edit("hello")
        assertTrue(presenter.state.canSave)
        presenter.save(::fail) {}
        presenter.save(::fail) {}
        assertEquals(listOf(Note("new", "hello", 7)), book.notes.values.toList())
        assertFalse(presenter.state.changed)
        presenter.delete(::fail) {}
        assertTrue(book.notes.isEmpty())
    }

    @Test
    fun `a failed save can be tried again, into the same note`() {
        val book = Memory().apply { broken = true }
        val presenter = writer(book)
        presenter.begin(null, "text")
        var failures = 0
        presenter.save({ failures++ }) {}
        assertEquals(1, failures)
        assertTrue(presenter.state.canSave)
        book.broken = false
        presenter.save(::fail) {}
        assertEquals(setOf("new"), book.notes.keys)
    }

    @Test
    fun `a shared text is a new note with its subject once`() {
        val presenter = writer(Memory())
        presenter.begin("News", "News of today")
        assertEquals("News of today", presenter.state.text)
        presenter.begin("News", " http://a ")
        assertEquals("News\n\nhttp://a", presenter.state.text)
        assertTrue(presenter.state.new && presenter.state.canSave)
        presenter.begin(null, "x".repeat(NotePresenter.MOST_LENGTH + 1))
        assertFalse(presenter.state.canSave)
        assertTrue(presenter.state.tooLong)
    }

    @Test
    fun `what is being written survives a new screen`() {
        val book = Memory(soup)
        val first = writer(book)
        first.open("a", { fail(IOException("gone")) }, ::fail) {}
        first.edit("Soup!")
        val (id, saved, text) = first.snapshot()
        val second = writer(book)
        second.restore(id, saved, text)
        second.save(::fail) {}
        assertEquals("Soup!", book.notes.getValue("a").text)
        var gone = 0
        writer(book).open("nobody", { gone++ }, ::fail) {}
        assertEquals(1, gone)
    }

    private fun file(path: String, data: ByteArray, changedMs: Long = 5) = ImportedFile(path, changedMs) { ByteArrayInputStream(data) }

    @Test
    fun `a folder is read, what is no text is named, and again replaces`() {
        val book = Memory()
        val shown = ArrayList<ImportState>()
        val presenter = ImportPresenter({ book }, NOW, { 9 }) { shown.add(it) }
        val files = listOf(
            file("a.txt", "\uFEFFhello".toByteArray()),
            file("sub/b.md", "two".toByteArray(), 0),
            file("c.pdf", "%PDF".toByteArray()),
            file("d.txt", byteArrayOf(-1, -2)),
            file("e.txt", " \n".toByteArray()),
            file("f.txt", ByteArray(ImportPresenter.MOST_BYTES + 1) { 65 }),
            file("g.txt", byteArrayOf(65, 0)),
            ImportedFile("h.txt", 1) { throw IOException("gone") },
        )
        presenter.begin("tree") { files.asSequence() }
        val end = shown.last()
        assertEquals(2, end.read)
        assertFalse(end.running)
        val why = mapOf(
            "c.pdf" to Skipped.NO_TEXT, "d.txt" to Skipped.NO_TEXT, "e.txt" to Skipped.EMPTY,
            "f.txt" to Skipped.TOO_LONG, "g.txt" to Skipped.NO_TEXT, "h.txt" to Skipped.UNREADABLE,
        )
        assertEquals(why, end.skipped.toMap())
        assertEquals(listOf(Note("tree/a.txt", "hello", 5), Note("tree/sub/b.md", "two", 9)), book.notes.values.toList())
        presenter.begin("tree") { sequenceOf(file("a.txt", "changed".toByteArray())) }
        assertEquals(2, book.notes.size)
        assertEquals("changed", book.notes.getValue("tree/a.txt").text)
    }

    @Test
    fun `an import stops after a file, and says what failed`() {
        val book = Memory()
        val shown = ArrayList<ImportState>()
        val presenter = ImportPresenter({ book }, NOW, { 9 }) { shown.add(it) }
        presenter.begin("t") { generateSequence(0) { it + 1 }.map { if (it == 3) presenter.stop(); file("$it.txt", "x".toByteArray()) } }
        assertEquals(3, book.notes.size)
        presenter.begin("t") { throw IOException("no folder") }
        assertEquals("no folder", shown.last().message)
        assertFalse(shown.last().running)
    }

    private class Parts(val results: Map<Check, () -> String>, var bundle: String? = "minilm") : BundleChecks {
        override fun name() = bundle

        override fun run(part: Check) = results.getValue(part)()

        override fun install(zip: () -> InputStream) {
            bundle = zip().use { it.readBytes().decodeToString() }
        }
    }

    private fun verify(checks: BundleChecks): VerifyState {
        lateinit var last: VerifyState
        val presenter = VerifyPresenter(checks, NOW) { last = it }
        presenter.open()
        presenter.begin()
        return last
    }

    @Test
    fun `parts of the verification run in order and stop at the first that fails`() {
        val good = verify(Parts(mapOf(Check.FILES to { "6 files" }, Check.GOLDEN to { "11 texts" }, Check.SPEED to { "9 tokens" })))
        assertEquals(listOf("6 files", "11 texts", "9 tokens").map { CheckState.Passed(it) }, good.parts.values.toList())
        assertFalse(good.running)
        val bad = verify(Parts(mapOf(Check.FILES to { throw IOException("changed") })))
        assertEquals(listOf(CheckState.Failed("changed"), CheckState.Waiting, CheckState.Waiting), bad.parts.values.toList())
        assertFalse(bad.running)
        assertNull(verify(Parts(emptyMap(), null)).bundle)
    }

    @Test
    fun `another model is installed, or the present one stays and the reason is shown`() {
        lateinit var last: VerifyState
        val presenter = VerifyPresenter(Parts(mapOf(Check.FILES to { throw IOException("changed") })), NOW) { last = it }
        presenter.open()
        presenter.begin()
        presenter.install { throw IOException("gone") }
        assertEquals("minilm", last.bundle)
        assertEquals("gone", last.problem)
        presenter.install { ByteArrayInputStream("gemma".toByteArray()) }
        assertEquals("gemma", last.bundle)
        assertNull(last.problem)
        assertEquals(setOf<CheckState>(CheckState.Waiting), last.parts.values.toSet())
        assertFalse(last.running)
    }

    private class Kept : Values {
        val values = HashMap<String, String>()

        override fun get(name: String) = values[name]

        override fun put(values: Map<String, String>): Unit = this.values.putAll(values)
    }

    @Test
    fun `settings are kept, jobs follow, and nonsense is as nothing`() {
        val kept = Kept()
        val asked = ArrayList<SyncConditions>()
        val presenter = SettingsPresenter(SettingsStore(kept), { asked.add(it) }) {}
        val wanted = Settings(Look.DARK, SyncConditions(metered = true, periodMinutes = 30))
        presenter.change(wanted)
        presenter.change(wanted.copy(look = Look.LIGHT))
        assertEquals(listOf(wanted.conditions), asked)
        assertEquals(wanted.copy(look = Look.LIGHT), SettingsStore(kept).read())
        kept.put(mapOf("look" to "PINK", "metered" to "maybe", "period_minutes" to "1"))
        assertEquals(Settings(), SettingsStore(kept).read())
    }
}
