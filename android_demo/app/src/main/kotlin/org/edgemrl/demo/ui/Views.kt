package org.edgemrl.demo.ui

import android.content.Context
import android.graphics.Typeface
import android.text.SpannableString
import android.text.style.StyleSpan
import android.util.TypedValue
import android.view.Gravity
import android.view.View
import android.widget.Button
import android.widget.CheckBox
import android.widget.TextView
import org.edgemrl.demo.R

/** Pixels of a length in dp. */
internal fun Context.dp(length: Int): Int = (length * resources.displayMetrics.density + 0.5f).toInt()

/** A resource that the theme names. */
internal fun Context.themed(attribute: Int): Int {
    val value = TypedValue()
    theme.resolveAttribute(attribute, value, true)
    return value.resourceId
}

/** A text in the size of the body; its height is what it needs, whatever the font's size. */
internal fun Context.text(words: CharSequence = "", size: Float = 16f, quiet: Boolean = false): TextView =
    TextView(this).apply {
        text = words
        textSize = size
        textAlignment = View.TEXT_ALIGNMENT_VIEW_START
        gravity = Gravity.START
        setTextColor(getColor(if (quiet) R.color.quiet else R.color.words))
    }

/** A heading, which TalkBack can jump to. */
internal fun Context.heading(id: Int): TextView = text(getString(id), size = 18f).apply {
    setTypeface(typeface, Typeface.BOLD)
    if (android.os.Build.VERSION.SDK_INT >= android.os.Build.VERSION_CODES.P) asHeading(this)
}

@org.edgemrl.android.Guarded(since = 28)
private fun asHeading(view: View) {
    view.isAccessibilityHeading = true
}

/** A button; at least 48 dp high, as fingers need. */
internal fun Context.button(id: Int, pressed: () -> Unit): Button = Button(this).apply {
    setText(id)
    minHeight = dp(LEAST_DP)
    setOnClickListener { pressed() }
}

/** A box to tick. */
internal fun Context.checkBox(id: Int, ticked: Boolean, changed: (Boolean) -> Unit): CheckBox = CheckBox(this).apply {
    setText(id)
    minHeight = dp(LEAST_DP)
    textAlignment = View.TEXT_ALIGNMENT_VIEW_START
    isChecked = ticked
    setOnCheckedChangeListener { _, now -> changed(now) }
}

/** A text whose words that begin with one of [words] are bold. */
internal fun marked(text: String, words: Set<String>): CharSequence {
    val out = SpannableString(text)
    for (found in WORD.findAll(text)) {
        val own = found.value.lowercase(java.util.Locale.ROOT)
        if (words.any { own.startsWith(it) }) out.setSpan(StyleSpan(Typeface.BOLD), found.range.first, found.range.last + 1, 0)
    }
    return out
}

private val WORD = Regex("[\\p{L}\\p{M}\\p{N}]+")
private const val LEAST_DP = 48
