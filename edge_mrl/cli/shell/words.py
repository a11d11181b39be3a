"""What can be typed after ``edge-mrl``: read from the parsers of all commands."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from edge_mrl.cli import COMMANDS, EXTRAS, parser_of
from edge_mrl.errors import EdgeMrlError

__all__ = ["Option", "Place", "every_place"]


@dataclass(frozen=True, slots=True)
class Option:
    """An option, or an argument without a name.

    Attributes:
        names: As they are typed; none for an argument.
        takes_value: Whether a value follows.
        choices: The values, if they are known.
        said: What the help says of it, in one line.
    """

    names: tuple[str, ...]
    takes_value: bool
    choices: tuple[str, ...]
    said: str


@dataclass(frozen=True, slots=True)
class Place:
    """A command, or a part of one.

    Attributes:
        words: Those that lead to it, after the program's name.
        said: What the help says of it.
        options: Its options and arguments.
        below: The words that may follow, with what the help says of each.
    """

    words: tuple[str, ...]
    said: str
    options: tuple[Option, ...]
    below: tuple[tuple[str, str], ...]


def every_place() -> Iterator[Place]:
    """The program itself, all commands and their parts; without options where a package is missing."""
    commands = {**EXTRAS, **COMMANDS}
    top = tuple(
        Option((name,), takes_value=False, choices=(), said="") for name in ("--help", "--version")
    )
    yield Place((), "", top, tuple(sorted(commands.items())))
    for name, said in sorted(commands.items()):
        try:
            parser, _ = parser_of(name)
        except EdgeMrlError:
            yield Place((name,), said, (), ())
        else:
            yield from _places(parser, (name,), said)


def _places(parser: argparse.ArgumentParser, words: tuple[str, ...], said: str) -> Iterator[Place]:
    options, parts = [], {}
    for action in parser._actions:  # noqa: SLF001 - argparse tells nobody what was added
        if action.help == argparse.SUPPRESS:
            continue
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            parts = dict(action.choices)
            helps = {one.dest.split()[0]: one.help for one in action._choices_actions}  # noqa: SLF001
            parts = {name: parts[name] for name in helps if helps[name] != argparse.SUPPRESS}
            continue
        options.append(_option(action))
    below = tuple((name, helps[name] or "") for name in parts)
    yield Place(words, said, tuple(options), below)
    for name, part in parts.items():
        yield from _places(part, (*words, name), helps[name] or "")


def _option(action: argparse.Action) -> Option:
    said = " ".join((action.help or "").split()).replace("%%", "%").replace("%(default)s", "")
    choices = tuple(str(choice) for choice in action.choices or ())
    return Option(tuple(action.option_strings), action.nargs != 0, choices, said)
