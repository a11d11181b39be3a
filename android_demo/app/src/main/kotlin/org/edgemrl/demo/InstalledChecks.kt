package org.edgemrl.demo

import org.edgemrl.android.FolderSource
import org.edgemrl.demo.state.BundleChecks
import org.edgemrl.demo.state.Check

/** The checks of the bundle that is installed. */
internal class InstalledChecks(private val application: NotesApplication) : BundleChecks {
    override fun name(): String? = application.bundles.describe()

    override fun run(part: Check): String? = when (part) {
        Check.FILES -> application.bundles.check().let { "${it.files} files, ${it.bytes} bytes" }
        Check.GOLDEN, Check.SPEED -> null
    }
}
