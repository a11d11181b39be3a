import java.io.File;
import java.io.FileInputStream;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.X509Certificate;
import java.util.List;
import shadow.bundletool.com.android.apksig.ApkSigner;
import shadow.bundletool.com.android.apksig.ApkVerifier;

/** Signs an APK by the schemes 2 and 3, then verifies it. Takes: in, out, key store, least API. The password is in the environment. */
public final class Sign {
    public static void main(String[] arguments) throws Exception {
        char[] password = System.getenv("EDGE_MRL_KEY_PASSWORD").toCharArray();
        int least = Integer.parseInt(arguments[3]);
        KeyStore keys = KeyStore.getInstance("PKCS12");
        try (FileInputStream file = new FileInputStream(arguments[2])) {
            keys.load(file, password);
        }
        String alias = keys.aliases().nextElement();
        PrivateKey key = (PrivateKey) keys.getKey(alias, password);
        X509Certificate certificate = (X509Certificate) keys.getCertificate(alias);
        ApkSigner.SignerConfig signer = new ApkSigner.SignerConfig.Builder("edge-mrl", key, List.of(certificate)).build();
        File target = new File(arguments[1]);
        new ApkSigner.Builder(List.of(signer))
            .setInputApk(new File(arguments[0]))
            .setOutputApk(target)
            .setMinSdkVersion(least)
            .setV1SigningEnabled(false)
            .setV2SigningEnabled(true)
            .setV3SigningEnabled(true)
            .setV4SigningEnabled(false)
            .build()
            .sign();
        ApkVerifier.Result result = new ApkVerifier.Builder(target).setMinCheckedPlatformVersion(least).build().verify();
        if (!result.isVerified() || !result.isVerifiedUsingV2Scheme() || !result.isVerifiedUsingV3Scheme()) {
            throw new IllegalStateException("the signed APK does not verify: " + result.getErrors());
        }
    }
}
