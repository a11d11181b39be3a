package org.edgemrl

/**
 * Base of all errors that edge-mrl throws on purpose. The tree is that of the Python package, with the
 * same names, so that a message found in one language is found in the other.
 */
public open class EdgeMrlException(message: String, cause: Throwable? = null) : RuntimeException(message, cause)

/** Wrong usage or input: the message says what was expected and what was given. */
public open class UsageException(message: String) : EdgeMrlException(message)

/** A store that is not enrolled with a server. */
public class NotEnrolledException(store: java.io.File) : UsageException("$store is not enrolled: call `enroll` with a server's address and an invitation first")

/** There is no store at this path; the message says how to make one. */
public class NoStoreException(message: String) : UsageException(message)

/**
 * Documents whose texts a bundle cannot take were left out; all others were stored.
 *
 * @property stored what was stored; its `refused` lists what was not.
 */
public class RefusedDocumentsException(message: String, public val stored: Stored) : UsageException(message)

/** A bundle that cannot be trusted. */
public open class BundleException(message: String, cause: Throwable? = null) : EdgeMrlException(message, cause)

/** A file that the manifest lists is missing. */
public class MissingFileException(message: String) : BundleException(message)

/** A file's size differs from the one in the manifest. */
public class TruncatedException(message: String) : BundleException(message)

/** A file's SHA-256 differs from the one in the manifest. */
public class HashException(message: String) : BundleException(message)

/** A format or version that this release cannot read. */
public class FormatException(message: String, cause: Throwable? = null) : BundleException(message, cause)

/** A manifest with a missing, unknown or wrongly typed key. */
public class ManifestException(message: String) : BundleException(message)

/** A graph with other parts, inputs or outputs than FORMAT.md describes. */
public class GraphException(message: String, cause: Throwable? = null) : BundleException(message, cause)

/** A tokenizer with parts that no bundle has, or that this release does not support. */
public class TokenizerException(message: String) : BundleException(message)

/** A bundle that no trusted key has signed, or that was changed since. */
public class SignatureException(message: String) : BundleException(message)

/** A text that the bundle's tokenizer or graph cannot encode, or not into finite numbers. */
public class EncoderException(message: String, cause: Throwable? = null) : EdgeMrlException(message, cause)

/** A store that cannot be used. */
public open class StoreException(message: String, cause: Throwable? = null) : EdgeMrlException(message, cause)

/** A file that edge-mrl did not write; it is left untouched. */
public class NotAStoreException(message: String, cause: Throwable? = null) : StoreException(message, cause)

/** A store that was made with another embedding space or another code. */
public class BindingException(message: String) : StoreException(message)

/** A store that a newer edge-mrl wrote. */
public class StoreVersionException(message: String) : StoreException(message)

/** An encrypted store without its key, or with another one; or a key for a store that needs none. */
public class StoreKeyException(message: String) : StoreException(message)

/** Stored bytes do not match their checksum; `check` says which. */
public class DamagedException(message: String, cause: Throwable? = null) : StoreException(message, cause)

/** Another process holds the store's write lock. */
public class StoreBusyException(message: String, cause: Throwable? = null) : StoreException(message, cause)

/** Bytes from another machine that are not a message of the protocol (FORMAT.md, "Wire"). */
public class WireException(message: String, cause: Throwable? = null) : EdgeMrlException(message, cause)

/**
 * A server could not be reached.
 *
 * @property retryAfterS seconds to wait before the next request, if the server asked for that; else null.
 */
public open class NetworkException(
    message: String,
    cause: Throwable? = null,
    public val retryAfterS: Double? = null,
) : EdgeMrlException(message, cause)

/**
 * A server was reached and refused the request.
 *
 * @property status the HTTP status.
 * @property code the kind of refusal, as FORMAT.md, "Wire", lists them.
 * @property details everything the server said about it, by name.
 */
public class ServerException(
    message: String,
    public val status: Int,
    public val code: String = "unknown",
    public val details: Map<String, Any?> = emptyMap(),
    retryAfterS: Double? = null,
) : NetworkException(message, null, retryAfterS)

/**
 * What stands between this device and a server answered in its place: a proxy, a login page.
 *
 * @property status the HTTP status.
 */
public class IntermediaryException(message: String, public val status: Int, retryAfterS: Double? = null) : NetworkException(message, null, retryAfterS)

/** An answer of more bytes than any right one of its kind has; it was not read to its end. */
public class OversizedAnswerException(message: String, retryAfterS: Double? = null) : NetworkException(message, null, retryAfterS)
