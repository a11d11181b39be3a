package org.edgemrl.encode

import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtSession
import ai.onnxruntime.TensorInfo
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.LongBuffer
import java.util.concurrent.ExecutorService
import java.util.concurrent.Executors
import java.util.concurrent.Future
import org.edgemrl.BundleException
import org.edgemrl.EncoderException
import org.edgemrl.GraphException
import org.edgemrl.UsageException
import org.edgemrl.bundle.Bundle
import org.edgemrl.bundle.brief
import org.edgemrl.bundle.isLink

/** What the graph gives for a batch: codes int8[n, dim], full vectors float32[n, D] or null, in C order. */
internal class Outputs(val coarse: ByteArray, val full: FloatArray?)

/** How far the length of a full vector may be from 1: graphs divide by it in float32. */
private const val LENGTH_ERROR = 0.01

/** A single batch of texts of so many tokens or more is worth splitting between threads. */
private const val WIDE_TOKENS = 128

/**
 * The graph in ONNX Runtime: one thread for each batch, several batches at the same time. A single long batch
 * is split between threads by a second session, which is opened when it is first needed.
 *
 * ONNX Runtime opens the files by their path and maps the weights, so that they are not on Java's heap.
 * Nothing but this app may write to the folder meanwhile.
 */
internal class GraphSession(private val bundle: Bundle, val threads: Int, private val lowMemory: Boolean) {
    private val manifest = bundle.manifest
    private val lock = Any()
    private var narrow: OrtSession? = open(1)
    private var wide: OrtSession? = null
    private var pool: ExecutorService? = null

    init {
        try {
            checkGraph(narrow!!)
        } catch (e: BundleException) {
            close()
            throw e
        }
    }

    /** Runs batches, several at the same time; the outputs are in the order of the batches. */
    fun runAll(batches: List<List<LongArray>>, each: (Int, Outputs) -> Unit) {
        val session = session()
        val longest = batches.maxOfOrNull { rows -> rows.maxOf { it.size } } ?: 0
        if (batches.size < threads && longest >= WIDE_TOKENS) {
            val split = widened()
            return batches.forEachIndexed { i, rows -> each(i, run(split, rows)) }
        }
        if (batches.size < 2 || threads < 2) return batches.forEachIndexed { i, rows -> each(i, run(session, rows)) }
        val waiting = batches.map { rows -> workers().submit<Outputs> { run(session, rows) } }
        try {
            waiting.forEachIndexed { i, one -> each(i, result(one)) }
        } finally {
            for (one in waiting) one.cancel(false)
        }
    }

    /** Runs token ids as one batch. */
    fun run(rows: List<LongArray>): Outputs = run(session(), rows)

    /** Frees the weights and ends the threads. No batch may run meanwhile. */
    fun close() {
        synchronized(lock) {
            pool?.shutdown()
            narrow?.close()
            wide?.close()
            pool = null
            narrow = null
            wide = null
        }
    }

    private fun session(): OrtSession = synchronized(lock) { narrow } ?: throw UsageException("the encoder is closed: open it again")

    private fun widened(): OrtSession = synchronized(lock) {
        if (narrow == null) throw UsageException("the encoder is closed: open it again")
        wide ?: open(threads).also { wide = it }
    }

    private fun workers(): ExecutorService = synchronized(lock) {
        pool ?: Executors.newFixedThreadPool(threads) { job -> Thread(job, "edge-mrl").also { it.isDaemon = true } }.also { pool = it }
    }

    private fun result(waiting: Future<Outputs>): Outputs = try {
        waiting.get()
    } catch (e: java.util.concurrent.ExecutionException) {
        throw e.cause ?: e
    }

    private fun open(threads: Int): OrtSession {
        val linked = manifest.files.keys.filter { isLink(bundle.folder, it) }
        if (linked.isNotEmpty()) {
            throw BundleException("${linked.joinToString()} of the bundle ${bundle.folder} are links: copy the bundle as files")
        }
        val environment = OrtRuntime.environment()
        try {
            OrtSession.SessionOptions().use { options ->
                // The graph was optimised at export. Optimising it at each start would cost more than it gains.
                options.setOptimizationLevel(OrtSession.SessionOptions.OptLevel.NO_OPT)
                options.setIntraOpNumThreads(threads)
                // Threads that spin between batches drain the battery.
                options.addConfigEntry("session.intra_op.allow_spinning", "0")
                if (lowMemory) {
                    options.setCPUArenaAllocator(false)
                    options.setMemoryPatternOptimization(false)
                }
                return environment.createSession(bundle.graph.path, options)
            }
        } catch (e: OrtException) {
            throw BundleException("the bundle ${bundle.folder} cannot be opened: ${brief(e.message)}", e)
        }
    }

    private fun run(session: OrtSession, rows: List<LongArray>): Outputs {
        val longest = maxOf(1, rows.maxOfOrNull { it.size } ?: 1)
        val ids = longs(rows.size * longest)
        val mask = longs(rows.size * longest)
        for ((n, row) in rows.withIndex()) {
            for (i in 0 until longest) {
                ids.put(n * longest + i, if (i < row.size) row[i] else manifest.padding.id.toLong())
                mask.put(n * longest + i, if (i < row.size) 1 else 0)
            }
        }
        val shape = longArrayOf(rows.size.toLong(), longest.toLong())
        val environment = OrtRuntime.environment()
        try {
            OnnxTensor.createTensor(environment, ids, shape).use { idTensor ->
                OnnxTensor.createTensor(environment, mask, shape).use { maskTensor ->
                    val inputs = mapOf("input_ids" to idTensor, "attention_mask" to maskTensor)
                    session.run(inputs, manifest.outputs.keys).use { return outputs(it, rows.size) }
                }
            }
        } catch (e: OrtException) {
            throw EncoderException("the bundle's graph cannot read this text: ${brief(e.message)}", e)
        }
    }

    private fun longs(count: Int): LongBuffer = ByteBuffer.allocateDirect(8 * count).order(ByteOrder.nativeOrder()).asLongBuffer()

    /** Copies the outputs, and checks that they can be vectors: nothing else could be found again. */
    private fun outputs(result: OrtSession.Result, count: Int): Outputs {
        var coarse: ByteArray? = null
        var full: FloatArray? = null
        for ((name, value) in result) { // Result.get(name) needs java.util.Optional
            if (name == "coarse") coarse = ByteArray(count * manifest.dim).also { (value as OnnxTensor).byteBuffer.get(it) }
            if (name == "full") full = FloatArray(count * (manifest.fullDim ?: 0)).also { (value as OnnxTensor).floatBuffer.get(it) }
        }
        var wrong = if (coarse!!.any { it < -127 }) "codes out of range" else ""
        val width = manifest.fullDim
        if (full != null && width != null && !(0 until count).all { isVector(full, it * width, width) }) {
            wrong = "vectors that are not finite or not of unit length"
        }
        if (wrong.isNotEmpty()) {
            throw EncoderException("the bundle's graph gives $wrong for this text: `edge-mrl verify` checks the bundle")
        }
        return Outputs(coarse, full)
    }

    private fun isVector(values: FloatArray, start: Int, width: Int): Boolean {
        var squares = 0.0
        for (i in start until start + width) squares += values[i].toDouble() * values[i]
        // Not "> LENGTH_ERROR": a comparison with NaN is false.
        return squares == 0.0 || Math.abs(squares - 1) <= 2 * LENGTH_ERROR
    }

    /** Compares the graph's inputs and outputs with the manifest's. */
    private fun checkGraph(session: OrtSession) {
        val inputs = session.inputInfo.keys.toList()
        val outputs = session.outputInfo.mapValues { (_, node) -> node.info as? TensorInfo }
        val types = outputs.mapValues { (_, info) ->
            when (info?.type) {
                OnnxJavaType.INT8 -> "int8"
                OnnxJavaType.FLOAT -> "float32"
                else -> "${info?.type}"
            }
        }
        if (inputs != manifest.inputs || types != manifest.outputs) {
            throw GraphException("the graph has $inputs -> $types, expected ${manifest.inputs} -> ${manifest.outputs}")
        }
        val promised = mapOf("coarse" to manifest.dim, "full" to manifest.fullDim)
        val wrong = outputs.mapValues { (_, info) -> info!!.shape.lastOrNull() }.filter { (name, width) -> width != promised[name]?.toLong() }
        if (wrong.isNotEmpty()) throw GraphException("the graph's outputs are $wrong wide, the manifest says $promised")
    }
}
