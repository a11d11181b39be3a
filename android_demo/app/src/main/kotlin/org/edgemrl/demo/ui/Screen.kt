package org.edgemrl.demo.ui

import android.app.Activity
import android.content.Context
import android.content.res.Configuration
import android.os.Build
import android.view.View
import android.view.ViewGroup
import android.view.WindowInsets
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.Toolbar
import org.edgemrl.android.Guarded
import org.edgemrl.demo.NotesApplication
import org.edgemrl.demo.R
import org.edgemrl.demo.StoredValues
import org.edgemrl.demo.state.Look
import org.edgemrl.demo.state.SettingsStore

/** A screen: a bar with its title over its content, clear of the system's bars and of the keyboard. */
abstract class Screen : Activity() {
    /** The application. */
    protected val notes: NotesApplication get() = NotesApplication.of(this)

    /** The bar at the top. */
    protected lateinit var bar: Toolbar
        private set
    private var shownLook = Look.SYSTEM

    override fun attachBaseContext(base: Context) {
        shownLook = SettingsStore(StoredValues(base)).read().look
        if (shownLook != Look.SYSTEM) {
            val wanted = Configuration()
            wanted.fontScale = 0f // as it is
            wanted.uiMode = if (shownLook == Look.DARK) Configuration.UI_MODE_NIGHT_YES else Configuration.UI_MODE_NIGHT_NO
            applyOverrideConfiguration(wanted)
        }
        super.attachBaseContext(base)
    }

    override fun onResume() {
        super.onResume()
        if (notes.settings.read().look != shownLook) recreate()
    }

    /** Shows the content, which fills what the bar leaves. */
    protected fun show(titleId: Int, content: View, top: Boolean = false) {
        bar = Toolbar(this).apply {
            setTitle(titleId)
            if (!top) {
                setNavigationIcon(themed(android.R.attr.homeAsUpIndicator))
                setNavigationContentDescription(R.string.back)
                setNavigationOnClickListener { finish() }
            }
        }
        setTitle(titleId)
        val root = LinearLayout(this).apply {
            orientation = LinearLayout.VERTICAL
            addView(bar, LinearLayout.LayoutParams(MATCH, WRAP))
            addView(content, LinearLayout.LayoutParams(MATCH, 0, 1f))
            setOnApplyWindowInsetsListener { view, insets -> clear(view, insets) }
        }
        setContentView(root)
    }

    /** A column of views that scrolls, since large fonts need more than a page. */
    protected fun column(vararg views: View): View {
        val inner = LinearLayout(this).apply {
            orientation = LinearLayout.VERTICAL
            val edge = dp(EDGE_DP)
            setPaddingRelative(edge, dp(8), edge, edge)
            for (view in views) {
                addView(view, LinearLayout.LayoutParams(MATCH, WRAP).apply { topMargin = dp(8) })
            }
        }
        return ScrollView(this).apply {
            isFillViewport = true
            addView(inner, ViewGroup.LayoutParams(MATCH, WRAP))
        }
    }

    /** Says what went wrong. */
    protected fun complain(error: Exception): Unit =
        android.widget.Toast.makeText(
            this,
            getString(R.string.failed, error.message ?: error.javaClass.simpleName),
            android.widget.Toast.LENGTH_LONG,
        ).show()

    private fun clear(view: View, insets: WindowInsets): WindowInsets {
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.R) clearNew(view, insets) else clearOld(view, insets)
        return insets
    }

    @Guarded(since = 30)
    private fun clearNew(view: View, insets: WindowInsets) {
        val kinds = WindowInsets.Type.systemBars() or WindowInsets.Type.displayCutout() or WindowInsets.Type.ime()
        val taken = insets.getInsets(kinds)
        view.setPadding(taken.left, taken.top, taken.right, taken.bottom)
    }

    @Suppress("DEPRECATION") // Before Android 11 there is nothing else.
    private fun clearOld(view: View, insets: WindowInsets): Unit = view.setPadding(
        insets.systemWindowInsetLeft,
        insets.systemWindowInsetTop,
        insets.systemWindowInsetRight,
        insets.systemWindowInsetBottom,
    )

    /** Dark signs on the system's bars where the page is light: from Android 15 on the page lies under them. */
    override fun onAttachedToWindow() {
        super.onAttachedToWindow()
        val night = resources.configuration.uiMode and Configuration.UI_MODE_NIGHT_MASK == Configuration.UI_MODE_NIGHT_YES
        if (Build.VERSION.SDK_INT >= EDGE_TO_EDGE && !night) darkSigns()
    }

    @Guarded(since = 30)
    private fun darkSigns() {
        val light = android.view.WindowInsetsController.APPEARANCE_LIGHT_STATUS_BARS or
            android.view.WindowInsetsController.APPEARANCE_LIGHT_NAVIGATION_BARS
        window.insetsController?.setSystemBarsAppearance(light, light)
    }

    /** Names of sizes. */
    protected companion object {
        const val MATCH: Int = ViewGroup.LayoutParams.MATCH_PARENT
        const val WRAP: Int = ViewGroup.LayoutParams.WRAP_CONTENT
        private const val EDGE_DP = 16
        private const val EDGE_TO_EDGE = 35
    }
}
