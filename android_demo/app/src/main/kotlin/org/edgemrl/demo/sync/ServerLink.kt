package org.edgemrl.demo.sync

import org.edgemrl.sync.Cause

/**
 * What a person gives to join a server.
 *
 * @property server its address, with or without `https://`.
 * @property invitation the one-time secret of the server's operator.
 * @property withText whether the words of the notes are sent too, and not vectors alone.
 * @property cleartext whether `http://` to a machine of the same private network is wanted, where anybody can read along.
 * @property name what people call this phone.
 */
data class Joining(
    val server: String,
    val invitation: String,
    val withText: Boolean = false,
    val cleartext: Boolean = false,
    val name: String = "Android",
)

/** What a run has done so far. */
data class Progress(val sent: Int = 0, val received: Int = 0)

/** A note that is not sent any more, or that arrived and cannot be kept: its first words, and why. */
data class Letter(val words: String, val reason: String, val detail: String)

/**
 * Where the link to a server stands.
 *
 * @property device the phone's name at the server.
 * @property queued changes that wait to be sent.
 * @property running what a run has done so far; null while none runs.
 * @property lastMs when everything was last exchanged, in milliseconds since 1970; null for never.
 * @property cause why the last run ended early; null if it did not.
 * @property said the same in words.
 * @property letters notes that are not sent any more, at most [ServerLink.MOST_LETTERS].
 * @property dead how many of them there are.
 */
data class LinkState(
    val server: String,
    val device: String,
    val queued: Long,
    val running: Progress? = null,
    val lastMs: Long? = null,
    val cause: Cause? = null,
    val said: String? = null,
    val withText: Boolean = true,
    val letters: List<Letter> = emptyList(),
    val dead: Long = 0,
)

/** The notes' link to a server. Calls block, but for [begin] and [stop]; they may come from any thread. */
interface ServerLink {
    /** Called on any thread when a run begins, does something, or ends; null for nobody. */
    var watcher: (() -> Unit)?

    /** Where it stands; null while there is no server. */
    fun state(): LinkState?

    /** Joins a server. Doing so again with the same invitation is harmless. @throws org.edgemrl.EdgeMrlException if it does not work. */
    fun join(wanted: Joining)

    /** Starts a run in the background, unless one runs; [now] whatever the conditions are. */
    fun begin(now: Boolean)

    /** Ends a run that runs, within its request. */
    fun stop()

    /** Sends letters again. Returns how many were queued. */
    fun retryLetters(): Int

    /** Forgets the letters; the notes stay. */
    fun dropLetters()

    /** Leaves the server: the token goes from this phone, and the notes stay. */
    fun leave()

    companion object {
        /** Most letters that a screen shows. */
        const val MOST_LETTERS = 20
    }
}
