package org.edgemrl.demo.state

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

    /** This release cannot run it. */
    object Unsupported : CheckState()
}

/** Looks at the installed bundle. Each call blocks; what it throws means that the part does not hold. */
interface BundleChecks {
    /** The bundle's name, or null if none is installed. */
    fun name(): String?

    /** Runs a part and returns its figures, or null if this release cannot run it. */
    fun run(part: Check): String?
}

/** What the Verify screen shows: [bundle] is null if none is installed. */
data class VerifyState(val bundle: String?, val parts: Map<Check, CheckState>, val running: Boolean)

/** The Verify screen. A part runs only if those before it hold. */
class VerifyPresenter(
    private val checks: BundleChecks,
    private val runner: Runner,
    private val show: (VerifyState) -> Unit,
) {
    private var state = VerifyState(null, Check.values().associateWith { CheckState.Waiting }, false)

    /** Shows the bundle's name. */
    fun open() {
        runner.run({ checks.name() }, { change(state.copy(bundle = null)) }) { change(state.copy(bundle = it)) }
    }

    /** Runs all parts; a call while they run does nothing. */
    fun begin() {
        if (state.running || state.bundle == null) return
        change(state.copy(parts = Check.values().associateWith { CheckState.Waiting }, running = true))
        step(0)
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
            val ended = if (detail == null) CheckState.Unsupported else CheckState.Passed(detail)
            change(state.copy(parts = state.parts + (part to ended)))
            step(index + 1)
        }
    }

    private fun change(next: VerifyState) {
        state = next
        show(next)
    }
}
