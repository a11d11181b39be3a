package org.edgemrl.demo

import android.os.Bundle
import android.widget.RadioButton
import android.widget.RadioGroup
import org.edgemrl.demo.state.Look
import org.edgemrl.demo.state.SettingsPresenter
import org.edgemrl.demo.ui.Screen
import org.edgemrl.demo.ui.checkBox
import org.edgemrl.demo.ui.dp
import org.edgemrl.demo.ui.heading

/** Look, and conditions of the exchange. */
class SettingsActivity : Screen() {
    private lateinit var presenter: SettingsPresenter

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        presenter = SettingsPresenter(notes.settings, { notes.reschedule(it) }) {}
        val wanted = presenter.settings.conditions
        show(
            R.string.settings_title,
            column(
                heading(R.string.settings_look),
                looks(),
                heading(R.string.settings_sync),
                checkBox(R.string.settings_metered, wanted.metered) { on -> conditions { it.copy(metered = on) } },
                checkBox(R.string.settings_charging, wanted.charging) { on -> conditions { it.copy(charging = on) } },
                checkBox(R.string.settings_battery, wanted.batteryLow) { on -> conditions { it.copy(batteryLow = on) } },
            ),
        )
    }

    private fun conditions(change: (org.edgemrl.android.SyncConditions) -> org.edgemrl.android.SyncConditions) {
        val now = presenter.settings
        presenter.change(now.copy(conditions = change(now.conditions)))
    }

    private fun looks() = RadioGroup(this).apply {
        val names = mapOf(Look.SYSTEM to R.string.look_system, Look.LIGHT to R.string.look_light, Look.DARK to R.string.look_dark)
        for ((look, name) in names) {
            addView(
                RadioButton(context).apply {
                    id = look.ordinal + 1
                    setText(name)
                    minHeight = dp(48)
                },
            )
        }
        check(presenter.settings.look.ordinal + 1)
        setOnCheckedChangeListener { _, chosen ->
            presenter.change(presenter.settings.copy(look = Look.values()[chosen - 1]))
            recreate()
        }
    }
}
