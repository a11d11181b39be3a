package org.edgemrl.probe

import java.io.File
import org.edgemrl.bundle.Bundle
import org.edgemrl.bundle.Ed25519
import org.edgemrl.bundle.TrustedKeys
import org.edgemrl.bundle.checkPattern

/** What tests ask of bundles. */
internal val bundleCommands: Map<String, Command> = mapOf(
    "bundle.open" to { arguments ->
        val bundle = Bundle.open(
            File(arguments["path"] as String), arguments["hashes"] as Boolean, (arguments["trust"] as String?)?.let { TrustedKeys.read(File(it)) },
        )
        val head = bundle.head()
        mapOf(
            "digest" to bundle.digest,
            "signer" to bundle.signer,
            "name" to bundle.manifest.name,
            "size_bytes" to bundle.manifest.sizeBytes,
            "dims" to listOf(bundle.manifest.dim, bundle.manifest.fullDim),
            "stored" to bundle.manifest.code.stored,
            "head" to if (head == null) null else listOf(head.rows, head.columns),
            "golden" to bundle.golden().map { mapOf("text" to it.text, "ids" to it.ids.toList(), "source" to it.source.map(Float::toDouble)) },
        )
    },
    "bundle.keys" to { arguments -> TrustedKeys.read(File(arguments["path"] as String)).ids.sorted() },
    "ed25519" to { arguments ->
        (arguments["cases"] as List<*>).map { case -> (case as List<*>).map { decode(it as String) }.let { Ed25519.verify(it[0], it[1], it[2]) } }
    },
    "bundle.pattern" to { arguments -> checkPattern(arguments["pattern"] as String) },
)
