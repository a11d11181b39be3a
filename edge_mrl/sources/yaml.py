"""The part of YAML that front matter uses, read strictly (https://yaml.org/spec/1.2.2/).

Read are block mappings and lists, flow lists and mappings, plain and quoted texts, texts of several
lines after ``|`` and ``>``, and comments. Values are those of YAML's core schema, in decimal: null, true
and false, integers and floats; everything else is text, dates too. Refused are anchors, aliases, tags,
directives, complex names and names that come twice.
"""

from __future__ import annotations

import re
from typing import Any

from edge_mrl.documents import MAX_INTEGER

__all__ = ["YamlError", "read_yaml"]

#: Mappings and lists within each other.
MOST_LEVELS = 16
#: Lines of a list in brackets or a quoted text, which is read again with each line.
MOST_LINES = 200
#: A name and its colon are in so many characters.
NAME_CHARS = 600
_NAME = re.compile(
    r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s\-?:,\[\]{}#&*!|>'"%@`][^:#]*?|-[^\s:#][^:#]*?)\s*:(?:\s+|$)"""
)
_ITEM = re.compile(r"-(\s+|$)")
_BLOCK = re.compile(r"([|>])([+-]?)\s*(?:#.*)?")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]{1,3})?")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "/": "/", " ": " "}
_ESCAPES |= {"b": "\b", "e": "\x1b", "f": "\f", "v": "\v", "a": "\a"}
_DIGITS = {"x": 2, "u": 4, "U": 8}
#: What no plain text may begin with.
_RESERVED = {
    "&": "an anchor",
    "*": "an alias",
    "!": "a tag",
    "%": "a directive",
    "?": "a complex name",
}
_RESERVED |= dict.fromkeys("@`|>", "a reserved sign")


class YamlError(ValueError):
    """It is not YAML of the known kind; the message names the line."""


class _UnfinishedError(Exception):
    """A list, a mapping or a quoted text goes on in the next line."""


def read_yaml(text: str) -> Any:
    """The value that a text has; None if there is nothing in it.

    Raises:
        YamlError: It cannot be read, in full.
    """
    return _Block(text).document()


class _Block:
    """Reads lines; ``at`` is the next one."""

    def __init__(self, text: str) -> None:
        self._lines = [line.rstrip() for line in text.split("\n")]
        self._at = 0
        self._levels = 0

    def document(self) -> Any:
        """All lines."""
        indent = self._indent()
        value = None if indent is None else self._node(indent)
        if self._indent() is not None:
            raise self._error("a value or a name was expected")
        return value

    def _error(self, what: str, *, above: int = 0) -> YamlError:
        """An error at the next line, or so many lines above it; the first line is the fence."""
        return YamlError(f"line {min(self._at - above, len(self._lines) - 1) + 2}: {what}")

    def _indent(self) -> int | None:
        """The indentation of the next line that says something; None at the end."""
        while self._at < len(self._lines):
            line = self._lines[self._at]
            inner = line.lstrip(" ")
            if inner.startswith("\t"):
                raise self._error("a tab cannot indent")
            if inner and not inner.startswith("#"):
                return len(line) - len(inner)
            self._at += 1
        return None

    def _node(self, indent: int) -> Any:
        self._levels += 1
        if self._levels > MOST_LEVELS:
            raise self._error(f"more than {MOST_LEVELS} levels")
        line = self._lines[self._at][indent:]
        if _ITEM.match(line):
            value: Any = self._items(indent)
        elif _name(line):
            value = self._mapping(indent)
        else:
            self._at += 1
            value = self._value(line, indent - 1)
        self._levels -= 1
        return value

    def _mapping(self, indent: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self._indent() == indent:
            line = self._lines[self._at][indent:]
            match = _name(line)
            if match is None:
                raise self._error("expected NAME: VALUE")
            name = _quoted(match[1]) if match[1][0] in "\"'" else match[1]
            if name in found:
                raise self._error(f"the name {name[:60]!r} comes twice")
            self._at += 1
            found[name] = self._after(line[match.end() :], indent, lists=True)
        return found

    def _items(self, indent: int) -> list[Any]:
        found = []
        while self._indent() == indent:
            line = self._lines[self._at][indent:]
            match = _ITEM.match(line)
            if match is None:
                break
            rest = line[match.end() :]
            if _ITEM.match(rest) or _name(rest):
                inner = indent + match.end()
                self._lines[self._at] = " " * inner + rest
                found.append(self._node(inner))
            else:
                self._at += 1
                found.append(self._after(rest, indent, lists=False))
        return found

    def _after(self, rest: str, indent: int, *, lists: bool) -> Any:
        """The value behind a name or a dash: on its line, or on those below."""
        if rest and not rest.startswith("#"):
            return self._value(rest, indent)
        below = self._indent()
        if below is not None and below > indent:
            return self._node(below)
        if below == indent and lists and _ITEM.match(self._lines[self._at][indent:]):
            return self._items(indent)
        return None

    def _value(self, rest: str, indent: int) -> Any:
        """A value that begins on a line that was read; its other lines are indented more."""
        header = _BLOCK.fullmatch(rest)
        if header is not None:
            return self._text(indent, folded=header[1] == ">", chomp=header[2])
        flow, first = rest[0] in "[{\"'", self._at
        while True:
            try:
                if flow:
                    return _Flow(rest).whole()
                break
            except _UnfinishedError:
                below = self._indent()
                outside = below is not None and below <= indent and rest[0] not in "[{"
                if below is None or outside or self._at - first > MOST_LINES:
                    what = "a list, a mapping or a quoted text has no end"
                    raise self._error(what, above=self._at - first + 1) from None
                rest += f" {self._lines[self._at].strip()}"
                self._at += 1
            except YamlError as error:
                raise self._error(str(error), above=1) from None
        parts = [_without_comment(rest)]
        while (below := self._indent()) is not None and below > indent:
            parts.append(_without_comment(self._lines[self._at].strip()))
            self._at += 1
        try:
            return _plain(" ".join(part for part in parts if part))
        except YamlError as error:
            raise self._error(str(error), above=1) from None

    def _text(self, indent: int, *, folded: bool, chomp: str) -> str:
        """A text of several lines."""
        own: list[str] = []
        width: int | None = None
        while self._at < len(self._lines):
            line = self._lines[self._at]
            deep = len(line) - len(line.lstrip(" "))
            if line and deep <= indent:
                break
            if line and width is None:
                width = deep
            if line and width is not None and deep < width:
                raise self._error("a line of a text is indented less than its first line")
            own.append(line[width or 0 :])
            self._at += 1
        text = _folded(own) if folded else "\n".join(own)
        text = text.rstrip("\n") if chomp != "+" else text
        return text if chomp or not text else f"{text}\n"


def _name(line: str) -> re.Match[str] | None:
    return _NAME.match(line[:NAME_CHARS])


def _folded(lines: list[str]) -> str:
    """Lines as paragraphs: a line end is a space, an empty line is a line end."""
    text = ""
    for number, line in enumerate(lines):
        before = lines[number - 1] if number else ""
        joined = bool(number) and bool(line) and bool(before)
        kept = line.startswith(" ") or before.startswith(" ")
        glue = ("\n" if kept else " ") if joined else ("\n" if number and not line else "")
        text += glue + line
    return text


def _without_comment(text: str) -> str:
    found = re.search(r"(?:^|\s)#", text)
    return (text if found is None else text[: found.start()]).strip()


def _quoted(text: str) -> str:
    value = _Flow(text).whole()
    return value if isinstance(value, str) else str(value)


def _plain(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if text[0] in _RESERVED and not (text[0] == "?" and text[1:2].strip()):
        raise YamlError(f"{_RESERVED[text[0]]} is not read")
    if _INTEGER.fullmatch(text) and len(text) < NAME_CHARS and abs(int(text)) <= MAX_INTEGER:
        return int(text)
    if _FLOAT.fullmatch(text) and abs(value := float(text)) != float("inf"):
        return value
    return text


class _Flow:
    """Reads a value that ends where its brackets or quotes do; ``at`` is the next sign."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._levels = 0

    def whole(self) -> Any:
        """The value, behind which only a comment may follow."""
        value = self._node()
        if _without_comment(self._text[self._at :]):
            raise YamlError("something follows the end of a list, a mapping or a quoted text")
        return value

    def _space(self) -> str:
        """Skip spaces; the sign behind them."""
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1
        if self._at >= len(self._text):
            raise _UnfinishedError
        return self._text[self._at]

    def _node(self) -> Any:
        sign = self._space()
        if sign in "[{":
            self._levels += 1
            if self._levels > MOST_LEVELS:
                raise YamlError(f"more than {MOST_LEVELS} levels")
            self._at += 1
            value: Any = self._list() if sign == "[" else self._mapping()
            self._levels -= 1
            return value
        if sign in "\"'":
            self._at += 1
            return self._single() if sign == "'" else self._double()
        return _plain(self._scalar(",[]{}" if self._levels else ""))

    def _scalar(self, ends: str) -> str:
        begin = self._at
        while self._at < len(self._text) and self._text[self._at] not in ends:
            if self._text[self._at] == ":" and self._text[self._at + 1 : self._at + 2] in ("", " "):
                break
            self._at += 1
        return self._text[begin : self._at].strip()

    def _list(self) -> list[Any]:
        found: list[Any] = []
        while self._space() != "]":
            found.append(self._node())
            if self._separated("]"):
                break
        self._at += 1
        return found

    def _mapping(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while (sign := self._space()) != "}":
            name = str(self._node()) if sign in "\"'" else self._scalar(",[]{}")
            if self._space() != ":" or name in found or not name:
                raise YamlError("expected names that differ, each with a colon and a value")
            self._at += 1
            found[name] = None if self._space() in ",}" else self._node()
            if self._separated("}"):
                break
        self._at += 1
        return found

    def _separated(self, end: str) -> bool:
        """Skip a comma; whether the end stands there instead."""
        sign = self._space()
        if sign not in (",", end):
            raise YamlError(f"expected a comma or {end}")
        self._at += sign == ","
        return sign == end

    def _single(self) -> str:
        text = ""
        while True:
            end = self._text.find("'", self._at)
            if end < 0:
                raise _UnfinishedError
            text += self._text[self._at : end]
            self._at = end + 1
            if self._text[self._at : self._at + 1] != "'":
                return text
            text += "'"
            self._at += 1

    def _double(self) -> str:
        text: list[str] = []
        while self._at < len(self._text):
            sign = self._text[self._at]
            self._at += 1
            if sign == '"':
                return "".join(text)
            text.append(self._escaped() if sign == "\\" else sign)
        raise _UnfinishedError

    def _escaped(self) -> str:
        sign = self._text[self._at : self._at + 1]
        self._at += 1
        if sign in _ESCAPES:
            return _ESCAPES[sign]
        digits = self._text[self._at : self._at + _DIGITS.get(sign, 0)]
        self._at += len(digits)
        try:
            return chr(int(digits, 16)) if len(digits) == _DIGITS.get(sign) else _no_escape()
        except (ValueError, OverflowError):
            return _no_escape()


def _no_escape() -> str:
    raise YamlError("a backslash in a quoted text begins nothing that is known")
