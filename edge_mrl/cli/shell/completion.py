"""``edge-mrl completion``: what a shell needs to complete commands and options."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from edge_mrl.cli.common.output import print_json
from edge_mrl.cli.shell.words import Option, Place, every_place

__all__ = ["HELP", "add_arguments", "run"]

HELP = "print what a shell needs to complete commands and options"
_EPILOG = """\
examples:
  edge-mrl completion bash > ~/.local/share/bash-completion/completions/edge-mrl
  edge-mrl completion zsh > ~/.zfunc/_edge-mrl          # where fpath has ~/.zfunc
  edge-mrl completion fish > ~/.config/fish/completions/edge-mrl.fish

exit codes: 0 done
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("shell", choices=tuple(_SHELLS), help="the shell")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, with the shell and the script"
    )


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    script = "\n".join(_SHELLS[args.shell](list(every_place())))
    if args.json:
        print_json({"shell": args.shell, "script": script})
    else:
        print(script)
    return 0


def _bash(places: list[Place]) -> Iterator[str]:
    """A function that walks the words up to the cursor; where it has no answer, files are completed."""
    yield "# bash completion of edge-mrl, made by `edge-mrl completion bash`"
    yield "_edge_mrl() {"
    yield '    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}"'
    yield '    local path="" words="" i'
    yield "    COMPREPLY=()"
    yield "    for ((i = 1; i < COMP_CWORD; i++)); do"
    yield '        case "$path/${COMP_WORDS[i]}" in'
    parts = ["/".join(("", *place.words)) for place in places if place.words]
    yield f'            {"|".join(parts)}) path="$path/${{COMP_WORDS[i]}}" ;;'
    yield "        esac"
    yield "    done"
    yield '    case "$path $prev" in'
    for place in places:
        path = "/".join(("", *place.words)) if place.words else ""
        for option in place.options:
            if option.takes_value and option.names:
                marks = "|".join(f'"{path} {name}"' for name in option.names)
                answer = f'words="{" ".join(option.choices)}"' if option.choices else "return"
                yield f"        {marks}) {answer} ;;"
    yield "    esac"
    yield '    if [[ -z "$words" ]]; then'
    yield '        case "$path" in'
    for place in places:
        path = "/".join(("", *place.words)) if place.words else ""
        plain = [word for word, _ in place.below] + _choices(place)
        names = [name for option in place.options for name in option.names]
        yield f'            "{path}")'
        yield f'                if [[ "$cur" == -* ]]; then words="{" ".join(names)}"'
        yield f'                else words="{" ".join(plain)}"; fi ;;'
    yield "        esac"
    yield "    fi"
    yield '    if [[ -n "$words" ]]; then COMPREPLY=($(compgen -W "$words" -- "$cur")); fi'
    yield "}"
    yield "complete -o bashdefault -o default -F _edge_mrl edge-mrl"


def _zsh(places: list[Place]) -> Iterator[str]:
    """A function for each command, of zsh's own _arguments, with what the help says."""
    yield "#compdef edge-mrl"
    yield "# zsh completion of edge-mrl, made by `edge-mrl completion zsh`"
    for place in places:
        yield from _zsh_function(place)
    yield 'if [[ "$funcstack[1]" = _edge-mrl ]]; then _edge_mrl "$@"; else compdef _edge_mrl edge-mrl; fi'


def _zsh_function(place: Place) -> Iterator[str]:
    yield f"{_zsh_name(place.words)}() {{"
    specs = []
    for option in place.options:
        value = f":value:({' '.join(option.choices)})" if option.choices else ":value:_files"
        said = f"[{_quoted(option.said, ':[]')}]"
        specs += [f"'{name}{said}{value if option.takes_value else ''}'" for name in option.names]
    if place.below:
        listed = " ".join(f"'{word}:{_quoted(said, ':')}'" for word, said in place.below)
        yield "    local line state"
        yield f"    _arguments -C {' '.join(specs)} '1: :->word' '*::argument:->rest'"
        yield "    case $state in"
        yield f"        word) local -a words_=({listed}); _describe command words_ ;;"
        yield "        rest) case $line[1] in"
        for word, _ in place.below:
            yield f"            {word}) {_zsh_name((*place.words, word))} ;;"
        yield "        esac ;;"
        yield "    esac"
    else:
        plain = _choices(place)
        rest = f"'*:argument:({' '.join(plain)})'" if plain else "'*:file:_files'"
        yield f"    _arguments {' '.join([*specs, rest])}"
    yield "}"


def _zsh_name(words: tuple[str, ...]) -> str:
    return "_".join(("_edge_mrl", *words))


def _fish(places: list[Place]) -> Iterator[str]:
    """Rules that hold where the words up to the cursor lead to a command."""
    yield "# fish completion of edge-mrl, made by `edge-mrl completion fish`"
    for place in places:
        # All words of the place were typed, and none of those that would lead further down.
        seen = [f"__fish_seen_subcommand_from {word}" for word in place.words]
        deeper = " ".join(word for word, _ in place.below)
        here = "; and ".join(
            [*seen, *([f"not __fish_seen_subcommand_from {deeper}"] if deeper else [])]
        )
        start = f"complete -c edge-mrl -n '{here}'"
        for word, said in place.below:
            yield f"{start} -f -a {word} -d '{_quoted(said)}'"
        for choice in _choices(place):
            yield f"{start} -f -a {choice}"
        for option in place.options:
            if option.names:
                yield f"{start} {_fish_option(option)}"


def _fish_option(option: Option) -> str:
    names = " ".join(
        f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names
    )
    value = ""
    if option.takes_value:
        value = f" -x -a '{' '.join(option.choices)}'" if option.choices else " -r"
    return f"{names}{value} -d '{_quoted(option.said)}'"


def _choices(place: Place) -> list[str]:
    return [choice for option in place.options if not option.names for choice in option.choices]


def _quoted(text: str, special: str = "") -> str:
    """A line for a shell's single quotes."""
    text = "".join(c if c.isprintable() else " " for c in text.replace("'", "’"))
    return (
        re.sub(rf"([\\{re.escape(special)}])", r"\\\1", text) if special else text.replace("\\", "")
    )


_SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
