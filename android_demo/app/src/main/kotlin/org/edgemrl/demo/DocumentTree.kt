package org.edgemrl.demo

import android.content.ContentResolver
import android.net.Uri
import android.provider.DocumentsContract
import android.provider.DocumentsContract.Document
import java.io.FileNotFoundException
import org.edgemrl.demo.state.ImportedFile

/** The files below a folder that the user chose, in the order of their paths. */
internal class DocumentTree(private val resolver: ContentResolver, private val tree: Uri) {
    /** All files; folders are listed as they are come to. */
    fun files(): Sequence<ImportedFile> = below(DocumentsContract.getTreeDocumentId(tree), "", 0)

    private fun below(folder: String, prefix: String, depth: Int): Sequence<ImportedFile> = sequence {
        for (child in children(folder)) {
            val path = prefix + child.name
            if (!child.isFolder) {
                yield(ImportedFile(path, child.changedMs) { open(child.id) })
            } else if (depth < MOST_DEPTH) {
                yieldAll(below(child.id, "$path/", depth + 1))
            }
        }
    }

    private fun open(id: String) = resolver.openInputStream(DocumentsContract.buildDocumentUriUsingTree(tree, id))
        ?: throw FileNotFoundException(id)

    private class Child(val id: String, val name: String, val isFolder: Boolean, val changedMs: Long)

    private fun children(folder: String): List<Child> {
        val wanted = arrayOf(
            Document.COLUMN_DOCUMENT_ID,
            Document.COLUMN_DISPLAY_NAME,
            Document.COLUMN_MIME_TYPE,
            Document.COLUMN_LAST_MODIFIED,
        )
        val found = ArrayList<Child>()
        val uri = DocumentsContract.buildChildDocumentsUriUsingTree(tree, folder)
        resolver.query(uri, wanted, null, null, null)?.use { rows ->
            while (rows.moveToNext()) {
                val name = rows.getString(1).orEmpty()
                found.add(Child(rows.getString(0), name, rows.getString(2) == Document.MIME_TYPE_DIR, rows.getLong(3)))
            }
        }
        return found.sortedBy { it.name }
    }

    private companion object {
        /** Folders within folders that are read: a provider may list a folder within itself. */
        const val MOST_DEPTH = 16
    }
}
