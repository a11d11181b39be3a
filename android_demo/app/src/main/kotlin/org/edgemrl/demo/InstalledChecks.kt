package org.edgemrl.demo

import java.io.InputStream
import java.util.Locale
import org.edgemrl.GraphException
import org.edgemrl.MissingFileException
import org.edgemrl.demo.state.BundleChecks
import org.edgemrl.demo.state.Check
import org.edgemrl.encode.Encoder
import org.edgemrl.encode.Verification
import org.edgemrl.encode.measureSpeed
import org.edgemrl.encode.verify

/** The checks of the bundle that is installed. */
internal class InstalledChecks(private val application: NotesApplication) : BundleChecks {
    private val folder get() = application.bundles.current() ?: throw MissingFileException("no model is installed")

    override fun name(): String? = application.bundles.describe()

    override fun run(part: Check): String = when (part) {
        Check.FILES -> application.bundles.check().let { "${it.files} files, ${it.bytes} bytes" }
        Check.GOLDEN -> describe(requireVerified(verify(folder, NotesApplication.THREADS)))
        Check.SPEED -> Encoder.open(folder, NotesApplication.THREADS, lowMemory = true, hashes = false).use { encoder ->
            val speed = measureSpeed(encoder)
            String.format(Locale.getDefault(), "%,.0f tokens a second", speed.tokensPerSecond)
        }
    }

    override fun install(zip: () -> InputStream): Unit = application.installModel(zip)

    private fun describe(found: Verification): String {
        val near = found.fullCosineMin ?: found.coarseCosineMin
        return String.format(Locale.getDefault(), "%d texts, least cosine %.5f, %.1f %% of the codes equal", found.texts, near, 100 * found.equalCodes)
    }
}

/** @throws GraphException if a verification found something wrong. */
internal fun requireVerified(found: Verification): Verification {
    if (!found.passed) throw GraphException(found.failures.joinToString("; "))
    return found
}
