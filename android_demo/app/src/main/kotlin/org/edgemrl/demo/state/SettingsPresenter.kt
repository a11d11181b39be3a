package org.edgemrl.demo.state

import org.edgemrl.android.SyncConditions

/** Light or dark. */
enum class Look { SYSTEM, LIGHT, DARK }

/** What the user chose. */
data class Settings(
    val look: Look = Look.SYSTEM,
    val conditions: SyncConditions = SyncConditions(),
)

/** Where small values are kept, by name. */
interface Values {
    /** A value, or null. */
    fun get(name: String): String?

    /** Keeps values; they are there after a restart. */
    fun put(values: Map<String, String>)
}

/** Reads and writes [Settings]. What cannot be read is as if it were never chosen. */
class SettingsStore(private val values: Values) {
    /** What is chosen now. */
    fun read(): Settings {
        val default = SyncConditions()
        return Settings(
            look = Look.values().firstOrNull { it.name == values.get("look") } ?: Look.SYSTEM,
            conditions = SyncConditions(
                metered = flag("metered", default.metered),
                charging = flag("charging", default.charging),
                batteryLow = flag("battery_low", default.batteryLow),
                periodMinutes = values.get("period_minutes")?.toLongOrNull()
                    ?.takeIf { it >= SyncConditions.LEAST_MINUTES } ?: default.periodMinutes,
            ),
        )
    }

    /** Keeps a choice. */
    fun write(settings: Settings) {
        val conditions = settings.conditions
        values.put(
            mapOf(
                "look" to settings.look.name,
                "metered" to conditions.metered.toString(),
                "charging" to conditions.charging.toString(),
                "battery_low" to conditions.batteryLow.toString(),
                "period_minutes" to conditions.periodMinutes.toString(),
            ),
        )
    }

    private fun flag(name: String, default: Boolean) = values.get(name)?.toBooleanStrictOrNull() ?: default
}

/** The Settings screen. */
class SettingsPresenter(
    private val store: SettingsStore,
    private val reschedule: (SyncConditions) -> Unit,
    private val show: (Settings) -> Unit,
) {
    /** What is chosen now. */
    var settings: Settings = store.read()
        private set

    /** Shows what is chosen. */
    fun open(): Unit = show(settings)

    /** Chooses; jobs in the background follow the new conditions. */
    fun change(next: Settings) {
        if (next == settings) return
        val before = settings
        settings = next
        store.write(next)
        if (next.conditions != before.conditions) reschedule(next.conditions)
        show(next)
    }
}
