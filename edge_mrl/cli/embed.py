"""``edge-mrl embed``: lines of text to vectors."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mrl.cli.common.output import count, duration, print_json, size
from edge_mrl.cli.common.progress import Progress
from edge_mrl.cli.common.stores import add_bundle, add_threads
from edge_mrl.cli.common.vectors import JsonLines, Npy, replacing
from edge_mrl.errors import EncoderError, UsageError

if TYPE_CHECKING:
    from edge_mrl.cli.common.vectors import Writer
    from edge_mrl.encode import Encoder

__all__ = ["HELP", "add_arguments", "run"]

HELP = "encode lines of text as vectors"
STANDARD = "-"
_BOM = b"\xef\xbb\xbf"
_EPILOG = """\
Each line is one text (an empty line too) and gives one row, in the order of the input. Lines end at LF
or CR LF. Bytes that are not UTF-8 become U+FFFD, with a warning. Input of any size takes bounded memory.

output:
  -           JSON Lines on standard output (default), one object a text:
              {"index": 0, "coarse": [...], "full": [...]}
  FILE.jsonl  the same in a file
  FILE.npy    one array for numpy.load: int8[n, dim] (--which coarse) or float32[n, D] (--which full)
The file appears once it is complete.

examples:
  echo "hello there" | edge-mrl embed --bundle minilm
  edge-mrl embed --bundle minilm notes.txt -o notes.npy --which full
  edge-mrl embed --bundle minilm --kind query questions.txt -o questions.jsonl

exit codes: 0 done; 2 wrong usage or input, or the bundle cannot be used
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="text files (default: -, standard input)"
    )
    add_bundle(parser, option=True)
    parser.add_argument(
        "--kind",
        choices=("document", "query"),
        default="document",
        help="what the texts are; the model's prompt for this kind is added (default: document)",
    )
    parser.add_argument(
        "-o",
        "--output",
        default=STANDARD,
        metavar="FILE",
        help="where to write the vectors (default: -, standard output)",
    )
    parser.add_argument(
        "--which",
        choices=("coarse", "full"),
        help="write only these vectors (default: coarse for .npy, else all that the bundle gives)",
    )
    add_threads(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the summary as one JSON object (not if the vectors go to standard output)",
    )
    parser.add_argument(
        "--quiet", action="store_true", help="print no progress, warnings or summary"
    )


def run(args: argparse.Namespace) -> int:
    """Embed texts. The summary goes to standard output unless the vectors do."""
    from edge_mrl.encode import Encoder

    started = time.monotonic()
    files = _checked_files(args.files or [STANDARD])
    total = sum(Path(file).stat().st_size for file in files if file != STANDARD)
    with ExitStack() as stack:
        encoder = stack.enter_context(
            Encoder.open(args.bundle, threads=args.threads, low_memory=args.low_memory)
        )
        writer = _open_writer(args, encoder, stack)
        bar = stack.enter_context(Progress("embedding", total, quiet=args.quiet))
        lines = _read_lines(files, warn=lambda text: bar.write(f"edge-mrl: warning: {text}"))
        texts = _stream(encoder, lines, writer, kind=args.kind, bar_advance=bar.advance)
        writer.finish()
        manifest = encoder.manifest
    seconds = time.monotonic() - started
    _summarise(args, texts, seconds, {"dim": manifest.dim, "full_dim": manifest.full_dim})
    return 0


def _checked_files(files: list[str]) -> list[str]:
    for file in files:
        if file != STANDARD and not Path(file).exists():
            raise UsageError(f"no file {file}")
        if Path(file).is_dir():
            raise UsageError(
                f"{file} is a folder, expected a text file (`edge-mrl index` reads folders)"
            )
    return files


def _open_writer(args: argparse.Namespace, encoder: Encoder, stack: ExitStack) -> Writer:
    manifest = encoder.manifest
    if args.which == "full" and manifest.full_dim is None:
        raise UsageError(f"{args.bundle} gives no full vectors: leave out --which full")
    if args.output == STANDARD:
        return JsonLines(sys.stdout.buffer, which=args.which)
    path = Path(args.output)
    if path.suffix not in (".npy", ".jsonl"):
        raise UsageError(f"output {args.output}: expected a name ending in .npy or .jsonl, or -")
    if not path.parent.is_dir():
        raise UsageError(f"output {args.output}: there is no folder {path.parent}")
    file = stack.enter_context(replacing(path))
    if path.suffix == ".jsonl":
        return JsonLines(file, which=args.which)
    width = manifest.dim if args.which != "full" else manifest.full_dim
    return Npy(file, which=args.which or "coarse", width=width or 0)


def _read_lines(files: list[str], *, warn: Callable[[str], None]) -> Iterator[tuple[str, int]]:
    """Lines without their ends, each with its size in bytes."""
    for name in files:
        broken = 0
        with ExitStack() as stack:
            file = (
                sys.stdin.buffer if name == STANDARD else stack.enter_context(Path(name).open("rb"))
            )
            for number, raw in enumerate(file):
                line = raw.removeprefix(_BOM) if number == 0 else raw
                line = line.removesuffix(b"\n").removesuffix(b"\r")
                try:
                    text = line.decode("utf-8")
                except UnicodeDecodeError:
                    text, broken = line.decode("utf-8", "replace"), broken + 1
                yield text, len(raw)
        if broken:
            shown = "standard input" if name == STANDARD else name
            lines = "1 line is" if broken == 1 else f"{broken:,} lines are"
            warn(f"{shown}: {lines} not UTF-8; invalid bytes became U+FFFD")


def _stream(
    encoder: Encoder,
    lines: Iterable[tuple[str, int]],
    writer: Writer,
    *,
    kind: str,
    bar_advance: Callable[..., None],
) -> int:
    """Encode and write, some hundred texts at a time; returns their number."""
    pending = 0
    window: list[str] = []  # texts that were read and are not encoded yet

    def texts() -> Iterator[str]:
        nonlocal pending
        for text, size_bytes in lines:
            pending += size_bytes
            window.append(text)
            yield text

    done = 0
    try:
        for encoding in encoder.stream(texts(), kind=kind):
            writer.write(encoding)
            done += len(encoding)
            del window[: len(encoding)]
            bar_advance(pending, note=f"{done:,} texts")
            pending = 0
    except EncoderError as error:
        number = done + 1 + _first_refused(encoder, window, kind)
        raise EncoderError(f"text {number:,}: {error}; leave this line out") from error
    return done


def _first_refused(encoder: Encoder, texts: list[str], kind: str) -> int:
    """The place of the first text that the bundle cannot take, among texts with at least one."""
    for place, text in enumerate(texts):
        try:
            encoder.encode([text], kind=kind)
        except EncoderError:
            return place
    return 0


def _summarise(
    args: argparse.Namespace, texts: int, seconds: float, dims: dict[str, int | None]
) -> None:
    if args.output == STANDARD:
        if not args.quiet:
            print(f"{count(texts, 'text')} in {duration(seconds)}", file=sys.stderr)
        return
    size_bytes = Path(args.output).stat().st_size
    if args.json:
        facts = {"output": args.output, "texts": texts, **dims}
        print_json({**facts, "size_bytes": size_bytes, "seconds": round(seconds, 3)})
    elif not args.quiet:
        print(f"{args.output}: {count(texts, 'text')}, {size(size_bytes)}, in {duration(seconds)}")
