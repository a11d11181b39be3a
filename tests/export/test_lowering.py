"""From an fp32 graph to the precision that was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edge_mrl.errors import UsageError
from edge_mrl_export.graph.calibration import record_inputs
from edge_mrl_export.graph.lowering import Lowered, lower
from edge_mrl_export.graph.optimizer import optimize
from tests.export.graphs import FLOATS, IDS, new_graph, output, relative_error, run

TOKENS, WIDTH, OUT = 600, 64, 48
TEXTS = [[1, 2, 3, 4], [5, 6], [7, 8, 9, 10, 11, 12]]
IDS_OF_TEST = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
#: Of the outputs: one rounding of table, activations and weights.
ERRORS = {"fp32": 1e-6, "int8": 0.03, "int4": 0.2}


def source(seed: int = 0) -> ir.Model:
    """A table of tokens, a layer norm and a product: float32[texts, tokens, OUT]."""
    chance = np.random.default_rng(seed)
    model, pen = new_graph(
        input_ids=(IDS, ["texts", "tokens"]), attention_mask=(IDS, ["texts", "tokens"])
    )
    ids, mask = model.graph.inputs
    table = chance.normal(size=(TOKENS, WIDTH)).astype(np.float32)
    rows = pen.op("Gather", pen.const(table, name="table"), ids)
    shown = pen.op("Unsqueeze", pen.op("Cast", mask, to=FLOATS), pen.const([-1], np.int64))
    norm = pen.op(
        "LayerNormalization",
        pen.op("Mul", rows, shown),
        pen.const(np.ones(WIDTH, np.float32)),
        pen.const(np.zeros(WIDTH, np.float32)),
        axis=-1,
    )
    weight = chance.normal(size=(WIDTH, OUT)).astype(np.float32)
    bias = chance.normal(size=OUT).astype(np.float32)
    return output(model, pen.op("Add", pen.op("MatMul", norm, pen.const(weight)), pen.const(bias)))


def feeds() -> dict[str, np.ndarray]:
    return {"input_ids": IDS_OF_TEST, "attention_mask": np.ones_like(IDS_OF_TEST)}


def lowered(precision: str, folder: Path, *, fixed: bool = True, unsigned: bool = False) -> Lowered:
    return lower(
        source(),
        precision,
        TEXTS,
        folder,
        care="fixed" if fixed else "per token",
        unsigned=unsigned,
    )


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_each_precision_gives_the_outputs_of_the_source(precision: str, tmp_path: Path) -> None:
    (expected,) = run(source(), **feeds())
    found = lowered(precision, tmp_path)
    assert found.precision.weights == precision
    (got,) = run(found.model, **feeds())
    error = relative_error(got, expected)
    assert error < ERRORS[precision]
    assert precision == "fp32" or error > ERRORS["fp32"]  # it is quantised indeed


def test_precision_is_described_as_the_graph_computes(tmp_path: Path) -> None:
    fixed = lowered("int8", tmp_path)
    assert fixed.precision.activations == "uint8 fixed"
    assert fixed.precision.integer_products == 1
    assert fixed.worst is not None
    assert 0 < fixed.worst[1] < 1e-3
    token = lowered("int8", tmp_path, fixed=False)
    assert token.precision.activations == "uint8 per token"
    unsigned = lowered("int8", tmp_path, unsigned=True)
    assert unsigned.precision.weights == "uint8"
    weights = [v.const_value for v in unsigned.model.graph.initializers.values()]
    assert ("UINT8", (WIDTH, OUT)) in [(w.dtype.name, w.shape.numpy()) for w in weights if w]
    int4 = lowered("int4", tmp_path)
    assert (int4.precision.activations, int4.precision.integer_products) == ("int8 per block", 1)
    assert int4.worst is None


def test_a_scale_per_token_keeps_texts_apart(tmp_path: Path) -> None:
    graph = lowered("int8", tmp_path, fixed=False).model
    (together,) = run(graph, **feeds())
    alone = IDS_OF_TEST[:1]
    (single,) = run(graph, input_ids=alone, attention_mask=np.ones_like(alone))
    np.testing.assert_allclose(together[:1], single, atol=1e-5)


def test_graph_without_anything_large_is_refused(tmp_path: Path) -> None:
    model, pen = new_graph(input_ids=(IDS, ["n", "s"]), attention_mask=(IDS, ["n", "s"]))
    small = pen.const(np.ones((10, 4), np.float32))
    output(model, pen.op("Gather", small, model.graph.inputs[0]))
    with pytest.raises(UsageError, match="--fp32"):
        lower(model, "int8", TEXTS, tmp_path)


def test_inputs_are_recorded_as_they_are_and_evenly(tmp_path: Path) -> None:
    model = source()
    norm = next(node for node in model.graph if node.op_type == "LayerNormalization").outputs[0]
    norm.dtype = ir.DataType.FLOAT
    told: list[int] = []
    rows = record_inputs(model, [norm], TEXTS, tmp_path, advance=lambda: told.append(1))
    kept = rows[str(norm.name)]
    assert kept.shape == (sum(map(len, TEXTS)), WIDTH)
    assert len(told) == len(TEXTS)
    np.testing.assert_allclose(kept.mean(axis=1), 0, atol=1e-5)  # outputs of a layer norm
    assert [value.name for value in model.graph.outputs] != [norm.name]  # the graph is as before


def test_optimizer_folds_constants_and_changes_no_output(tmp_path: Path) -> None:
    model, pen = new_graph(x=(FLOATS, ["n", 4]))
    doubled = pen.op("Add", pen.const(np.ones(4, np.float32)), pen.const(np.ones(4, np.float32)))
    output(model, pen.op("Mul", model.graph.inputs[0], doubled))
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    found = optimize(model, tmp_path)
    assert [node.op_type for node in found.graph] == ["Mul"]
    np.testing.assert_array_equal(run(found, x=x)[0], 2 * x)
