package org.edgemrl.sync

import org.edgemrl.store.Store
import org.edgemrl.store.replica.drawMark
import org.edgemrl.store.replica.keepReceipt

/** A store's marks during one run (FORMAT.md, "Copies"). For one thread at a time. */
internal class Marks(private val store: Store) {
    private var marks = drawMark(store)
    private var known = false

    /** The last receipt of the server. */
    var receipt: String? = null

    /** What requests carry: the newest mark first. */
    val header: String get() = marks.joinToString("-")

    /** Notes that the server has the newest mark: an answer came to a request that had it. */
    fun answered() {
        known = true
    }

    /** Draws another mark: the server has the newest one, and is not sure what to make of it. */
    fun step() {
        marks = drawMark(store, known = marks[0])
    }

    /** Writes down what this run has learned. */
    fun keep() {
        if (!known && receipt == null) return
        keepReceipt(store, receipt, if (known) marks[0] else null)
        known = false
        receipt = null
    }
}
