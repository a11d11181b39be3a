package org.edgemrl.android

import android.content.res.AssetManager
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.util.zip.ZipEntry
import java.util.zip.ZipInputStream

/** Where the files of a bundle come from. */
public fun interface BundleSource {
    /**
     * Gives each file once, in any order.
     *
     * @param take is given a file's name and its bytes, which it reads before it returns.
     * @throws IOException if a file cannot be read.
     */
    public fun read(take: (name: String, data: InputStream) -> Unit)
}

/** The files of a folder of the app's assets. */
public class AssetSource(private val assets: AssetManager, private val folder: String = "bundle") : BundleSource {
    override fun read(take: (name: String, data: InputStream) -> Unit) {
        val names = assets.list(folder).orEmpty()
        if (names.isEmpty()) throw IOException("the app has no folder $folder in its assets: it was built without a bundle")
        for (name in names) assets.open("$folder/$name").use { take(name, it) }
    }
}

/** The files of a folder on disk. */
public class FolderSource(private val folder: File) : BundleSource {
    override fun read(take: (name: String, data: InputStream) -> Unit) {
        val files = folder.listFiles() ?: throw IOException("no folder $folder")
        for (file in files.sorted()) if (file.isFile) file.inputStream().use { take(file.name, it) }
    }
}

/**
 * A zip of a bundle. Its files may all lie in one folder, as a zip of a folder has them.
 *
 * @param open opens the zip from its beginning.
 */
public class ZipSource(private val open: () -> InputStream) : BundleSource {
    override fun read(take: (name: String, data: InputStream) -> Unit) {
        var parent: String? = null
        ZipInputStream(open()).use { zip ->
            while (true) {
                val entry: ZipEntry = zip.nextEntry ?: break
                if (entry.isDirectory) continue
                val folder = entry.name.substringBeforeLast('/', "")
                if (parent == null) parent = folder
                if (folder != parent || '/' in folder) {
                    throw IOException("the zip has ${entry.name} beside $parent/: expected the files of one bundle in one folder")
                }
                take(entry.name.substringAfterLast('/'), zip)
            }
        }
        if (parent == null) throw IOException("the zip is empty, or no zip")
    }
}
