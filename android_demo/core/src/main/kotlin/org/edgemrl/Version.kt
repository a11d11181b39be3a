package org.edgemrl

/** The version of this program, as stores and servers are told it. */
internal const val VERSION: String = "0.1.0"
