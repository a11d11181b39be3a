"""Where an encoder's time goes, operator by operator: ``python -m bench.encode.operators --bundle DIR``.

One thread. First the bundle's graph under ONNX Runtime's profiler, beside what the processor could do:
the integer and fp32 products' own limits, measured here. Then choices between operators that give the
same result, each alone, for the sizes of all-MiniLM-L6-v2.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from bench.encode.peak import Transformer
from bench.support.children import ROOT
from bench.support.machine import save
from edge_mrl.bundle.manifest import GRAPH
from edge_mrl_export.graph.passes.pen import CONTRIB, Pen

RNG = np.random.default_rng(5)
#: Texts and tokens: a query, and a batch of documents.
SHAPES = ((1, 10), (4, 128))
HIDDEN, HEADS = 384, 12
WARM_UP, RUNS = 5, 40
#: Token ids that any vocabulary has words at.
FIRST_ID, LAST_ID = 1000, 20000
#: Rows, depth and columns of a product large enough to reach the kernel's limit.
PEAK = (1024, 1536, 1536)


def main() -> int:
    """Measure, print tables, write bench/results/operators.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    args = parser.parse_args()
    peaks = {"int8": peak(np.uint8), "fp32": peak(np.float32)}
    print(", ".join(f"{name} products reach {rate:.0f} GMAC/s" for name, rate in peaks.items()))
    profiles = {}
    for texts, tokens in SHAPES:
        found = profile(args.bundle / GRAPH, texts, tokens)
        found["limits"] = limits(texts, tokens, peaks)
        profiles[f"{texts}x{tokens}"] = found
        print(profile_table(found, texts, tokens))
    compared = {f"{b}x{s}": choices(b, s) for b, s in SHAPES}
    print(choices_table(compared))
    settings = {"threads": 1, "runs": RUNS, "hidden": HIDDEN, "heads": HEADS}
    path = save(
        "operators", settings, {"peaks_gmac_s": peaks, "profiles": profiles, "choices_ms": compared}
    )
    print(f"written to {path.relative_to(ROOT)}")
    return 0


def profile(graph: Path, texts: int, tokens: int) -> dict[str, Any]:
    """Milliseconds for one run, in the median without the profiler, and by operator with it."""
    ids = RNG.integers(FIRST_ID, LAST_ID, (texts, tokens))
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    plain = _session(graph, _options())
    whole = _times(lambda: plain.run(None, feeds))
    with tempfile.TemporaryDirectory() as folder:
        options = _options()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = _session(graph, options)
        for _ in range(RUNS):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_bytes())
    spent: dict[str, list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            spent.setdefault(event["name"], []).append(event["dur"] / 1e3)
    by_operator: defaultdict[str, float] = defaultdict(float)
    nodes: Counter[str] = Counter()
    kinds = {e["name"]: e["args"]["op_name"] for e in events if "op_name" in e.get("args", {})}
    for name, times in spent.items():
        by_operator[kinds[name]] += float(np.median(times))
        nodes[kinds[name]] += 1
    return {
        "run_ms": round(float(np.median(whole)), 3),
        "operators": {
            kind: {"ms": round(ms, 4), "nodes": nodes[kind]}
            for kind, ms in sorted(by_operator.items(), key=lambda item: -item[1])
        },
    }


def limits(texts: int, tokens: int, peaks: dict[str, float]) -> dict[str, float]:
    """Milliseconds that the integer products and the fp32 attention need at their kernels' peaks."""
    model = Transformer(layers=6, hidden=HIDDEN, intermediate=4 * HIDDEN)
    whole = model.gmac([tokens] * texts)
    attention = model.layers * 2 * HIDDEN * tokens**2 * texts / 1e9
    return {
        "products_ms": round((whole - attention) / peaks["int8"] * 1e3, 3),
        "attention_ms": round(attention / peaks["fp32"] * 1e3, 3),
    }


def peak(dtype: type[np.generic]) -> float:
    """GMAC/s of ONNX Runtime's product by constant weights, one thread, at its best."""
    rows, depth, columns = PEAK
    graph = _Graph()
    if dtype is np.uint8:
        x = graph.input(RNG.integers(0, 256, (rows, depth)).astype(np.uint8))
        y = _integer_product(graph, x, depth, columns)
    else:
        x = graph.input(_floats(rows, depth))
        y = graph.pen.op("MatMul", x, graph.pen.const(_floats(depth, columns)))
    return round(rows * depth * columns / graph.milliseconds([y]) / 1e6, 1)


def choices(texts: int, tokens: int) -> dict[str, dict[str, float]]:
    """Milliseconds of operators that give the same result, for one layer of MiniLM."""
    return {
        "norm": _norms(texts, tokens),
        "gelu": _gelus(texts, tokens),
        "scaled codes": _codes(texts, tokens),
        "query, key, value": _projections(texts, tokens),
        "attention": _attention(texts, tokens),
    }


def _norms(texts: int, tokens: int) -> dict[str, float]:
    fused, split = _Graph(), _Graph()
    x, skip = _floats(texts, tokens, HIDDEN), _floats(texts, tokens, HIDDEN)
    weight, bias = _floats(HIDDEN), _floats(HIDDEN)
    y = fused.pen.op(
        "SkipLayerNormalization",
        fused.input(x),
        fused.input(skip),
        *map(fused.pen.const, (weight, bias, bias)),
        domain=CONTRIB,
        epsilon=1e-12,
    )
    added = split.pen.op("Add", split.input(x), split.pen.const(bias))
    total = split.pen.op("Add", added, split.input(skip))
    norm = map(split.pen.const, (weight, bias))
    z = split.pen.op("LayerNormalization", total, *norm, axis=-1, epsilon=1e-12)
    return {
        "SkipLayerNormalization": fused.milliseconds([y]),
        "Add, Add, LayerNormalization": split.milliseconds([z]),
    }


def _gelus(texts: int, tokens: int) -> dict[str, float]:
    x, bias = _floats(texts, tokens, 4 * HIDDEN), _floats(4 * HIDDEN)
    results = {}
    for kind, biased in (("BiasGelu", True), ("Gelu", False), ("FastGelu", False)):
        graph = _Graph()
        inputs = [graph.input(x), *([graph.pen.const(bias)] if biased else [])]
        results[kind] = graph.milliseconds([graph.pen.op(kind, *inputs, domain=CONTRIB)])
    return results


def _codes(texts: int, tokens: int) -> dict[str, float]:
    x, scale = _floats(texts, tokens, HIDDEN), np.abs(_floats(HIDDEN)) + 1
    fused, split = _Graph(), _Graph()
    zeros = fused.pen.const(np.full(HIDDEN, 128, np.uint8))
    y = fused.pen.op("QuantizeLinear", fused.input(x), fused.pen.const(scale), zeros, axis=2)
    scaled = split.pen.op("Mul", split.input(x), split.pen.const(scale))
    z = split.pen.op("QuantizeLinear", scaled, *_step(split))
    return {
        "QuantizeLinear by channel": fused.milliseconds([y]),
        "Mul, QuantizeLinear": split.milliseconds([z]),
    }


def _projections(texts: int, tokens: int) -> dict[str, float]:
    x = RNG.integers(0, 256, (texts, tokens, HIDDEN)).astype(np.uint8)
    three, one = _Graph(), _Graph()
    value = three.input(x)
    outputs = [_integer_product(three, value, HIDDEN, HIDDEN) for _ in range(3)]
    whole = _integer_product(one, one.input(x), HIDDEN, 3 * HIDDEN)
    split = ir.node("Split", [whole], {"axis": -1, "num_outputs": 3}, num_outputs=3)
    for index, output in enumerate(split.outputs):
        output.name = f"part_{index}"
    one.graph.append(split)
    return {
        "three products": three.milliseconds(outputs),
        "one product, Split": one.milliseconds(list(split.outputs)),
    }


def _attention(texts: int, tokens: int) -> dict[str, float]:
    fused, split = _Graph(), _Graph()
    query, key, value = (_floats(texts, tokens, HIDDEN) for _ in range(3))
    lengths = np.full(texts, tokens, np.int32)
    bias = fused.pen.const(_floats(3 * HIDDEN))
    inputs = [fused.input(array) for array in (query, key, value)]
    y = fused.pen.op(
        "MultiHeadAttention", *inputs, bias, fused.input(lengths), domain=CONTRIB, num_heads=HEADS
    )
    heads = split.pen.const([texts, tokens, HEADS, HIDDEN // HEADS], np.int64)
    parts = []
    for array, order in ((query, (0, 2, 1, 3)), (key, (0, 2, 3, 1)), (value, (0, 2, 1, 3))):
        biased = split.pen.op("Add", split.input(array), split.pen.const(_floats(HIDDEN)))
        parts.append(split.pen.op("Transpose", split.pen.op("Reshape", biased, heads), perm=order))
    scores = split.pen.op("MatMul", parts[0], parts[1])
    masked = split.pen.op("Add", scores, split.input(np.zeros((texts, 1, 1, tokens), np.float32)))
    mixed = split.pen.op("MatMul", split.pen.op("Softmax", masked, axis=-1), parts[2])
    joined = split.pen.op("Transpose", mixed, perm=(0, 2, 1, 3))
    shape = split.pen.const([texts, tokens, HIDDEN], np.int64)
    z = split.pen.op("Reshape", joined, shape)
    return {
        "MultiHeadAttention": fused.milliseconds([y]),
        "MatMul, Add, Softmax, MatMul": split.milliseconds([z]),
    }


@dataclass(frozen=True, slots=True)
class _Feed:
    value: ir.Value
    array: NDArray[Any]


class _Graph:
    """A few nodes with their inputs, to be timed alone."""

    def __init__(self) -> None:
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": 21, CONTRIB: 1}, name="choice")
        self.pen = Pen(self.graph, "choice")
        self._feeds: list[_Feed] = []

    def input(self, array: NDArray[Any]) -> ir.Value:
        """A new input that holds this array when the graph is timed."""
        dtype = ir.DataType.from_numpy(array.dtype)
        value = ir.val(f"input_{len(self._feeds)}", dtype=dtype, shape=ir.Shape(array.shape))
        self.graph.inputs.append(value)
        self._feeds.append(_Feed(value, array))
        return value

    def milliseconds(self, outputs: Sequence[ir.Value]) -> float:
        """Least time of a run, without copies of inputs and outputs."""
        self.graph.outputs.extend(outputs)
        model = ir.to_proto(ir.Model(self.graph, ir_version=10)).SerializeToString()
        session = _session(model, _options())
        binding = session.io_binding()
        for feed in self._feeds:
            binding.bind_cpu_input(feed.value.name, feed.array)
        for output in outputs:
            binding.bind_output(output.name)
        return round(min(_times(lambda: session.run_with_iobinding(binding))), 4)


def _integer_product(graph: _Graph, codes: ir.Value, depth: int, columns: int) -> ir.Value:
    weight = graph.pen.const(RNG.integers(-127, 128, (depth, columns)).astype(np.int8))
    step, zero = _step(graph)
    scale = graph.pen.const(np.abs(_floats(columns)))
    return graph.pen.op("MatMulIntegerToFloat", codes, weight, step, scale, zero, domain=CONTRIB)


def _step(graph: _Graph) -> tuple[ir.Value, ir.Value]:
    return graph.pen.const(0.05, np.float32), graph.pen.const(128, np.uint8)


def _floats(*shape: int) -> NDArray[np.float32]:
    return RNG.standard_normal(shape).astype(np.float32)


def _times(run: Any) -> list[float]:
    """Milliseconds of each run after some to warm up."""
    times = []
    for _ in range(WARM_UP + RUNS):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return times[WARM_UP:]


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return options


def _session(model: Path | bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def profile_table(found: dict[str, Any], texts: int, tokens: int) -> str:
    """Operators, the most expensive first, and the two limits."""
    operators = found["operators"]
    total = sum(entry["ms"] for entry in operators.values())
    lines = [f"{texts} texts of {tokens} tokens: {found['run_ms']:.2f} ms"]
    for kind, entry in operators.items():
        if entry["ms"] / total >= 0.005:
            share = f"{entry['ms'] / total:6.1%}"
            lines.append(f"  {kind:<24}{entry['nodes']:>4} nodes{entry['ms']:>10.3f} ms{share:>8}")
    lines.append(
        f"  limits: products {found['limits']['products_ms']} ms, "
        f"attention {found['limits']['attention_ms']} ms"
    )
    return "\n".join(lines)


def choices_table(compared: dict[str, dict[str, dict[str, float]]]) -> str:
    """One line for each way, a column for each size."""
    shapes = list(compared)
    lines = [f"{'one layer, ms':<52}" + "".join(f"{shape:>10}" for shape in shapes)]
    for group, ways in compared[shapes[0]].items():
        for way in ways:
            cells = "".join(f"{compared[shape][group][way]:>10.4f}" for shape in shapes)
            lines.append(f"{group + ': ' + way:<52}{cells}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
