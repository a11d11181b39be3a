"""Make demo/corpus.jsonl anew from the documentation strings of Python's standard library.

    python -m demo.make_corpus

The strings are of the Python Software Foundation; see demo/README.md. The file is committed, so that
the demo finds the same text whichever Python runs it.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

MODULES = [
    "abc",
    "argparse",
    "array",
    "ast",
    "asyncio",
    "base64",
    "bisect",
    "builtins",
    "bz2",
    "calendar",
    "cmath",
    "collections",
    "collections.abc",
    "concurrent.futures",
    "configparser",
    "contextlib",
    "copy",
    "csv",
    "ctypes.util",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "dis",
    "email.message",
    "enum",
    "fileinput",
    "fnmatch",
    "fractions",
    "ftplib",
    "functools",
    "gc",
    "getpass",
    "gettext",
    "glob",
    "graphlib",
    "gzip",
    "hashlib",
    "heapq",
    "hmac",
    "html",
    "html.parser",
    "http.client",
    "http.cookies",
    "http.server",
    "imaplib",
    "inspect",
    "io",
    "ipaddress",
    "itertools",
    "json",
    "keyword",
    "linecache",
    "locale",
    "logging",
    "logging.handlers",
    "lzma",
    "mailbox",
    "math",
    "mimetypes",
    "mmap",
    "multiprocessing.pool",
    "operator",
    "os",
    "os.path",
    "pathlib",
    "pickle",
    "pkgutil",
    "platform",
    "plistlib",
    "poplib",
    "pprint",
    "profile",
    "pstats",
    "queue",
    "random",
    "re",
    "sched",
    "secrets",
    "select",
    "selectors",
    "shelve",
    "shlex",
    "shutil",
    "signal",
    "smtplib",
    "socket",
    "socketserver",
    "sqlite3",
    "ssl",
    "stat",
    "statistics",
    "string",
    "struct",
    "subprocess",
    "sys",
    "sysconfig",
    "tarfile",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "timeit",
    "token",
    "tokenize",
    "trace",
    "traceback",
    "types",
    "typing",
    "unicodedata",
    "unittest",
    "unittest.mock",
    "urllib.parse",
    "urllib.request",
    "urllib.robotparser",
    "uuid",
    "venv",
    "warnings",
    "wave",
    "weakref",
    "webbrowser",
    "xml.dom.minidom",
    "xml.etree.ElementTree",
    "xmlrpc.client",
    "zipfile",
    "zlib",
    "zoneinfo",
]
FEWEST_WORDS = 8


def main() -> None:
    """Write one line for each documented public function, class and method."""
    target = Path(__file__).parent / "corpus.jsonl"
    entries: dict[str, str] = {}
    seen: set[str] = set()
    for name in MODULES:
        for identifier, text in documented(name, importlib.import_module(name)):
            if text not in seen:
                seen.add(text)
                entries.setdefault(identifier, text)
    with target.open("w", encoding="utf-8") as file:
        for identifier, text in sorted(entries.items()):
            line = {"id": identifier, "title": identifier, "text": text}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    print(f"{len(entries):,} entries, {target.stat().st_size / 1e3:,.0f} kB")


def documented(name: str, module: ModuleType) -> Iterator[tuple[str, str]]:
    """Name and documentation of what a module offers, and of the methods of its classes."""
    prefix = "" if name == "builtins" else f"{name}."
    for label in sorted(getattr(module, "__all__", None) or vars(module)):
        value = getattr(module, label, None)
        if label.startswith("_") or inspect.ismodule(value) or not callable(value):
            continue
        yield from _entry(f"{prefix}{label}", value)
        if inspect.isclass(value):
            for method in sorted(vars(value)):
                if not method.startswith("_"):
                    yield from _entry(f"{prefix}{label}.{method}", getattr(value, method, None))


def _entry(identifier: str, value: object) -> Iterator[tuple[str, str]]:
    text = inspect.getdoc(value) if callable(value) or isinstance(value, property) else None
    if text and len(text.split()) >= FEWEST_WORDS and " object at 0x" not in text:
        yield identifier, text


if __name__ == "__main__":
    main()
