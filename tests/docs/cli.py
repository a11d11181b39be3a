"""The reference part of docs/cli.md, made from the parsers of the commands.

    python -m tests.docs.cli            # say whether the page is what the commands say
    python -m tests.docs.cli --write    # bring the page up to date

Sections that people wrote stand above the marker, and are left as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from edge_mrl import cli as edge_mrl_cli
from edge_mrl.cli import COMMANDS, EXTRA_OF, EXTRAS

PAGE = Path(__file__).parent.parent.parent / "docs" / "cli.md"
MARKER = "<!-- Below: python -m tests.docs.cli --write -->\n"
#: Commands as the overview of the page groups them.
GROUPS = {
    "Models and bundles": ("export", "sign", "inspect", "verify", "pack", "pull", "push", "embed"),
    "Choosing a code": ("eval", "advise"),
    "Documents and search": ("index", "search", "list", "get", "delete"),
    "Out of a store and into another": ("dump", "load"),
    "Looking after a store": ("stats", "check", "compact", "reindex", "adapt"),
    "The key of a store": ("encrypt", "rekey", "decrypt"),
    "Several devices": ("enroll", "sync", "serve", "admin"),
    "Agents and other programs": ("mcp", "serve-embeddings"),
    "This machine": ("bench", "doctor", "completion"),
}


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of a command, made as the command line makes it."""
    command = edge_mrl_cli._load(name)
    parser = argparse.ArgumentParser(prog=f"edge-mrl {name}", allow_abbrev=False)
    command.add_arguments(parser)
    return parser


def subjects(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Sub-commands that the help shows, with what it says of each."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                if choice.help != argparse.SUPPRESS:
                    name = choice.dest.split()[0]
                    yield choice.help or "", action.choices[name]


def leaves(
    parser: argparse.ArgumentParser, text: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Parsers without sub-commands, each with what the help says of it."""
    below = list(subjects(parser))
    for said, sub in below:
        yield from leaves(sub, said)
    if not below:
        yield text, parser


def names(action: argparse.Action) -> str:
    """An argument as it is typed: names and value."""
    value = ""
    if action.nargs != 0:
        parts = action.metavar or [str(c) for c in action.choices or [action.dest.upper()]]
        value = parts if isinstance(parts, str) else "|".join(parts)
        many = {"?": f"[{value}]", "*": f"[{value} ...]", "+": f"{value} ..."}
        value = many.get(str(action.nargs), value)
    if not action.option_strings:
        return value
    shown = ", ".join(action.option_strings)
    return f"{shown} {value}".strip()


def cell(text: str) -> str:
    """A text as a cell of a table."""
    return text.replace("|", "\\|")


def rows(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A row for each argument that the help shows, but for --help itself."""
    for action in parser._actions:
        hidden = action.help == argparse.SUPPRESS or action.dest == "help"
        if hidden or isinstance(action, argparse._SubParsersAction):
            continue
        text = " ".join((action.help or "").split()).replace("%%", "%")
        default = {"default": action.default, "prog": parser.prog}
        text = text.replace("%(default)s", str(default["default"])).replace("%(prog)s", parser.prog)
        yield f"| `{cell(names(action))}` | {cell(text)} |"


def section(name: str) -> Iterator[str]:
    """The lines of one command."""
    parser = parser_of(name)
    yield f"### edge-mrl {name}"
    yield ""
    yield f"{sentence({**EXTRAS, **COMMANDS}[name])} {needs(name)}".rstrip()
    for text, leaf in leaves(parser):
        if leaf is not parser:
            yield ""
            yield f"**`{leaf.prog}`**: {text}"
        found = list(rows(leaf))
        if found:
            yield from ("", "| argument | meaning |", "|---|---|", *found)
    yield ""


def sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def needs(name: str) -> str:
    if name in COMMANDS:
        return f"It needs the extra `{EXTRA_OF[name]}`." if name in EXTRA_OF else ""
    return f"It comes with the extra `{EXTRA_OF.get(name, name)}`."


def reference() -> str:
    """Everything below the marker."""
    lines = ["", "## Every command and option", "", "| task | commands |", "|---|---|"]
    for title, members in GROUPS.items():
        links = (f"[`{name}`](#edge-mrl-{name})" for name in members)
        lines.append(f"| {title} | {', '.join(links)} |")
    lines.append("")
    for members in GROUPS.values():
        for name in members:
            lines.extend(section(name))
    return "\n".join(lines).rstrip("\n") + "\n"


def page() -> str:
    """The page as it should be."""
    written, marker, _ = PAGE.read_text("utf-8").partition(MARKER)
    return written + marker + reference()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write docs/cli.md")
    write = parser.parse_args().write
    if write:
        PAGE.write_text(page(), "utf-8")
    elif page() != PAGE.read_text("utf-8"):
        print("docs/cli.md is not what the commands say: python -m tests.docs.cli --write")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
