"""Instructions of the native kernels on ARM CPUs: ``python -m bench.arm.kernels --bundle DIR``.

The library is cross-compiled into a program without Python, and counted as bench/arm/instructions.py
counts ONNX Runtime: the same texts, the same emulated CPUs, and QEMU's ``max``, which has I8MM. Counts
are of the graph alone, without the tokenizer, and say nothing of time. With --record they are written to
bench/results/arm-kernels.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.arm.worker import TEXTS
from bench.support.machine import save
from edge_mrl.bundle import GRAPH, HEAD, WEIGHTS
from edge_mrl.encode import Encoder
from tests.arm.testbed import Emulator, UnavailableError, open_testbed

__all__ = ["count"]

ROOT = Path(__file__).parent.parent.parent
COMPILER = "aarch64-linux-gnu-gcc"
CPUS = {"cortex-a72": "neon", "cortex-a76": "dotprod", "max": "i8mm"}
RUNS = 3
TIMEOUT_S = 540.0


def count(bed: Emulator, program: Path, bundle: Path, *, cpu: str, ids: list[int]) -> list[int]:
    """Instructions of each of some runs of one text."""
    names = [name for name in (WEIGHTS, HEAD) if (bundle / name).exists()]
    with tempfile.TemporaryDirectory() as scratch:
        counts = Path(scratch) / "counts"
        bed.run(
            *(CPUS[cpu], bundle / GRAPH, *(f"{name}={bundle / name}" for name in names), RUNS),
            cpu=cpu,
            program=program,
            counts=counts,
            stdin=" ".join(map(str, ids)).encode() + b"\n",
            timeout_s=TIMEOUT_S,
        )
        # The last line is of the process's end.
        readings = [int(line) for line in counts.read_text("ascii").split()][:-1]
    empty, *steps = (b - a for a, b in itertools.pairwise(readings))
    if len(steps) != RUNS:
        raise RuntimeError(f"{len(readings)} readings on {cpu}, expected {RUNS + 2}")
    return [step - empty for step in steps]


def _program(folder: Path) -> Path:
    place = ROOT / "kernels" / "build_library.py"
    spec = importlib.util.spec_from_file_location("build_library", place)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{place} is missing")
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    made = folder / "run"
    builder.compile_programs(
        {made: [builder.CHECKS / "run.c"]}, compiler=COMPILER, more=["-static"]
    )
    return made


def main() -> int:
    """Count, print, and write bench/results/arm-kernels.json if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--record", action="store_true", help="write the result")
    args = parser.parse_args()
    if shutil.which(COMPILER) is None:
        print(f"{COMPILER} is missing: apt-get install gcc-aarch64-linux-gnu", file=sys.stderr)
        return 3
    try:
        bed = open_testbed()
    except UnavailableError as error:
        print(f"no ARM test bed: {error}", file=sys.stderr)
        return 3
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch, Encoder.open(args.bundle, threads=1) as encoder:
        program = _program(Path(scratch))
        for cpu, kernel in CPUS.items():
            for text, content in TEXTS.items():
                ids = encoder.tokenize([content], kind=text)[0]
                found = count(bed, program, args.bundle, cpu=cpu, ids=ids)
                row = {"cpu": cpu, "kernels": kernel, "text": text, "tokens": len(ids)}
                middle = int(statistics.median(found))
                rows.append(
                    {**row, "instructions": middle, "least": min(found), "most": max(found)}
                )
                print(f"{cpu:<12}{kernel:<9}{text:<9} {len(ids):>4} tokens {middle / 1e6:8.2f} M")
    if args.record:
        settings = {"runs": RUNS, "qemu": bed.versions["qemu"]}
        path = save("arm-kernels", settings, {"kernels": rows})
        print(f"written to {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
