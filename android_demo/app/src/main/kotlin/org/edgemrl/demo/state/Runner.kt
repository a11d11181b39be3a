package org.edgemrl.demo.state

import java.util.concurrent.Executor

/**
 * Where work is done, and where its results are shown.
 *
 * @property background one thread after another, not that of the screen.
 * @property screen the thread of the views.
 */
class Runner(val background: Executor, val screen: Executor) {
    /** Does work in the background and shows its result; what it throws goes to [failed]. */
    fun <T> run(work: () -> T, failed: (Exception) -> Unit, done: (T) -> Unit) {
        background.execute {
            val result = try {
                work()
            } catch (e: Exception) {
                screen.execute { failed(e) }
                return@execute
            }
            screen.execute { done(result) }
        }
    }
}
