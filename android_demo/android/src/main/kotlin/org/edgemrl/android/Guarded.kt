package org.edgemrl.android

/**
 * Marks code that uses an API newer than the oldest Android the app runs on, and that is called only where
 * `Build.VERSION.SDK_INT` says it is there. The build's lint passes over it.
 *
 * @property since the level from which on the code may be called.
 */
@Retention(AnnotationRetention.BINARY)
@Target(AnnotationTarget.CLASS, AnnotationTarget.FUNCTION, AnnotationTarget.CONSTRUCTOR)
public annotation class Guarded(val since: Int)
