package org.edgemrl.demo.state

import java.io.InputStream

/** A part of the proof that this phone runs the model as the exporting machine did. */
enum class Check { FILES, GOLDEN, SPEED }

/** How a part ended. */
sealed class CheckState {
    /** It was not run yet. */
    object Waiting : CheckState()

    /** It runs. */
    object Running : CheckState()

    /** It holds; [detail] has its figures. */
    data class Passed(val detail: String) : CheckState()

    /** It does not hold: the model must not be trusted. */
    data class Failed(val message: String) : CheckState()
}

/** Looks at the installed bundle. Each call blocks; what it throws means that the part does not hold. */
interface BundleChecks {
    /** The bundle's name, or null if none is installed. */
    fun name(): String?

    /** Runs a part and returns its figures. */
    fun run(part: Check): String

    /** Installs another bundle out of a zip, if this phone verifies it; else the present one stays. */
    fun install(zip: () -> InputStream)
}

/**
 * What the Verify screen shows.
 *
 * @property bundle the bundle's name; null if none is installed.
 * @property problem why another bundle was not installed, or null.
 */
data class VerifyState(val bundle: String?, val parts: Map<Check, CheckState>, val running: Boolean, val problem: String? = null)

/** The Verify screen. A part runs only if those before it hold. */
class VerifyPresenter(
    private val checks: BundleChecks,
    private val runner: Runner,
    private val show: (VerifyState) -> Unit,
) {
    private var state = VerifyState(null, NONE_RUN, false)

    /** Shows the bundle's name. */
    fun open() {
        runner.run({ checks.name() }, { change(state.copy(bundle = null)) }) { change(state.copy(bundle = it)) }
    }

    /** Runs all parts; a call while they run does nothing. */
    fun begin() {
        if (state.running || state.bundle == null) return
        change(state.copy(parts = NONE_RUN, running = true, problem = null))
        step(0)
    }

    /** Installs another bundle; a call while something runs does nothing. */
    fun install(zip: () -> InputStream) {
        if (state.running) return
        change(state.copy(running = true, problem = null))
        runner.run({
            checks.install(zip)
            checks.name()
        }, { error -> change(state.copy(running = false, problem = error.message ?: error.javaClass.simpleName)) }) { name ->
            change(VerifyState(name, NONE_RUN, false))
        }
    }

    private fun step(index: Int) {
        val part = Check.values().getOrNull(index)
        if (part == null) {
            change(state.copy(running = false))
            return
        }
        change(state.copy(parts = state.parts + (part to CheckState.Running)))
        runner.run({ checks.run(part) }, { error ->
            val failed = CheckState.Failed(error.message ?: error.javaClass.simpleName)
            change(state.copy(parts = state.parts + (part to failed), running = false))
        }) { detail ->
            change(state.copy(parts = state.parts + (part to CheckState.Passed(detail))))
            step(index + 1)
        }
    }

    private fun change(next: VerifyState) {
        state = next
        show(next)
    }

    private companion object {
        val NONE_RUN: Map<Check, CheckState> = Check.values().associateWith { CheckState.Waiting }
    }
}
