"""docs/cli.md and the commands say the same, and every command line on any page is one that exists."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_mrl.cli import COMMANDS, EXTRAS, main
from edge_mrl.errors import EdgeMrlError, ServerError
from tests.docs import cli
from tests.docs.pages import PAGES, ROOT, code_of

EVERY = [*EXTRAS, *COMMANDS]
PAGE = cli.PAGE.read_text("utf-8")
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")
#: The program's name where a command begins, and what follows it.
STARTED = re.compile(r"(?:^\s*|[/|`&;]\s*)edge-mrl ([^\n`]+)", re.MULTILINE)
#: What stands for something else in an example.
PLACEHOLDERS = {"COMMAND", "..."}


def help_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def options_in_help(text: str) -> set[str]:
    """The options that a help lists: lines that begin with two spaces and a dash, up to the meaning."""
    lines = re.findall(r"^  (-.*?)(?:  |$)", text, re.MULTILINE)
    return {option for line in lines for option in OPTION.findall(line)} - {"-h", "--help"}


def options_on_page(section: str) -> set[str]:
    cells = re.findall(r"^\| `(.*?)` \|", section, re.MULTILINE)
    return {option for cell in cells for option in OPTION.findall(cell)}


def sections() -> dict[str, str]:
    found = re.findall(r"^### edge-mrl ([\w-]+)\n(.*?)(?=^### |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return dict(found)


def test_the_page_is_up_to_date() -> None:
    assert cli.page() == PAGE, "python -m tests.docs.cli --write"


def test_each_command_has_its_section_and_each_section_its_command() -> None:
    assert sorted(sections()) == sorted(EVERY)


@pytest.mark.parametrize("name", [name for name in EVERY if name != "admin"])
def test_options_of_help_and_page_are_the_same(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert options_on_page(sections()[name]) == options_in_help(help_of([name], capsys))


def test_subjects_of_admin_are_on_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    parts = re.findall(
        r"^\*\*`edge-mrl admin ([\w ]+)`\*\*(.*?)(?=^\*\*`|\Z)",
        sections()["admin"],
        re.MULTILINE | re.DOTALL,
    )
    assert {words.split()[0] for words, _ in parts} == set(
        re.findall(r"^    (\w+)(?:  |$)", help_of(["admin"], capsys), re.MULTILINE)
    )
    for words, part in parts:
        shown = help_of(["admin", *words.split()], capsys)
        assert options_on_page(part) == options_in_help(shown), words


def kinds(kind: type[EdgeMrlError]) -> Iterator[type[EdgeMrlError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from kinds(below)


def test_exit_codes_of_the_page_are_those_of_the_errors() -> None:
    codes = {kind.exit_code for kind in kinds(EdgeMrlError)}
    codes |= {
        0,
        ServerError.refused_exit_code,
        cli.edge_mrl_cli.INTERRUPTED,
        cli.edge_mrl_cli.PIPE_CLOSED,
    }
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)] == sorted(codes)


def command_lines(text: str) -> Iterator[list[str]]:
    """Every `edge-mrl ...` in code, as words; comments and what it is piped into are left out."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in STARTED.findall(joined):
        lexer = shlex.shlex(
            re.sub(r"\s{2,}\S.*| # .*", "", line), posix=True, punctuation_chars=True
        )
        lexer.whitespace_split = True
        words: list[str] = []
        try:
            for word in lexer:
                if word in {"|", "||", "&&", ";", ">", "<", "&"}:
                    break
                words.append(word)
        except ValueError:  # a quote that prose cut off
            pass
        if words:
            yield words


def faults_of(words: list[str]) -> list[str]:
    """What of a command line does not exist."""
    name, *rest = words
    if name in PLACEHOLDERS or name.startswith(("-", "[")):
        return []
    if name not in EVERY:
        return [f"no command {name}"]
    parser = cli.parser_of(name)
    while below := {sub.prog.split()[-1]: sub for _, sub in cli.subjects(parser)}:
        if not rest or rest[0] not in below:
            break  # the command as such, or several of its subjects
        parser, rest = below[rest[0]], rest[1:]
    options = {option for action in parser._actions for option in action.option_strings}
    shown = {o for a in parser._actions if a.help != argparse.SUPPRESS for o in a.option_strings}
    used = [word.strip("[](),.").split("=")[0] for word in rest]
    bad = [word for word in used if re.fullmatch(r"--?[a-z][a-z-]*", word) and word not in options]
    hidden = [word for word in used if word in options - shown]
    return [f"{name} {word}: no such option" for word in bad] + [
        f"{name} {word}: an old name" for word in hidden
    ]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_command_lines_of_the_pages_exist(path: Path) -> None:
    text = code_of(path.read_text("utf-8"))
    assert [fault for words in command_lines(text) for fault in faults_of(words)] == []


@pytest.mark.parametrize("name", ["", *EVERY])
def test_examples_in_the_help_exist(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of([name] if name else [], capsys)
    examples = [line for line in text.splitlines() if line.startswith("  ") and "edge-mrl" in line]
    assert [f for words in command_lines("\n".join(examples)) for f in faults_of(words)] == []


def test_what_does_not_exist_is_noticed() -> None:
    text = "Type `edge-mrl serch x` or\n\n    edge-mrl search x --storee a.db | head --lines 3\n"
    found = [fault for words in command_lines(text) for fault in faults_of(words)]
    assert found == ["no command serch", "search --storee: no such option"]
    assert ROOT.is_dir()
