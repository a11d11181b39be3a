package org.edgemrl.search

import org.edgemrl.UsageException
import org.edgemrl.codes.CodeKind
import org.edgemrl.codes.WORD_BITS
import org.edgemrl.shorten
import org.edgemrl.store.Layout

/** Rows that the 1-bit stage passes on where nobody says another number. */
public const val DEFAULT_WIDTH: Int = 5_000

/** From so many rows and dimensions on, half of the bits are compared first, and all bits of so many times the width. */
private const val HALF_FIRST_ROWS = 300_000
private const val HALF_FIRST_DIMS = 256
private const val HALF_FIRST_WIDTH = 4

private val STAGE = Regex("(\\d{1,6})x(1|2|4|8)(?::(\\d{1,9}))?")
private const val FULL = "full"

/**
 * One stage of a funnel: a comparison, and how many of the best it passes on.
 *
 * @property dims the number of leading dimensions that are compared.
 * @property bits 1 compares bits with the query's bits, by Hamming distance; 2, 4 and 8, and 1 in the last
 *   stage, compare stored codes with the query's int8 code, by cosine.
 * @property width the number of rows that are passed on; in the last stage, of documents that are rescored by
 *   full vectors, or null.
 */
public data class Stage(public val dims: Int, public val bits: Int, public val width: Int? = null) {
    override fun toString(): String = "${dims}x$bits${if (width == null) "" else ":$width"}"
}

/**
 * Which codes a search compares, and for how many rows, stage by stage, such as `128x1:5000,128x8`
 * (Kusupati et al., arXiv 2205.13147, section 4.3).
 *
 * @throws UsageException if the stages do not fit together; the message says why.
 */
public data class Funnel(public val stages: List<Stage>) {
    init {
        if (stages.isEmpty()) throw UsageException("the funnel has no stages, expected for example 128x1:5000,128x8")
        for (stage in stages) {
            if (stage.dims < 1 || stage.bits !in listOf(1, 2, 4, 8)) {
                throw UsageException("the funnel has a stage $stage: expected at least 1 dimension, and 1, 2, 4 or 8 bits")
            }
            if (stage.width != null && stage.width < 1) {
                throw UsageException("the funnel has a stage that passes on ${stage.width} rows, expected at least 1")
            }
        }
        if (stages.size > 1 && stages[0].bits != 1) throw UsageException("the funnel's first stage is ${stages[0]}, expected a stage of 1 bit")
        for ((before, after) in stages.zipWithNext()) {
            if (before.width == null) {
                throw UsageException("the stage $before is not the funnel's last and needs a width, for example $before:$DEFAULT_WIDTH")
            }
            if (after.width != null && after.width > before.width) {
                throw UsageException("a stage cannot be wider than the one before it: $after comes after $before")
            }
            if (after.bits < before.bits) {
                throw UsageException("a stage cannot have fewer bits than the one before it: $after comes after $before")
            }
        }
    }

    /** All stages but the last. */
    public val coarse: List<Stage> get() = stages.dropLast(1)

    /** The number of rows whose codes are read: those that the last Hamming stage passes on. */
    public val shortlist: Int get() = coarse.lastOrNull { it.bits == 1 }?.width ?: 0

    /** The number of documents that are rescored by full vectors; null if the funnel does not say. */
    public val rescored: Int? get() = stages.last().width

    override fun toString(): String = stages.joinToString(",") + if (rescored == null) "" else ",$FULL"

    /** @throws UsageException unless codes of this layout can be searched with these stages. */
    internal fun check(layout: Layout) {
        val kind: CodeKind = layout.packing.kind
        val last = stages.last()
        if (last.dims != layout.dim || last.bits != kind.bits) {
            throw UsageException(
                "the funnel $this ends with ${last.dims}x${last.bits}, but the store keeps ${kind.label} codes of ${layout.dim} " +
                    "dimensions: end with ${layout.dim}x${kind.bits}",
            )
        }
        for (stage in stages) {
            if (stage.dims > layout.dim) {
                throw UsageException("the funnel $this compares ${stage.dims} dimensions, but the store's codes have ${layout.dim}")
            }
        }
        for (stage in coarse) {
            if (stage.bits != 1 && stage.bits != kind.bits) {
                throw UsageException(
                    "the funnel $this compares ${stage.bits}-bit codes, but the store keeps ${kind.label} codes: use 1 or ${kind.bits} bits",
                )
            }
            if (stage.bits == 1 && stage.dims % WORD_BITS != 0 && stage.dims != layout.dim) {
                throw UsageException("the funnel $this compares ${stage.dims} bits, expected a multiple of $WORD_BITS, or all ${layout.dim}")
            }
        }
    }

    public companion object {
        /** Reads a funnel from its text, such as `64x1:20000,128x1:5000,128x8`. @throws UsageException if it is none. */
        public fun of(text: String): Funnel {
            val parts = text.split(",").map { it.trim() }
            val full = parts.last() == FULL
            val stages = (if (full) parts.dropLast(1) else parts).map { part ->
                val match = STAGE.matchEntire(part) ?: throw UsageException(
                    "the funnel has a stage ${shorten(part)}, expected DIMSxBITS:WIDTH such as 128x1:5000, with 1, 2, 4 or 8 bits; " +
                        "the last stage has no width, or is followed by full",
                )
                val (dims, bits, width) = match.destructured
                Stage(dims.toInt(), bits.toInt(), width.ifEmpty { null }?.toInt())
            }
            if (stages.isNotEmpty() && full != (stages.last().width != null)) {
                throw UsageException("the funnel's last stage is ${stages.last()}, expected no width, or a width followed by full")
            }
            return Funnel(stages)
        }

        /** Compares the bits of all rows, then the whole codes of the best; half of the bits first in a large store of long codes. */
        internal fun default(layout: Layout, width: Int, rows: Int): Funnel {
            val last = listOf(Stage(layout.dim, 1, width), Stage(layout.dim, layout.packing.kind.bits))
            if (rows < HALF_FIRST_ROWS || layout.dim < HALF_FIRST_DIMS) return Funnel(last)
            val half = (layout.dim + 2 * WORD_BITS - 1) / (2 * WORD_BITS) * WORD_BITS
            return Funnel(listOf(Stage(half, 1, HALF_FIRST_WIDTH * width)) + last)
        }
    }
}
