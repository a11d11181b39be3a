"""Sizes, memory and instructions of the app: ``python -m bench.android.figures PART --bundle DIR``.

PART is one of these:

- sizes: the APK for each kind of processor, unsigned, and the app bundle, in bytes;
- memory: the largest resident set of Java with the core while it indexes short passages;
- instructions: what a query and a document cost the APK's own classes and libraries on an emulated
  Cortex-A76, and Python beside them. Java compiles while it runs, so its counts differ a little from run
  to run: the difference of two processes, one of which encodes the text more often.

With --record, it is written to bench/results/android-PART.json.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from android_demo.tools import build
from bench.arm.instructions import count
from bench.arm.worker import TEXTS
from bench.support.machine import save
from tests.android.emulation.phone import Phone, open_phone
from tests.android.probe import Probe

__all__ = ["main"]

CPU = "cortex-a76"
ABI = "arm64-v8a"
PASSAGES = 20_000
HEAP = "-Xmx192m"
#: Documents that are sent to Java in a line.
LINE = 500
#: How often the text is encoded in each of the two processes.
FEW, MANY = {"query": 40, "document": 10}, {"query": 80, "document": 20}


def sizes(bundle: Path, folder: Path) -> dict[str, int]:
    """Bytes of the APKs, of the app bundle, and of what is in an APK."""
    apk = build.build(build.Build("apk", bundle, (ABI,), None, folder / "one.apk"))
    both = build.build(build.Build("apk", bundle, build.DEFAULT_ABIS, None, folder / "both.apk"))
    aab = build.build(build.Build("aab", bundle, build.DEFAULT_ABIS, None, folder / "app.aab"))
    found = {f"apk {ABI}": apk, f"apk {' '.join(build.DEFAULT_ABIS)}": both, "aab": aab}
    with zipfile.ZipFile(apk) as archive:
        inside = {
            "classes.dex": archive.getinfo("classes.dex").file_size,
            "libonnxruntime.so": archive.getinfo(f"lib/{ABI}/libonnxruntime.so").file_size,
            "model, compressed": sum(
                one.compress_size for one in archive.infolist() if "bundle/" in one.filename
            ),
        }
    return {**{name: file.stat().st_size for name, file in found.items()}, **inside}


def memory(bundle: Path, folder: Path) -> dict[str, int]:
    """KiB of the largest resident set, before the first passage and behind the last one."""
    with Probe(["-XX:TieredStopAtLevel=1", HEAP]) as kotlin:
        kotlin("index.open", path=str(folder / "s.db"), bundle=str(bundle))
        kotlin("index.put", documents=list(_documents(range(1))))
        opened = _peak(kotlin.process.pid)
        for first in range(0, PASSAGES, LINE):
            kotlin("index.put", documents=list(_documents(range(first, first + LINE))))
        kotlin("index.search", query="a short note", mode="hybrid")
        peak = _peak(kotlin.process.pid)
        kotlin("index.close")
    return {"opened": opened, f"{PASSAGES} passages": peak}


def _documents(numbers: Iterable[int]) -> Iterable[dict[str, Any]]:
    for number in numbers:
        yield {"id": f"n{number}", "text": f"a short note, {number}", "metadata": {}}


def _peak(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text("ascii"))
    assert found is not None
    return int(found.group(1))


def instructions(phone: Phone, bundle: Path, folder: Path) -> list[dict[str, Any]]:
    """Instructions for one text, by the APK and by Python."""
    rows = []
    for kind in TEXTS:
        totals, tokens = [], 0
        for times in (FEW[kind], MANY[kind]):
            counts = folder / "counts"
            asked = {"do": "encode", "bundle": str(bundle), "kind": kind.upper()}
            (tokens,) = phone(
                [{**asked, "text": TEXTS[kind], "times": times}], cpu=CPU, counts=counts
            )
            totals.append(int(counts.read_text("ascii").split()[-1]))
        each = (totals[1] - totals[0]) // (MANY[kind] - FEW[kind])
        rows.append({"by": "apk", "text": kind, "tokens": tokens, "instructions": each})
    for cost in count(phone.bed, bundle, cpu=CPU):
        if cost.what == "encoder":
            row = {"by": "python", "text": cost.text, "tokens": cost.tokens}
            rows.append({**row, "instructions": cost.instructions})
    return rows


def main() -> int:
    """Measure, print, and write bench/results/android-PART.json if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("sizes", "memory", "instructions"))
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--record", action="store_true", help="write the result")
    args = parser.parse_args()
    bundle = args.bundle.resolve()
    settings: dict[str, Any] = {}
    found: Any
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.part == "sizes":
            found = sizes(bundle, folder)
        elif args.part == "memory":
            settings = {"heap": HEAP, "passages": PASSAGES}
            found = memory(bundle, folder)
        else:
            apk = build.build(build.Build("apk", build.TINY, (ABI,), None, folder / "app.apk"))
            (folder / "phone").mkdir()
            phone = open_phone(apk, folder / "phone")
            settings = {"cpu": CPU, "test_bed": phone.bed.versions}
            found = instructions(phone, bundle, folder)
    print(found)
    if args.record:
        save(f"android-{args.part}", settings, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
