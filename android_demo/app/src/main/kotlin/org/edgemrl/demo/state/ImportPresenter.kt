package org.edgemrl.demo.state

import java.io.IOException
import java.io.InputStream
import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException
import java.nio.charset.CodingErrorAction
import org.edgemrl.demo.notes.Note
import org.edgemrl.demo.notes.Notebook

/**
 * A file of a folder that the user chose.
 *
 * @property path its path below that folder.
 * @property changedMs when it was changed, in milliseconds since 1970; 0 if that is not known.
 */
class ImportedFile(val path: String, val changedMs: Long, val open: () -> InputStream)

/**
 * How far an import is.
 *
 * @property skipped paths of files that are no text, or too long, with the reason.
 * @property message why it failed, or null.
 */
data class ImportState(
    val running: Boolean,
    val read: Int,
    val skipped: List<Pair<String, Skipped>>,
    val message: String? = null,
)

/** Why a file was not imported. */
enum class Skipped { NO_TEXT, EMPTY, TOO_LONG, UNREADABLE }

/** Reads a folder of texts into the notebook. Reading it again replaces the notes of the same files. */
class ImportPresenter(
    private val notebook: () -> Notebook,
    private val runner: Runner,
    private val clock: () -> Long,
    private val show: (ImportState) -> Unit,
) {
    @Volatile
    private var stopped = false

    /** Begins. [folder] names the chosen folder in the notes' ids; [files] lists it, in the background. */
    fun begin(folder: String, files: () -> Sequence<ImportedFile>) {
        stopped = false
        show(ImportState(true, 0, emptyList()))
        var last = ImportState(true, 0, emptyList())
        runner.run({ readAll(folder, files()) { last = it } }, { error ->
            show(last.copy(running = false, message = error.message ?: error.javaClass.simpleName))
        }) { show(it) }
    }

    /** Ends after the present file; what was read stays. */
    fun stop() {
        stopped = true
    }

    private fun readAll(folder: String, files: Sequence<ImportedFile>, note: (ImportState) -> Unit): ImportState {
        val skipped = ArrayList<Pair<String, Skipped>>()
        val waiting = ArrayList<Note>()
        var count = 0
        for (file in files) {
            if (stopped) break
            when (val read = read(file)) {
                is Content.Text -> waiting.add(Note("$folder/${file.path}", read.text, file.changedMs.takeIf { it > 0 } ?: clock()))
                is Content.None -> skipped.add(file.path to read.reason)
            }
            if (waiting.size == BATCH) {
                notebook().put(waiting)
                count += waiting.size
                waiting.clear()
            }
            val state = ImportState(true, count + waiting.size, skipped.toList())
            note(state)
            runner.screen.execute { show(state) }
        }
        notebook().put(waiting)
        return ImportState(false, count + waiting.size, skipped)
    }

    private sealed class Content {
        class Text(val text: String) : Content()

        class None(val reason: Skipped) : Content()
    }

    private fun read(file: ImportedFile): Content {
        if (file.path.substringAfterLast('.', "").lowercase() !in ENDINGS) return Content.None(Skipped.NO_TEXT)
        val bytes = try {
            file.open().use { readUpTo(it, MOST_BYTES) }
        } catch (e: IOException) {
            return Content.None(Skipped.UNREADABLE)
        } catch (e: SecurityException) {
            return Content.None(Skipped.UNREADABLE)
        } ?: return Content.None(Skipped.TOO_LONG)
        val decoder = Charsets.UTF_8.newDecoder()
            .onMalformedInput(CodingErrorAction.REPORT)
            .onUnmappableCharacter(CodingErrorAction.REPORT)
        val text = try {
            decoder.decode(ByteBuffer.wrap(bytes)).toString().removePrefix("\uFEFF")
        } catch (e: CharacterCodingException) {
            return Content.None(Skipped.NO_TEXT)
        }
        return when {
            '\u0000' in text -> Content.None(Skipped.NO_TEXT)
            text.isBlank() -> Content.None(Skipped.EMPTY)
            else -> Content.Text(text)
        }
    }

    companion object {
        /** Endings of names that are read. */
        val ENDINGS = setOf("txt", "md", "markdown", "text")

        /** Longest file that is read. */
        const val MOST_BYTES = 1_000_000

        /** Notes that are written together. */
        const val BATCH = 32
    }
}

/** All bytes of a stream, or null if it has more than [most]. */
private fun readUpTo(stream: InputStream, most: Int): ByteArray? {
    val out = java.io.ByteArrayOutputStream()
    val buffer = ByteArray(1 shl 16)
    while (true) {
        val count = stream.read(buffer)
        if (count < 0) return out.toByteArray()
        if (out.size() + count > most) return null
        out.write(buffer, 0, count)
    }
}
