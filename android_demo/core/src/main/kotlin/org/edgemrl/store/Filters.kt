package org.edgemrl.store

import org.edgemrl.ByCodePoint
import org.edgemrl.UsageException
import org.edgemrl.json.Json
import org.edgemrl.shorten
import org.edgemrl.textProblem

private const val MAX_CONDITIONS = 200
private const val MAX_DEPTH = 8
private const val LEAF = "SELECT document FROM fields WHERE name = ?"
private const val HELP = "expected {\"name\": value}, with \$eq \$ne \$in \$nin \$gt \$gte \$lt \$lte \$contains \$exists \$not for a " +
    "name, \$and \$or \$not around whole filters, and {\"\$match\": words} for the text"

/** The kind of a field that is a text. */
private const val TEXT = 3
private val COMPARE = mapOf("\$gt" to ">", "\$gte" to ">=", "\$lt" to "<", "\$lte" to "<=")

/** SQL that selects documents' keys, and its parameters. */
internal class Query(val sql: String, val values: List<Any?>)

private val EVERYTHING = Query("SELECT key AS document FROM documents", emptyList())

/**
 * A filter on metadata as a statement: `{"lang": "en", "year": {"$gte": 2020}}`, as MongoDB has them.
 *
 * All conditions hold. `$ne`, `$nin` and `$not` also match documents without the name; `{}` matches all.
 * `{"title": {"$contains": "ferry"}}` matches texts that have this text in them, in the same letter case.
 * `{"$match": "ferry times"}` matches documents whose text has all these words, found as a keyword search
 * finds them, with `"phrases"` and `prefix*`.
 *
 * @throws UsageException if [where] is no such filter.
 */
internal fun compileFilter(where: Map<String, Any?>): Query =
    if (where.isEmpty()) EVERYTHING else FilterCompiler().filter(where, 1)

private class FilterCompiler {
    private var conditions = 0

    fun filter(where: Any?, depth: Int): Query {
        if (where !is Map<*, *> || where.isEmpty()) throw UsageException("filter ${shorten(where)}: $HELP")
        requireDepth(depth)
        return allOf(
            where.map { (name, value) ->
                count()
                if (name !is String) throw UsageException("filter name ${shorten(name)}: expected a string")
                textProblem(name)?.let { throw UsageException("filter name $it") }
                condition(name, value, depth)
            },
        )
    }

    private fun condition(name: String, value: Any?, depth: Int): Query {
        if (name == "\$and" || name == "\$or") {
            if (value !is List<*> || value.isEmpty()) {
                throw UsageException("filter $name: expected a list of filters, got ${shorten(value)}")
            }
            val parts = value.map { filter(it, depth + 1) }
            return if (name == "\$and") allOf(parts) else compound(parts, "UNION")
        }
        if (name == "\$not") return noneOf(filter(value, depth + 1))
        if (name == "\$match") return hasWords(value)
        if (name.startsWith("$")) throw UsageException("filter '$name' is not an operator: $HELP")
        return if (value is Map<*, *>) operators(name, value, depth) else equal(name, value)
    }

    private fun operators(name: String, operators: Map<*, *>, depth: Int): Query {
        if (operators.isEmpty()) throw UsageException("filter '$name' has an empty condition: $HELP")
        requireDepth(depth)
        return allOf(
            operators.map { (operator, value) ->
                count()
                operator(name, operator, value, depth)
            },
        )
    }

    private fun operator(name: String, operator: Any?, value: Any?, depth: Int): Query = when (operator) {
        "\$eq" -> equal(name, value)
        "\$contains" -> contains(name, value)
        "\$in" -> anyOf(name, value)
        "\$exists" -> exists(name, value)
        "\$ne" -> noneOf(equal(name, value))
        "\$nin" -> noneOf(anyOf(name, value))
        in COMPARE -> {
            val field = scalar(name, value)
            if (field.kind < 2) throw UsageException("filter '$name' $operator: expected a number or a string")
            Query("$LEAF AND kind = ? AND value ${COMPARE[operator]} ?", listOf(name, field.kind, field.value))
        }
        else -> {
            if (operator != "\$not" || value !is Map<*, *>) {
                throw UsageException("filter '$name': ${shorten(operator)} is not an operator: $HELP")
            }
            noneOf(operators(name, value, depth + 1))
        }
    }

    private fun equal(name: String, value: Any?): Query {
        val field = scalar(name, value)
        return Query("$LEAF AND kind = ? AND value = ?", listOf(name, field.kind, field.value))
    }

    private fun contains(name: String, value: Any?): Query {
        if (value !is String || value.isEmpty() || textProblem(value) != null) {
            throw UsageException("filter '$name' \$contains: expected a text, got ${shorten(value)}")
        }
        return Query("$LEAF AND kind = ? AND instr(value, ?) > 0", listOf(name, TEXT, value))
    }

    private fun hasWords(value: Any?): Query {
        val expression = if (value is String) matchExpression(value, every = true) else ""
        if (expression.isEmpty()) throw UsageException("filter \$match: expected words, got ${shorten(value)}")
        return Query("SELECT rowid AS document FROM keywords WHERE keywords MATCH ?", listOf(expression))
    }

    private fun anyOf(name: String, values: Any?): Query {
        if (values !is List<*>) throw UsageException("filter '$name': expected a list of values, got ${shorten(values)}")
        val kinds = LinkedHashMap<Int, MutableList<Any>>()
        for (value in values) {
            val field = scalar(name, value)
            kinds.getOrPut(field.kind) { ArrayList() }.add(field.value)
        }
        if (kinds.isEmpty()) return Query("$LEAF AND 0", listOf(name))
        // One parameter however long the list: builds of SQLite may allow no more than 999.
        val member = "$LEAF AND kind = ? AND value IN (SELECT value FROM json_each(?))"
        return compound(kinds.map { (kind, bounds) -> Query(member, listOf(name, kind, Json.write(bounds))) }, "UNION")
    }

    private fun exists(name: String, value: Any?): Query {
        if (value !is Boolean) throw UsageException("filter '$name' \$exists: expected true or false, got ${shorten(value)}")
        val there = Query(LEAF, listOf(name))
        return if (value) there else noneOf(there)
    }

    private fun scalar(name: String, value: Any?): Field {
        if (value is Map<*, *> || value is List<*>) {
            throw UsageException("filter '$name': expected a string, number, true, false or null; $HELP")
        }
        valueProblem(value)?.let { throw UsageException("filter '$name': the value is $it") }
        return fieldOf(name, value)
    }

    private fun allOf(parts: List<Query>): Query = compound(parts, "INTERSECT")

    private fun noneOf(query: Query): Query = compound(listOf(EVERYTHING, query), "EXCEPT")

    private fun compound(parts: List<Query>, operator: String): Query {
        if (parts.size == 1) return parts[0]
        return Query(parts.joinToString(" $operator ") { "SELECT document FROM (${it.sql})" }, parts.flatMap { it.values })
    }

    private fun requireDepth(depth: Int) {
        if (depth > MAX_DEPTH) throw UsageException("a filter is nested more than $MAX_DEPTH levels deep: make it flatter")
    }

    private fun count() {
        if (++conditions > MAX_CONDITIONS) {
            throw UsageException("a filter has more than $MAX_CONDITIONS conditions: use \$in for a list of values")
        }
    }
}

/**
 * Whether a document's metadata match a filter that [compileFilter] takes: what a damaged index says is no answer.
 * A filter with `$match` asks for words of the text, of which metadata say nothing: all metadata match it.
 */
internal fun matches(where: Map<*, *>, fields: List<Field>): Boolean = asksForWords(where) || all(where, fields)

internal fun asksForWords(where: Map<*, *>): Boolean {
    if ("\$match" in where) return true
    val parts = listOf("\$and", "\$or").flatMap { where[it] as? List<*> ?: emptyList<Any?>() } + listOfNotNull(where["\$not"])
    return parts.any { asksForWords(it as Map<*, *>) }
}

private fun all(where: Map<*, *>, fields: List<Field>): Boolean = where.all { (name, value) ->
    when (name) {
        "\$and" -> (value as List<*>).all { all(it as Map<*, *>, fields) }
        "\$or" -> (value as List<*>).any { all(it as Map<*, *>, fields) }
        "\$not" -> !all(value as Map<*, *>, fields)
        else -> holds(value as? Map<*, *> ?: mapOf("\$eq" to value), fields.filter { it.name == name })
    }
}

private fun holds(operators: Map<*, *>, there: List<Field>): Boolean = operators.all { (sign, value) ->
    when (sign) {
        "\$exists" -> there.isNotEmpty() == value
        "\$not" -> !holds(value as Map<*, *>, there)
        "\$in", "\$nin" -> (value as List<*>).any { has(there, it) } == (sign == "\$in")
        "\$eq", "\$ne" -> has(there, value) == (sign == "\$eq")
        "\$contains" -> there.any { it.kind == TEXT && value as String in it.value as String }
        else -> there.any { field ->
            val bound = fieldOf(field.name, value)
            field.kind == bound.kind && ordered(sign as String, compare(field, bound))
        }
    }
}

private fun has(there: List<Field>, value: Any?): Boolean = there.any { field ->
    val bound = fieldOf(field.name, value)
    field.kind == bound.kind && compare(field, bound) == 0
}

private fun compare(a: Field, b: Field): Int =
    if (a.kind == TEXT) ByCodePoint.compare(a.value as String, b.value as String) else compareNumbers(a.value, b.value)

private fun ordered(sign: String, order: Int): Boolean = when (sign) {
    "\$gt" -> order > 0
    "\$gte" -> order >= 0
    "\$lt" -> order < 0
    else -> order <= 0
}
