"""Instructions of embedding on ARM CPUs: ``python -m bench.arm.instructions --bundle DIR [DIR ...]``.

Emulated Cortex-A72 (Raspberry Pi 4) and A76 (Raspberry Pi 5); the counts are exact, repeat from run to
run, and say nothing of how many instructions a CPU runs in a second. DIR may also be an ``.onnx`` file
with the inputs input_ids and attention_mask.

With --record, the first bundle is compared with its fp32 twin and with the stock dynamic int8 of the same
graph, and all of it is written to bench/results/arm.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.support.machine import save
from tests.arm.testbed import Emulator, UnavailableError, open_testbed

__all__ = ["Cost", "count"]

ROOT = Path(__file__).parent.parent.parent
WORKER = Path(__file__).parent / "worker.py"
COUNTED = ("cortex-a72", "cortex-a76")
RUNS = 3
TEXTS = ("query", "document")
TIMEOUT_S = 540.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Instructions for one text.

    Attributes:
        cpu: A name in tests.arm.testbed.CPUS.
        what: "graph" is session.run alone, "encoder" is Encoder.encode with the tokenizer.
        text: "query" or "document".
        tokens: In the text.
        instructions: The median of some runs.
        least: The least of them.
        most: The most of them.
    """

    cpu: str
    what: str
    text: str
    tokens: int
    instructions: int
    least: int
    most: int


def count(
    bed: Emulator, model: Path, *, cpu: str, runs: int = RUNS, texts: Sequence[str] = TEXTS
) -> list[Cost]:
    """Count the instructions of a bundle or an ``.onnx`` file on one CPU.

    Raises:
        RuntimeError: The model does not run there.
        UnavailableError: No counting on this machine.
    """
    with tempfile.TemporaryDirectory() as scratch:
        counts = Path(scratch) / "counts"
        worker = bed.run(
            WORKER, model.resolve(), runs, *texts, cpu=cpu, counts=counts, timeout_s=TIMEOUT_S
        )
        # The last line is of the process's end.
        readings = [int(line) for line in counts.read_text("ascii").split()][:-1]
    costs = []
    order = json.loads(worker.stdout)["order"]
    each = runs + 2
    for place, entry in enumerate(order):
        own = readings[place * each : (place + 1) * each]
        empty, *steps = (b - a for a, b in itertools.pairwise(own))
        exact = [step - empty for step in steps]
        middle = int(statistics.median(exact))
        costs.append(Cost(cpu, **entry, instructions=middle, least=min(exact), most=max(exact)))
    if len(readings) != each * len(order):
        raise RuntimeError(f"{len(readings)} readings on {cpu}, expected {each * len(order)}")
    return costs


def main() -> int:
    """Count, print, and write bench/results/arm.json if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, nargs="+", required=True)
    parser.add_argument("--runs", type=int, default=RUNS, help="of each text (default: 3)")
    parser.add_argument("--record", action="store_true", help="compare, and write the result")
    args = parser.parse_args()
    try:
        bed = open_testbed()
    except UnavailableError as error:
        print(f"no ARM test bed: {error}", file=sys.stderr)
        return 3
    with tempfile.TemporaryDirectory() as scratch:
        models = {str(path): path for path in args.bundle}
        if args.record:
            models = {"default": args.bundle[0], **_others(Path(scratch))}
        results = {}
        for name, path in models.items():
            results[name] = _both(bed, path, args.runs)
            print(_table(name, results[name]), flush=True)
    if args.record:
        rows = {name: [_row(cost) for cost in costs] for name, costs in results.items()}
        path = save("arm", {"runs": args.runs, "test_bed": bed.versions}, rows)
        print(f"written to {path.relative_to(ROOT)}")
    return 0


def _both(bed: Emulator, model: Path, runs: int) -> list[Cost]:
    """Both CPUs at once: counting is not timing."""
    with ThreadPoolExecutor(len(COUNTED)) as pool:
        found = pool.map(lambda cpu: count(bed, model, cpu=cpu, runs=runs), COUNTED)
        return [cost for costs in found for cost in costs]


def _others(scratch: Path) -> dict[str, Path]:
    """The default model in fp32, and what onnxruntime's dynamic quantisation makes of that graph."""
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    fp32, stock = scratch / "fp32", scratch / "stock.onnx"
    export = [sys.executable, "-m", "edge_mrl", "export", "--fp32", "-o", str(fp32), "--quiet"]
    subprocess.run(export, check=True, cwd=ROOT)
    quantize_dynamic(
        fp32 / "model.onnx",
        stock,
        per_channel=False,
        weight_type=QuantType.QInt8,
        # What comes out of the fused nodes has no type that onnx itself could infer.
        extra_options={"DefaultTensorType": TensorProto.FLOAT},
    )
    return {"stock dynamic int8, per tensor": stock, "fp32": fp32}


def _row(cost: Cost) -> dict[str, Any]:
    return {name: getattr(cost, name) for name in Cost.__dataclass_fields__}


def _table(name: str, costs: Sequence[Cost]) -> str:
    lines = [name]
    kinds = dict.fromkeys((cost.what, cost.text, cost.tokens) for cost in costs)
    for what, text, tokens in kinds:
        found = {c.cpu: c.instructions for c in costs if (c.what, c.text) == (what, text)}
        figures = "".join(f"{cpu} {found[cpu] / 1e6:8.2f} M   " for cpu in COUNTED)
        lines.append(f"  {what:<8} {text:<9} {tokens:>4} tokens   {figures}".rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
