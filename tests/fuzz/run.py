"""Change valid files at random, and look at what each reader makes of them.

    python -m tests.fuzz.run                                every reader, 2,000 rounds for the fastest
    python -m tests.fuzz.run graph frame --seconds 60 --seed 7
    python -m tests.fuzz.run --grow                         keep files that reach new lines in corpus/

A reader may raise its documented error, with a message of at most 2,000 characters, or give a right
result, within 10 seconds of processor time and 48 MB of memory (tests/fuzz/limits.py). Anything else
ends the run with exit code 1, and the file that did it is in build/fuzz.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.limits import CostError, limited
from tests.fuzz.mutate import mutated
from tests.fuzz.reader import Reader
from tests.fuzz.readers import READERS

__all__ = ["CORPUS", "Finding", "campaign", "corpus"]

ROOT = Path(__file__).parent.parent.parent
CORPUS = Path(__file__).parent / "corpus"
MOST_MESSAGE_CHARS = 2_000
#: A larger file is not worth its place in the corpus.
MOST_KEPT_BYTES = 8_000
#: Lines are followed in these rooms when the corpus grows.
FOLLOWED = (
    "edge_mrl/bundle/",
    "edge_mrl/wire/",
    "edge_mrl/sync/",
    "edge_mrl/store/",
    "edge_mrl/encode/",
    "edge_mrl/sources/",
    "edge_mrl_server/",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A file that a reader did not stand.

    Attributes:
        reader: The reader's name.
        data: The file.
        problem: What happened.
    """

    reader: str
    data: bytes
    problem: str


@dataclass(slots=True)
class Tally:
    """Rounds of one campaign: how many gave a result and how many an error, and what was found."""

    results: int = 0
    errors: int = 0
    findings: list[Finding] = field(default_factory=list)
    grown: list[bytes] = field(default_factory=list)


def corpus(name: str) -> list[bytes]:
    """Files that were found to reach what seeds do not reach."""
    folder = CORPUS / name.replace(" ", "-")
    return [path.read_bytes() for path in sorted(folder.glob("*"))]


def campaign(
    name: str,
    rng: random.Random,
    *,
    rounds: int,
    seconds: float = 1e9,
    grow: bool = False,
    enough: int = 3,
) -> Tally:
    """Read changed files, until there are enough findings."""
    reader, tally = READERS[name], Tally()
    with tempfile.TemporaryDirectory(prefix="edge-mrl-fuzz-") as folder:
        scratch = Path(folder)
        seeds = reader.seeds(scratch)
        for seed in seeds:
            reader.read(seed, scratch)
        files = [*seeds, *corpus(name)]
        seen: set[Any] = set()
        if grow:
            for data in files:
                _reached(reader, data, scratch, seen)
        end = time.monotonic() + seconds
        for _ in range(rounds):
            data = mutated(rng.choice(files), rng, others=files)
            before = len(seen)
            problem, failed = _judge(reader, data, scratch, seen if grow else None)
            tally.errors += failed
            tally.results += not failed
            if problem:
                tally.findings.append(Finding(name, data, problem))
            elif len(seen) > before:
                files.append(data)
                tally.grown.append(data)
            if len(tally.findings) == enough or time.monotonic() > end:
                break
    return tally


def _judge(
    reader: Reader, data: bytes, scratch: Path, seen: set[Any] | None
) -> tuple[str | None, bool]:
    """What is wrong with how a reader took a file, or None; and whether it raised an error."""
    try:
        with limited(len(data)):
            if seen is None:
                reader.read(data, scratch)
            else:
                _reached(reader, data, scratch, seen, again=True)
    except CostError as error:
        return str(error), True
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        if not isinstance(error, reader.allowed):
            return f"{type(error).__name__}: {str(error)[:200]}", True
        if len(str(error)) > MOST_MESSAGE_CHARS:
            return f"{type(error).__name__} with a message of {len(str(error))} characters", True
        return None, True
    return None, False


def _reached(
    reader: Reader, data: bytes, scratch: Path, seen: set[Any], *, again: bool = False
) -> None:
    """Read a file and add the pairs of lines that it runs through, one after the other."""

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            name = frame.f_code.co_name
            seen.add((frame.f_code.co_filename, name, frame.f_lineno))
        return local

    def start(frame: FrameType, _: str, __: Any) -> Any:
        return local if any(part in frame.f_code.co_filename for part in FOLLOWED) else None

    sys.settrace(start)
    try:
        reader.read(data, scratch)
    except BaseException:
        if again:
            raise
    finally:
        sys.settrace(None)


def keep(finding: Finding) -> Path:
    """Write what a reader did not stand, to look at it."""
    folder = ROOT / "build" / "fuzz"
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(finding.data).hexdigest()[:12]
    path = folder / f"{finding.reader.replace(' ', '-')}-{digest}"
    path.write_bytes(finding.data)
    return path


def useful(name: str, files: list[bytes]) -> list[bytes]:
    """The small files that reach lines which neither seeds nor smaller files reach."""
    reader, seen, kept = READERS[name], set[Any](), []
    with tempfile.TemporaryDirectory(prefix="edge-mrl-fuzz-") as folder:
        scratch = Path(folder)
        for seed in reader.seeds(scratch):
            _reached(reader, seed, scratch, seen)
        for data in sorted(set(files), key=lambda data: (len(data), data)):
            before = len(seen)
            _reached(reader, data, scratch, seen)
            if len(seen) > before and len(data) <= MOST_KEPT_BYTES:
                kept.append(data)
    return kept


def replace_corpus(name: str, files: list[bytes]) -> None:
    """Keep these files for a reader, and no others."""
    folder = CORPUS / name.replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    for data in files:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)


def main() -> int:
    """Run campaigns, and say what they found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(READERS)}")
    parser.add_argument("--rounds", type=int, default=2000, help="rounds of the fastest reader")
    parser.add_argument("--seconds", type=float, default=1e9, help="most seconds for each reader")
    parser.add_argument("--seed", type=int, help="repeat a run")
    parser.add_argument("--grow", action="store_true", help="add to corpus/")
    args = parser.parse_args()
    logging.disable()  # a server says much of what is wrong with requests
    seed = random.SystemRandom().randrange(1 << 32) if args.seed is None else args.seed
    print(f"seed {seed}")
    failed = False
    for name in args.readers or READERS:
        rng = random.Random(f"{seed} {name}")
        rounds = max(args.rounds // READERS[name].cost, 1)
        tally = campaign(name, rng, rounds=rounds, seconds=args.seconds, grow=args.grow)
        print(f"{name}: {tally.results} results, {tally.errors} errors, {len(tally.grown)} new")
        for finding in tally.findings:
            failed = True
            print(f"  FOUND {finding.problem}: {keep(finding)}")
        if args.grow:
            replace_corpus(name, useful(name, [*corpus(name), *tally.grown]))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
