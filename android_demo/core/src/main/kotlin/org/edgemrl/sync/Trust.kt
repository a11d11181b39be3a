package org.edgemrl.sync

import java.io.File
import java.io.IOException
import java.security.GeneralSecurityException
import java.security.KeyStore
import java.security.cert.CertificateFactory
import javax.net.ssl.SSLContext
import javax.net.ssl.SSLSocketFactory
import javax.net.ssl.TrustManagerFactory
import org.edgemrl.UsageException

/** Sockets that trust the certificates of a file (PEM) and no others. @throws UsageException if the file has none. */
internal fun trust(ca: String): SSLSocketFactory {
    try {
        val found = File(ca).inputStream().use { CertificateFactory.getInstance("X.509").generateCertificates(it) }
        if (found.isEmpty()) throw IOException("it is empty")
        val keys = KeyStore.getInstance(KeyStore.getDefaultType()).also { it.load(null, null) }
        found.forEachIndexed { i, one -> keys.setCertificateEntry("ca$i", one) }
        val managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm()).also { it.init(keys) }.trustManagers
        return SSLContext.getInstance("TLS").also { it.init(null, managers, null) }.socketFactory
    } catch (e: IOException) {
        throw UsageException("ca $ca: this file has no certificates (${e.message})")
    } catch (e: GeneralSecurityException) {
        throw UsageException("ca $ca: this file has no certificates (${e.message})")
    }
}
