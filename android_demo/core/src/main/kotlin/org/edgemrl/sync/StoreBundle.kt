package org.edgemrl.sync

import org.edgemrl.bundle.Manifest
import org.edgemrl.bundle.Matrix
import org.edgemrl.bundle.readHead
import org.edgemrl.encode.codeOf
import org.edgemrl.encode.manifestOf
import org.edgemrl.findBundle
import org.edgemrl.store.Store

/**
 * The bundle of a store, as a pull needs it; no model is loaded.
 *
 * @throws org.edgemrl.UsageException if it is not where it was.
 */
internal class StoreBundle(store: Store) {
    private val folder = findBundle(store)
    val manifest: Manifest = manifestOf(folder)

    /** The head's matrix, float32[D, dim]; null if the head is the prefix. */
    val head: Matrix? by lazy { readHead(folder, manifest) }

    /** The code, int8[dim], of a full vector of unit length, as the bundle's graph makes it. */
    fun codeOf(full: FloatArray): ByteArray = codeOf(full, head, manifest)
}
