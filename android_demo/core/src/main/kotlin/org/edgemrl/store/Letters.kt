package org.edgemrl.store

import org.edgemrl.Document

/**
 * What waits to be sent.
 *
 * @property items number of documents and deletions.
 * @property sizeBytes bytes of the full vectors that are kept for them.
 * @property oldestMs since when the oldest one waits, in milliseconds since 1970; null if nothing waits.
 */
public data class Queue(public val items: Long, public val sizeBytes: Long, public val oldestMs: Long?)

/**
 * A version that is not sent any more, or one of another device that cannot be stored here.
 *
 * @property id the document.
 * @property reason `invalid`, `too_large` or `forbidden`, if the server refused it, or what stands between;
 *     `no_vectors`, if its text is not on this device, or cannot be embedded; `deleted_elsewhere`, if another
 *     device deleted the document; `replaced_elsewhere`, if another device wrote another text under this id,
 *     and this is the one that was here; `unreadable`, if another device's version arrived and cannot be
 *     stored; `lost`, if a restored server lacks another device's version, and nothing here could send it;
 *     `damaged`, if the document, or what is known of the version, is not what was stored.
 * @property sinceMs since when it is a dead letter, in milliseconds since 1970.
 * @property deleted whether the version is a deletion.
 * @property document the document; null for a deletion, and where it is not here.
 * @property stamp the stamp of the version.
 * @property device the device that wrote the version; empty for this one.
 * @property detail what was said about it, for people; empty for nothing.
 */
public data class DeadLetter(
    public val id: String,
    public val reason: String,
    public val sinceMs: Long,
    public val deleted: Boolean,
    public val document: Document?,
    public val stamp: Long = 0,
    public val device: String = "",
    public val detail: String = "",
)
