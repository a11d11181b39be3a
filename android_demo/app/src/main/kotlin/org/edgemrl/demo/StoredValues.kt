package org.edgemrl.demo

import android.content.Context
import org.edgemrl.demo.state.Values

/** Small values in the app's preferences. */
internal class StoredValues(context: Context) : Values {
    private val preferences = context.getSharedPreferences("settings", Context.MODE_PRIVATE)

    override fun get(name: String): String? = preferences.getString(name, null)

    override fun put(values: Map<String, String>) {
        val editor = preferences.edit()
        for ((name, value) in values) editor.putString(name, value)
        editor.apply()
    }
}
