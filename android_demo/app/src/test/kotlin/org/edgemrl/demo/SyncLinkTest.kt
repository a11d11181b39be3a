package org.edgemrl.demo

import java.io.File
import java.net.InetAddress
import java.net.ServerSocket
import java.util.concurrent.ConcurrentLinkedQueue
import java.util.concurrent.CountDownLatch
import java.util.concurrent.Executor
import java.util.concurrent.TimeUnit
import org.edgemrl.EdgeMrlException
import org.edgemrl.UsageException
import org.edgemrl.android.Disk
import org.edgemrl.android.SyncConditions
import org.edgemrl.android.SyncOutcome
import org.edgemrl.demo.notes.FileNotebook
import org.edgemrl.demo.notes.IndexNotebook
import org.edgemrl.demo.notes.Note
import org.edgemrl.demo.state.Reason
import org.edgemrl.demo.state.Runner
import org.edgemrl.demo.state.Settings
import org.edgemrl.demo.state.SyncPresenter
import org.edgemrl.demo.state.SyncState
import org.edgemrl.demo.state.Values
import org.edgemrl.demo.state.policyOf
import org.edgemrl.demo.state.syncState
import org.edgemrl.demo.sync.Joining
import org.edgemrl.demo.sync.LinkState
import org.edgemrl.demo.sync.Pasted
import org.edgemrl.demo.sync.StoreLink
import org.edgemrl.demo.sync.needsCleartext
import org.edgemrl.demo.sync.readInvitation
import org.edgemrl.store.Store
import org.edgemrl.sync.Cause
import org.edgemrl.sync.Conditions
import org.edgemrl.sync.move
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNotNull
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir

private object OwnDisk : Disk {
    override fun syncFolder(folder: File): Unit = Unit

    override fun freeBytes(folder: File): Long = Long.MAX_VALUE
}

private class Preferences : Values {
    val values = HashMap<String, String>()

    override fun get(name: String) = values[name]

    override fun put(values: Map<String, String>): Unit = this.values.putAll(values)
}

private val GOOD = Conditions(online = true, metered = false, charging = true, batteryLow = false)
private val DIRECTLY = Executor { it.run() }

/** A phone without its screens: its files outlast it, as they outlast a process. */
private class Phone(private val folder: File, private val model: File, val kept: Preferences = Preferences()) {
    val joined = ArrayList<Boolean>()
    var writes = 0
    var phone = GOOD
    var settings = Settings()
    val book = IndexNotebook(File(folder, "index"), FileNotebook(File(folder, "notes"), OwnDisk), { writes++ }) { model }
    val link = StoreLink({ book.storeFile() }, kept, { policyOf(settings) }, { phone }, DIRECTLY) { joined.add(it) }

    fun sync() = link.sync { false }

    fun texts() = book.all().associate { it.id to it.text }

    /** The process ends, and another one begins. */
    fun again(): Phone {
        book.reopen()
        return Phone(folder, model, kept)
    }

    fun move(address: String) = Store.open(book.storeFile()!!).use { move(it, address) }
}

/** The notes' link to a real server, which a test of Python runs. */
internal class SyncLinkTest {
    @TempDir
    lateinit var root: File
    private val bundle = File(System.getProperty("edge.bundles"), "tiny-bert-16")
    private val server = checkNotNull(System.getProperty("edge.server")) { "edge.server has the address of a server" }

    /** Of a tenant that no other test has. */
    private val invitations by lazy { ArrayDeque(TENANTS.remove().split(",")) }

    private fun phone(name: String) = Phone(File(root, name), bundle)

    private fun joining(withText: Boolean = true) = Joining(server, invitations.removeFirst(), withText)

    private fun joined(name: String, withText: Boolean = true) = phone(name).also { it.link.join(joining(withText)) }

    private fun note(id: String, text: String, changedMs: Long = 1) = Note(id, text, changedMs)

    @Test
    fun `two phones hold the same notes, and a process that ends loses nothing`() {
        val one = phone("one")
        one.book.put(listOf(note("a", "the ferry leaves at nine"), note("b", "bread")))
        assertNull(one.link.state())
        assertEquals(SyncOutcome.REFUSED, one.sync())
        val wanted = joining()
        one.link.join(wanted)
        one.link.join(wanted) // its first answer was lost
        assertEquals(2, one.link.state()!!.queued)
        assertNull(one.link.state()!!.lastMs)
        assertEquals(SyncOutcome.DONE, one.sync())
        val two = joined("two")
        two.book.put(listOf(note("c", "salt")))
        assertEquals(SyncOutcome.DONE, two.sync())
        assertEquals(SyncOutcome.DONE, one.again().also { it.book.delete("b") }.sync())
        assertEquals(SyncOutcome.DONE, two.again().sync())
        assertEquals(mapOf("a" to "the ferry leaves at nine", "c" to "salt"), two.again().texts())
        assertEquals(two.again().texts(), one.again().texts())
        val state = one.again().link.state()!!
        assertEquals(0, state.queued)
        assertNotNull(state.lastMs)
        assertNull(state.cause)
        assertEquals("ferry", two.again().book.search("ferry", 1).single().note.text.split(" ")[1])
    }

    @Test
    fun `what waits says why, also in another process`() {
        val one = joined("waiting")
        assertEquals(listOf(true), one.joined)
        one.book.put(listOf(note("a", "words")))
        assertEquals(1, one.writes)
        one.phone = GOOD.copy(metered = true)
        assertEquals(SyncOutcome.AGAIN, one.sync())
        val later = one.again().link.state()!!
        assertEquals(listOf(1L, Cause.POLICY, "the connection is metered"), listOf(later.queued, later.cause, later.said))
        one.move("http://127.0.0.1:9") // nobody is there
        one.phone = GOOD
        assertEquals(SyncOutcome.AGAIN, one.sync())
        val state = syncState(one.again().link.state(), GOOD, Settings()) as SyncState.Joined
        assertEquals(listOf(Reason.SERVER, 1L), listOf(state.reason, state.queued))
        one.move(server)
        one.phone = GOOD.copy(metered = true)
        one.settings = Settings(conditions = SyncConditions(metered = true))
        assertEquals(SyncOutcome.DONE, one.sync())
    }

    @Test
    fun `a run that is stopped ends within its request, and what waits stays`() {
        val one = joined("stopped")
        one.book.put(listOf(note("a", "words")))
        ServerSocket(0, 9, InetAddress.getByName("127.0.0.1")).use { silent ->
            one.move("http://127.0.0.1:${silent.localPort}")
            val ended = CountDownLatch(1)
            var outcome: SyncOutcome? = null
            val started = System.nanoTime()
            Thread {
                outcome = one.sync()
                ended.countDown()
            }.start()
            silent.accept().use {
                assertNotNull(one.link.state()!!.running)
                one.link.stop()
                assertTrue(ended.await(20, TimeUnit.SECONDS), "it waits for an answer that never comes")
            }
            assertEquals(SyncOutcome.AGAIN, outcome)
            assertTrue(System.nanoTime() - started < 25e9)
        }
        val state = one.link.state()!!
        assertEquals(listOf(1L, Cause.POLICY, null), listOf(state.queued, state.cause, state.running))
        one.move(server)
        // The job is told to stop in the same way, and a run that comes after it is another one.
        assertEquals(SyncOutcome.AGAIN, one.link.sync { true })
        assertEquals(SyncOutcome.DONE, one.sync())
    }

    @Test
    fun `letters are shown, sent again, and forgotten`() {
        val one = joined("letters")
        one.book.put(listOf(note("large", "a".repeat(1 shl 20)), note("b", "small")))
        assertEquals(SyncOutcome.DONE, one.sync())
        val letter = one.link.state()!!.letters.single()
        assertEquals(listOf("a".repeat(80), "too_large"), listOf(letter.words, letter.reason))
        one.book.put(listOf(note("large", "shorter now", 2)))
        one.link.retryLetters()
        assertEquals(SyncOutcome.DONE, one.sync())
        assertEquals(0, one.link.state()!!.dead)
        one.book.put(listOf(note("large", "b".repeat(1 shl 20), 3)))
        assertEquals(SyncOutcome.DONE, one.sync())
        assertEquals(1, one.link.state()!!.dead)
        one.link.dropLetters()
        assertEquals(0, one.link.state()!!.dead)
        assertEquals(2, one.texts().size)
    }

    @Test
    fun `a phone that leaves keeps its notes, and what waits is sent when it is back`() {
        val one = joined("leaving")
        one.book.put(listOf(note("a", "words that stay")))
        assertEquals(SyncOutcome.DONE, one.sync())
        one.book.put(listOf(note("b", "words that wait")))
        one.link.leave()
        assertEquals(listOf(true, false), one.joined)
        assertFalse(File(root, "leaving/index").list()!!.any { "sync.json" in it }) // the token is gone
        assertNull(one.again().link.state())
        assertEquals(SyncOutcome.REFUSED, one.again().sync())
        assertEquals(setOf("a", "b"), one.again().texts().keys)
        one.link.join(joining())
        assertEquals(SyncOutcome.DONE, one.sync())
        val other = joined("other")
        assertEquals(SyncOutcome.DONE, other.sync())
        assertEquals("words that wait", other.texts()["b"])
    }

    @Test
    fun `without their words notes are known by their vectors alone`() {
        val one = joined("wordless", withText = false)
        one.book.put(listOf(note("secret", "nobody reads this")))
        assertEquals(SyncOutcome.DONE, one.sync())
        val other = joined("reader")
        assertEquals(SyncOutcome.DONE, other.sync())
        assertEquals("", other.texts()["secret"])
        assertFalse(one.link.state()!!.withText)
    }

    @Test
    fun `the screen's state goes from nothing to a server and back`() {
        val one = phone("screen")
        one.book.put(listOf(note("a", "words")))
        val shown = ArrayList<SyncState>()
        val presenter = SyncPresenter(one.link, Runner(DIRECTLY, DIRECTLY), { one.phone }, { one.settings }) { shown.add(it) }
        presenter.open()
        assertEquals(SyncState.Unset(), shown.last())
        presenter.join(Joining("", "  "))
        assertEquals(SyncState.Unset(problem = SyncPresenter.INCOMPLETE), shown.last())
        presenter.join(Joining(server, "no-such-invitation"))
        assertTrue("invitation" in (shown.last() as SyncState.Unset).problem.orEmpty(), "${shown.last()}")
        presenter.join(Joining("", "$server ${invitations.removeFirst()}"))
        assertTrue(SyncState.Unset(joining = true) in shown)
        assertTrue(shown.any { it is SyncState.Joined && it.running?.sent == 1 }, "$shown")
        val state = shown.last() as SyncState.Joined
        assertEquals(listOf<Any?>(0L, null, null, null), listOf(state.queued, state.running, state.reason, state.problem))
        one.book.put(listOf(note("b", "more words")))
        one.phone = GOOD.copy(metered = true)
        presenter.open()
        assertEquals(listOf(Reason.METERED, 1L), (shown.last() as SyncState.Joined).let { listOf(it.reason, it.queued) })
        presenter.syncNow() // whatever it costs
        assertEquals(0L, (shown.last() as SyncState.Joined).queued)
        presenter.close()
        val before = shown.size
        one.sync()
        assertEquals(before, shown.size)
        presenter.open()
        presenter.leave()
        assertEquals(SyncState.Unset(), shown.last())
    }

    @Test
    fun `a phone without a model has nothing to exchange, and says so`() {
        val link = StoreLink({ null }, Preferences(), { policyOf(Settings()) }, { GOOD }, DIRECTLY)
        assertNull(link.state())
        assertTrue("no model" in assertThrows(EdgeMrlException::class.java) { link.join(Joining(server, "x")) }.message!!)
        assertEquals(SyncOutcome.REFUSED, link.sync { false })
    }

    @Test
    fun `the reason is there if and only if the policy says one`() {
        val flags = listOf(false, true)
        val link = LinkState("https://s", "d", 2)
        var waiting = 0
        for (online in flags) for (metered in flags) for (charging in flags) for (low in flags) {
            val phone = Conditions(online, metered, charging, low)
            for (onMetered in flags) for (onlyCharging in flags) for (onLow in flags) {
                val settings = Settings(conditions = SyncConditions(onMetered, onlyCharging, onLow))
                val reason = (syncState(link, phone, settings) as SyncState.Joined).reason
                val said = policyOf(settings).whyNot(phone)
                assertEquals(said == null, reason == null, "$phone $settings")
                if (reason != null) waiting++
                val words = mapOf(
                    Reason.NO_NETWORK to "no network", Reason.METERED to "metered", Reason.NOT_CHARGING to "charging", Reason.BATTERY_LOW to "battery",
                )
                if (reason != null) assertTrue(words.getValue(reason) in said!!, "$reason, $said")
            }
        }
        assertTrue(waiting in 1..127)
        val refused = syncState(link.copy(cause = Cause.REFUSED, said = "no"), GOOD, Settings()) as SyncState.Joined
        assertEquals(listOf("no", null), listOf(refused.refused, refused.reason))
    }

    @Test
    fun `without encryption only this phone's own network is asked, and only if that was chosen`() {
        for (address in listOf("https://example.org", "example.org", "http://localhost:80", "http://127.0.0.1:9", "http://[::1]:9")) {
            assertFalse(needsCleartext(address, false), address)
        }
        val near = listOf("http://10.0.0.2", "http://172.16.1.1:80", "http://192.168.1.2/x", "http://nas.local", "http://[fd00::1]:8", "HTTP://169.254.1.1", "http://[fe80::1]")
        for (address in near) {
            assertTrue(needsCleartext(address, true), address)
            assertThrows(UsageException::class.java, { needsCleartext(address, false) }, address)
        }
        val far = listOf("http://example.org", "http://172.32.0.1", "http://11.0.0.1", "http://10.0.0.1.example.org", "http://[2001:db8::1]", "http://local", "http://", "http://10.0.0.256")
        for (address in far) assertThrows(UsageException::class.java, { needsCleartext(address, true) }, address)
    }

    @Test
    fun `an invitation is read as it is pasted or scanned`() {
        assertEquals(Pasted(null, "abc"), readInvitation(" abc\n"))
        assertEquals(Pasted("https://s", "abc"), readInvitation("https://s abc"))
        for (nothing in listOf("", " \n", "https://s", "a b c")) assertNull(readInvitation(nothing), nothing)
    }

    private companion object {
        val TENANTS = ConcurrentLinkedQueue(System.getProperty("edge.invitations").orEmpty().split(";"))
    }
}
