"""The command line: finds the sub-command, loads only that one, and reports errors.

A sub-command is a module with ``HELP``, ``add_arguments(parser)`` and ``run(args) -> exit code``.
Nothing heavy is imported here, so that help and usage errors appear at once.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

from edge_mrl._version import __version__
from edge_mrl.errors import EdgeMrlError, MissingDependencyError, OutOfMemoryError, UsageError
from edge_mrl.lazy import lazily
from edge_mrl.machine import memory

if TYPE_CHECKING:
    from edge_mrl.cli.common.output import duration, print_json, size
    from edge_mrl.cli.common.progress import Progress

__all__ = ["COMMANDS", "EXTRAS", "Progress", "duration", "main", "parser_of", "print_json", "size"]

__getattr__ = lazily(
    __name__,
    {"common.output": ("duration", "print_json", "size"), "common.progress": ("Progress",)},
)

#: Sub-commands of the runtime, each a module of this package, with its ``HELP``.
COMMANDS = {
    "inspect": "show what a bundle contains",
    "verify": "check a bundle's files and its vectors on this machine",
    "pack": "write a bundle as one .zip file",
    "pull": "fetch a bundle from a model hub, and check it",
    "push": "publish a bundle on a model hub",
    "embed": "encode lines of text as vectors",
    "index": "add documents to a store",
    "search": "find the documents that answer a question",
    "list": "list the documents of a store",
    "get": "print documents of a store",
    "delete": "delete documents from a store",
    "dump": "write what a store holds as lines of JSON",
    "load": "put the lines of a dump into a store",
    "stats": "show how many documents a store holds, and its size",
    "check": "check a store for damage",
    "compact": "free the space of deleted documents",
    "reindex": "change a store to another bundle",
    "adapt": "fit a store's codes to its own text, on this machine",
    "encrypt": "encrypt a store",
    "rekey": "give an encrypted store another key",
    "decrypt": "make an encrypted store a plain one",
    "enroll": "connect a store to a server, as one of its devices",
    "sync": "keep a store and a server in sync",
    "mcp": "let agents search a store, by the Model Context Protocol",
    "serve-embeddings": "give embeddings to clients of OpenAI's API, on this machine",
    "bench": "measure speed and memory on this machine",
    "doctor": "find problems with this machine, a bundle or a store",
    "completion": "print what a shell needs to complete commands and options",
}
#: Where a sub-command's module is, if it is not in this folder.
FOLDERS = {
    "completion": "shell.",
    "decrypt": "keys.",
    "dump": "exchange.",
    "encrypt": "keys.",
    "list": "exchange.",
    "load": "exchange.",
    "mcp": "doors.",
    "pack": "exchange.",
    "pull": "hub.",
    "push": "hub.",
    "rekey": "keys.",
    "serve-embeddings": "doors.",
}
#: Sub-commands that load a bundle in this process.
EMBEDDING = frozenset(
    {"adapt", "embed", "index", "load", "mcp", "reindex", "search", "serve-embeddings"}
)
#: Sub-commands of other packages, which are found by their entry points.
EXTRAS = {
    "export": "turn a text-embedding model into a small, verified bundle",
    "eval": "measure how much retrieval quality short codes keep, on your data",
    "advise": "find the smallest code that is good enough, on your data",
    "sign": "sign a bundle, or make a key to sign with",
    "serve": "run a server that devices sync with",
    "admin": "manage a server's tenants, devices and tokens",
}
#: The extra that such a command needs, if the extra has another name; and those of the runtime that
#: need one.
EXTRA_OF = {
    "eval": "export",
    "mcp": "mcp",
    "serve-embeddings": "embeddings",
    "sign": "signed",
    "advise": "export",
    "serve": "server",
    "admin": "server",
}
ENTRY_POINTS = "edge_mrl.commands"

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
PIPE_CLOSED = 141  # 128 + SIGPIPE

_FOOT = """\
a first run, where edge-mrl-minilm is installed:
  edge-mrl index notes/ --store notes.db
  edge-mrl search "what was that about?" --store notes.db

exit codes: 0 done, 1 a check failed, 2 wrong usage or input, 3 a package is missing,
            4 network or server, 5 some input was left out, 130 interrupted

`edge-mrl COMMAND --help` describes a command.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; those of the process if None.

    Returns:
        The exit code. ``--help`` and ``--version`` raise SystemExit, as argparse does.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # text that the terminal cannot show is escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
    except EdgeMrlError as error:
        code = _report(type(error).__name__, str(error), error.exit_code, arguments)
        return _end_now(code, argv) if isinstance(error, OutOfMemoryError) else code
    except BrokenPipeError:
        # The reader of our output has closed it. Without this, Python complains again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        message = f"{name}{error.strerror or error}"
        return _report(type(error).__name__, message, UsageError.exit_code, arguments)
    except KeyboardInterrupt:
        print("edge-mrl: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if not memory.ran_out(error):
            raise
        shortage = memory.as_error(error)
        code = _report(type(shortage).__name__, str(shortage), shortage.exit_code, arguments)
        return _end_now(code, argv)
    return code


def _end_now(code: int, argv: Sequence[str] | None) -> int:
    """End the process of a command that ran out of memory; in another process, give back the code.

    Libraries that were stopped halfway may crash when they are taken down. All files are closed by now.
    """
    if argv is None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


class _Parser(argparse.ArgumentParser):
    """Raises a usage error instead of ending the process, so that all errors are reported alike."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `{self.prog} --help`)")


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        parser = _overview()
        parser.parse_args(arguments)
        parser.print_help(sys.stderr)
        return UsageError.exit_code
    name = arguments[0]
    parser, command = parser_of(name)
    args = parser.parse_args(arguments[1:])
    if hasattr(args, "fills_store") or hasattr(args, "fills_bundle"):
        from edge_mrl.cli.common.defaults import fill_defaults

        fill_defaults(args)
    _prepare(name, args)
    try:
        with _trusting(getattr(args, "trust", None)), _showing_migrations(args):
            code: int = command.run(args)
    except ModuleNotFoundError as error:
        if name not in {**EXTRAS, **EXTRA_OF}:
            raise
        raise _missing(name, f"{name} needs {error.name}") from error
    return code


def parser_of(name: str) -> tuple[argparse.ArgumentParser, ModuleType]:
    """The parser of a command, and the command's module.

    Raises:
        MissingDependencyError: It is a command of an extra that is not installed.
        UsageError: There is no such command.
    """
    command = _load(name)
    parser = _Parser(
        prog=f"edge-mrl {name}",
        description=_sentence(command.HELP),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    return parser, command


@contextlib.contextmanager
def _trusting(keys: str | None) -> Iterator[None]:
    """Ask for a signature by these keys, also in the processes that a command starts."""
    before = os.environ.get("EDGE_MRL_TRUST")
    if keys is not None:
        os.environ["EDGE_MRL_TRUST"] = keys
    try:
        yield
    finally:
        if keys is not None:
            os.environ.pop("EDGE_MRL_TRUST")
            if before is not None:
                os.environ["EDGE_MRL_TRUST"] = before


def _showing_migrations(args: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """Show how far a store of an earlier version is, where a command opens one."""
    if getattr(args, "store", None) is None:
        return contextlib.nullcontext()
    from edge_mrl.cli.common.migrating import showing_migrations

    return showing_migrations(quiet=getattr(args, "quiet", False))


def _prepare(name: str, args: argparse.Namespace) -> None:
    """Do what must be done before numpy is loaded, in this process or in one that it starts."""
    # numpy's products are small here, and its threads wait for each other. On two cores they made a
    # search take 8 ms instead of 1.7, an exhaustive one 170 ms instead of 37, every start 50 ms longer,
    # and an export on a busy machine 230 s instead of 120.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # The hub's client reads these when it is loaded. A failure is one line: ours.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if getattr(args, "quiet", False) or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    low_memory = getattr(args, "low_memory", False)
    if low_memory:
        memory.one_thread_each()
    if name in EMBEDDING:
        memory.require_room(memory.START_BYTES, code_bytes=memory.CODE_BYTES)
        memory.load_unwinder()


def _overview() -> argparse.ArgumentParser:
    rows = [f"  {name:<18}{text}" for name, text in {**EXTRAS, **COMMANDS}.items()]
    parser = _Parser(
        prog="edge-mrl",
        usage="edge-mrl COMMAND ...",
        description="Semantic search that lives on the device.\n\ncommands:\n" + "\n".join(rows),
        epilog=_FOOT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"edge-mrl {__version__}")
    return parser


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _load(name: str) -> ModuleType:
    if name in COMMANDS:
        place = f"{FOLDERS.get(name, '')}{name.replace('-', '_')}"
        return importlib.import_module(f"edge_mrl.cli.{place}")
    # Reading the entry points of all installed packages takes time, so it is done only if needed.
    from importlib.metadata import entry_points

    try:
        for entry in entry_points(group=ENTRY_POINTS, name=name):
            module: ModuleType = entry.load()
            return module
    except ImportError as error:
        raise _missing(name, f"{name} needs {error.name or error}") from error
    if name in EXTRAS:
        raise _missing(name, f"{name} is not installed")
    raise UsageError(_unknown(name))


def _missing(name: str, what: str) -> MissingDependencyError:
    extra = EXTRA_OF.get(name, name)
    return MissingDependencyError(f'{what}: pip install "edge-mrl[{extra}]"')


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, [*EXTRAS, *COMMANDS], n=1)
    hint = f"did you mean {near[0]}?" if near else "`edge-mrl --help` lists the commands"
    return f"there is no command {name!r}: {hint}"


def _report(kind: str, message: str, code: int, arguments: list[str]) -> int:
    print(f"edge-mrl: error: {message}", file=sys.stderr)
    if "--json" in arguments:
        print(json.dumps({"error": {"kind": kind, "message": message}}))
    return code
