"""Each pass on a graph of a few nodes."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edge_mrl.codes.packing import normalize, quantize
from edge_mrl.errors import UsageError
from edge_mrl_export import build
from edge_mrl_export.graph import lowering, passes
from edge_mrl_export.graph.passes.contract import AppendContract
from edge_mrl_export.graph.passes.inputs import FoldInputs
from edge_mrl_export.graph.passes.int4 import (
    BLOCK,
    PackProducts,
    PackTables,
    count_packed_products,
)
from edge_mrl_export.graph.passes.kernels import ApproximateGelu, SplitFusions
from edge_mrl_export.graph.passes.names import ShortenNames
from edge_mrl_export.graph.passes.pen import constant
from edge_mrl_export.graph.passes.positions import TrimPositions
from edge_mrl_export.graph.passes.products import (
    QuantizeProducts,
    count_integer_products,
    find_products,
    is_gelu,
)
from edge_mrl_export.graph.passes.tables import QuantizeTables
from edge_mrl_export.graph.passes.vocabulary import SelectRows
from edge_mrl_export.graph.quantization import (
    FIXED_ERROR,
    ProductPlan,
    choose_plan,
    correct_weight,
    quantize_blocks,
    quantize_columns,
)
from tests.export.graphs import FLOATS, IDS, new_graph, output, relative_error, run

RNG = np.random.default_rng(17)
#: One int8 rounding of activations and weights: relative error of a product's output.
INT8_ERROR = 0.02
INT4_ERROR = 0.15


def product_model(activation: str | None = None, bias: bool = False) -> tuple[ir.Model, np.ndarray]:
    model, pen = new_graph(x=(FLOATS, ["n", "s", 64]))
    value = model.graph.inputs[0]
    if activation == "Gelu":
        value = pen.op("Gelu", value, domain="com.microsoft")
    weight = RNG.normal(size=(64, 48)).astype(np.float32)
    result = pen.op("MatMul", value, pen.const(weight))
    if bias:
        result = pen.op("Add", pen.const(RNG.normal(size=48), np.float32), result)
    return output(model, result), weight


@pytest.mark.parametrize("activation", [None, "Gelu"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("smooth", [False, True])
def test_quantize_products_keeps_the_result(
    activation: str | None, bias: bool, smooth: bool
) -> None:
    model, _ = product_model(activation, bias)
    x = RNG.normal(size=(2, 5, 64)).astype(np.float32)
    (expected,) = run(model, x=x)
    value = find_products(model)[0][0].value
    assert is_gelu(value) == (activation is not None)
    scale = np.linspace(0.5, 2, 64).astype(np.float32) if smooth else None
    minimum = np.float32(-0.17) if activation else None
    QuantizeProducts({str(value.name): ProductPlan(scale, minimum, 0.0)})(model)
    assert count_integer_products(model) == 1
    (got,) = run(model, x=x)
    assert 0 < relative_error(got, expected) < INT8_ERROR


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("unsigned", [False, True])
def test_fixed_step_keeps_the_result_in_three_nodes(
    bias: bool, smooth: bool, unsigned: bool
) -> None:
    model, weight = product_model(None, bias)
    x = RNG.normal(size=(2, 5, 64)).astype(np.float32) + 1
    (expected,) = run(model, x=x)
    plan = choose_plan(x.reshape(-1, 64), weight, gelu=False, may_smooth=False, may_fix=True)
    assert plan.step is not None
    if smooth:
        plan = ProductPlan(
            np.full(64, 2, np.float32), None, 0.0, np.float32(2 * plan.step), plan.zero
        )
    QuantizeProducts({"x": plan}, unsigned=unsigned)(model)
    kinds = [node.op_type for node in model.graph]
    assert kinds == ["Mul"] * smooth + ["QuantizeLinear", "MatMulIntegerToFloat"]  # bias inside
    (got,) = run(model, x=x)
    assert 0 < relative_error(got, expected) < INT8_ERROR
    stored = [v.const_value.dtype for v in model.graph.initializers.values() if v.shape.rank() == 2]  # type: ignore[union-attr]
    assert stored == [ir.DataType.UINT8 if unsigned else ir.DataType.INT8]


def test_fixed_step_is_only_planned_where_it_loses_little() -> None:
    weight = RNG.normal(size=(64, 32)).astype(np.float32)
    rows = RNG.normal(size=(256, 64)).astype(np.float32)
    assert choose_plan(rows, weight, gelu=False).step is None
    fixed = choose_plan(rows, weight, gelu=False, may_fix=True)
    assert fixed.step is not None
    assert fixed.error <= FIXED_ERROR
    rows *= np.geomspace(0.01, 100, 256)[:, None]  # tokens of very different size
    assert choose_plan(rows, weight, gelu=False, may_fix=True).step is None


def test_split_fusions_gives_the_same_result() -> None:
    model, pen = new_graph(x=(FLOATS, ["n", "s", 16]), skip=(FLOATS, ["n", "s", 16]))
    vectors = [pen.const(RNG.normal(size=16), np.float32) for _ in range(4)]
    x, skip = model.graph.inputs
    biased = pen.op("BiasGelu", x, vectors[0], domain="com.microsoft")
    norm = pen.op(
        "SkipLayerNormalization", biased, skip, *vectors[1:], domain="com.microsoft", epsilon=1e-5
    )
    output(model, norm)
    feeds = {name: RNG.normal(size=(2, 3, 16)).astype(np.float32) for name in ("x", "skip")}
    (expected,) = run(model, **feeds)
    SplitFusions()(model)
    assert {node.op_type for node in model.graph} == {"Add", "Gelu", "LayerNormalization"}
    (got,) = run(model, **feeds)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_approximate_gelu_is_close() -> None:
    model, pen = new_graph(x=(FLOATS, ["n", 64]))
    output(model, pen.op("Gelu", model.graph.inputs[0], domain="com.microsoft"))
    x = np.linspace(-8, 8, 640, dtype=np.float32).reshape(10, 64)
    (exact,) = run(model, x=x)
    ApproximateGelu()(model)
    assert [node.op_type for node in model.graph] == ["FastGelu"]
    (got,) = run(model, x=x)
    assert 0 < np.abs(got - exact).max() < 0.0005


def test_quantized_row_does_not_depend_on_the_others() -> None:
    model, _ = product_model()
    value = find_products(model)[0][0].value
    QuantizeProducts({str(value.name): ProductPlan(None, None, 0.0)})(model)
    x = RNG.normal(size=(3, 4, 64)).astype(np.float32)
    x[1] *= 1000
    (together,) = run(model, x=x)
    (alone,) = run(model, x=x[:1])
    np.testing.assert_array_equal(together[0], alone[0])


def test_zero_row_gives_zeros_not_nan() -> None:
    model, _ = product_model()
    value = find_products(model)[0][0].value
    QuantizeProducts({str(value.name): ProductPlan(None, None, 0.0)})(model)
    (got,) = run(model, x=np.zeros((1, 2, 64), np.float32))
    assert (got == 0).all()


def test_products_of_one_input_share_its_codes() -> None:
    model, pen = new_graph(x=(FLOATS, ["n", 64]))
    x = model.graph.inputs[0]
    for _ in range(3):
        output(model, pen.op("MatMul", x, pen.const(RNG.normal(size=(64, 64)), np.float32)))
    (group,) = find_products(model)
    assert len(group) == 3
    QuantizeProducts({"x": ProductPlan(None, None, 0.0)})(model)
    assert count_integer_products(model) == 3
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph) == 1


def test_gemm_with_transposed_weight_and_bias_is_a_product() -> None:
    model, pen = new_graph(x=(FLOATS, ["n", 64]))
    weight, bias = RNG.normal(size=(40, 64)), RNG.normal(size=40)
    gemm = pen.op(
        "Gemm",
        model.graph.inputs[0],
        pen.const(weight, np.float32),
        pen.const(bias, np.float32),
        transB=1,
    )
    output(model, gemm)
    x = RNG.normal(size=(6, 64)).astype(np.float32)
    QuantizeProducts({"x": ProductPlan(None, None, 0.0)})(model)
    (got,) = run(model, x=x)
    assert relative_error(got, x @ weight.T + bias) < INT8_ERROR


def test_products_that_follow_each_other_are_all_integers() -> None:
    model, pen = new_graph(x=(FLOATS, ["n", 64]))
    first, second = (RNG.normal(size=shape).astype(np.float32) for shape in ((64, 48), (48, 32)))
    middle = pen.op("MatMul", model.graph.inputs[0], pen.const(first))
    output(model, pen.op("MatMul", middle, pen.const(second)))
    names = [str(group[0].value.name) for group in find_products(model)]
    QuantizeProducts({name: ProductPlan(None, None, 0.0) for name in names})(model)
    assert count_integer_products(model) == 2
    assert not any(node.op_type == "MatMul" for node in model.graph)
    x = RNG.normal(size=(6, 64)).astype(np.float32)
    (got,) = run(model, x=x)
    assert relative_error(got, x @ first @ second) < 2 * INT8_ERROR


def test_head_and_small_weights_stay_fp32() -> None:
    model, pen = new_graph(x=(FLOATS, ["n", 64]))
    x = model.graph.inputs[0]
    output(model, pen.op("MatMul", x, pen.const(np.eye(64), np.float32, name="head/weight")))
    output(model, pen.op("MatMul", x, pen.const(np.ones((64, 4)), np.float32)))
    assert find_products(model) == []


def test_product_without_plan_is_refused() -> None:
    model, _ = product_model()
    with pytest.raises(ir.passes.PreconditionError, match="no plan"):
        QuantizeProducts({})(model)


def test_plan_smooths_an_input_with_an_outlier_channel() -> None:
    rows = RNG.normal(size=(256, 64)).astype(np.float32)
    weight = RNG.normal(size=(64, 32)).astype(np.float32)
    assert choose_plan(rows, weight, gelu=False).smooth is None
    rows[:, 5] *= 60
    plan = choose_plan(rows, weight, gelu=False)
    assert plan.smooth is not None
    assert plan.smooth.argmin() == 5
    assert choose_plan(rows, weight, gelu=False, may_smooth=False).smooth is None


def test_columns_are_symmetric_and_full_range() -> None:
    weight = RNG.normal(size=(30, 7)).astype(np.float32)
    weight[:, 3] = 0
    codes, scale = quantize_columns(weight)
    assert codes.min() >= -127
    assert (np.abs(codes).max(axis=0) == [127, 127, 127, 0, 127, 127, 127]).all()
    assert np.abs(codes * scale - weight).max() <= scale.max() / 2 * 1.0001


def test_quantize_tables_keeps_rows_and_gathers_int8() -> None:
    model, pen = new_graph(ids=(IDS, ["n", "s"]))
    table = RNG.normal(size=(1024, 64)).astype(np.float32) * np.arange(1024)[:, None]
    rows = pen.op("Gather", pen.const(table, np.float32), model.graph.inputs[0])
    output(model, rows)
    QuantizeTables()(model)
    ids = np.array([[0, 1, 1023, 5]])
    (got,) = run(model, ids=ids)
    peak = np.abs(table[ids]).max(axis=-1, keepdims=True)
    # Half a step of 1/127, and the scale's own rounding to float16.
    assert (np.abs(got - table[ids]) <= peak * (0.5 / 127 + 2**-11)).all()
    assert sum(v.const_value.nbytes for v in model.graph.initializers.values()) < table.nbytes / 3.5  # type: ignore[union-attr]


def test_small_table_stays_fp32() -> None:
    model, pen = new_graph(ids=(IDS, ["n", "s"]))
    output(model, pen.op("Gather", pen.const(np.ones((2, 64)), np.float32), model.graph.inputs[0]))
    QuantizeTables()(model)
    assert [node.op_type for node in model.graph] == ["Gather"]


@pytest.mark.parametrize("depth", [64, 80])
def test_pack_products_keeps_the_result_roughly(depth: int) -> None:
    model, pen = new_graph(x=(FLOATS, ["n", depth]))
    weight = RNG.normal(size=(depth, 40)).astype(np.float32)
    output(model, pen.op("MatMul", model.graph.inputs[0], pen.const(weight)))
    PackProducts()(model)
    assert count_packed_products(model) == 1
    x = RNG.normal(size=(9, depth)).astype(np.float32)
    (got,) = run(model, x=x)
    assert 0 < relative_error(got, x @ weight) < INT4_ERROR


def test_pack_tables_expands_to_its_own_codes() -> None:
    model, pen = new_graph(ids=(IDS, ["n", "s"]))
    table = RNG.normal(size=(600, 2 * BLOCK)).astype(np.float32)
    output(model, pen.op("Gather", pen.const(table), model.graph.inputs[0]))
    PackTables()(model)
    ids = np.array([[0, 599, 17]])
    (got,) = run(model, ids=ids)
    codes, scales = quantize_blocks(table, BLOCK)
    expected = (codes.astype(np.float32) - 8) * np.repeat(scales, BLOCK, axis=1)
    np.testing.assert_allclose(got, expected[ids], atol=1e-6)
    assert relative_error(got, table[ids]) < INT4_ERROR


def test_fold_inputs_adds_the_token_type_to_the_table() -> None:
    shape = ["n", "s"]
    model, pen = new_graph(
        input_ids=(IDS, shape), attention_mask=(IDS, shape), token_type_ids=(IDS, shape)
    )
    words, types = RNG.normal(size=(50, 8)), RNG.normal(size=(2, 8))
    ids, _, kinds = model.graph.inputs
    left = pen.op("Gather", pen.const(words, np.float32, name="words"), ids)
    right = pen.op("Gather", pen.const(types, np.float32, name="types"), kinds)
    output(model, pen.op("Add", left, right))
    FoldInputs()(model)
    assert [value.name for value in model.graph.inputs] == ["input_ids", "attention_mask"]
    assert [node.op_type for node in model.graph] == ["Gather"]
    sample = np.array([[3, 4, 49]])
    (got,) = run(model, input_ids=sample, attention_mask=np.ones_like(sample))
    np.testing.assert_allclose(got, words[sample] + types[0], atol=1e-6)


def test_corrected_weights_make_up_for_each_others_rounding() -> None:
    random = np.random.default_rng(5)
    mixed = random.normal(size=(12, 64)).astype(np.float32)  # 64 inputs that move together
    rows = random.normal(size=(600, 12)).astype(np.float32) @ mixed
    weight = random.normal(size=(64, 24)).astype(np.float32)
    plan = choose_plan(rows[:400], weight, gelu=False)
    codes, scales = correct_weight(plan, rows[:400], weight).codes or quantize_columns(weight)
    smooth = np.ones(64, np.float32) if plan.smooth is None else plan.smooth
    exact, unseen = rows[400:] @ weight, rows[400:] * smooth
    nearest, steps = quantize_columns(weight / smooth[:, None])
    corrected = relative_error(unseen @ (codes * scales), exact)
    assert corrected < 0.6 * relative_error(unseen @ (nearest * steps), exact)
    assert np.abs(codes.astype(int)).max() <= 127


def test_weights_are_not_corrected_where_that_is_worse_on_other_rows() -> None:
    """Nothing to make up for: the inputs are independent, and there are few rows to learn from."""
    random = np.random.default_rng(5)
    rows = random.normal(size=(40, 64)).astype(np.float32)
    weight = random.normal(size=(64, 24)).astype(np.float32)
    plan = choose_plan(rows, weight, gelu=False)
    assert correct_weight(plan, rows, weight).codes is None


def test_products_of_one_input_take_their_own_columns_of_the_codes() -> None:
    random = np.random.default_rng(5)
    x = random.normal(size=(2, 5, 64)).astype(np.float32)
    weights = [random.normal(size=(64, n)).astype(np.float32) for n in (32, 48)]
    model, pen = new_graph(x=(FLOATS, ["a", "b", 64]))
    for weight in weights:
        output(model, pen.op("MatMul", model.graph.inputs[0], pen.const(weight)))
    exact = run(model, x=x)
    rows, joined = x.reshape(-1, 64), np.concatenate(weights, axis=1)
    plan = replace(
        choose_plan(rows, joined, gelu=False, may_smooth=False), codes=quantize_columns(joined)
    )
    QuantizeProducts({"x": plan})(model)
    for got, wanted in zip(run(model, x=x), exact, strict=True):
        assert relative_error(got, wanted) < 0.02


def test_fold_inputs_counts_positions_on_either_side_of_padding() -> None:
    shape = ["n", "s"]
    model, pen = new_graph(
        input_ids=(IDS, shape), attention_mask=(IDS, shape), position_ids=(IDS, shape)
    )
    output(model, pen.op("Add", *[model.graph.inputs[i] for i in (0, 2)]), IDS)
    FoldInputs()(model)
    mask = np.array([[1, 1, 1, 0], [0, 1, 1, 1]])
    (got,) = run(model, input_ids=np.zeros_like(mask), attention_mask=mask)
    assert got[0, :3].tolist() == [0, 1, 2]
    assert got[1, 1:].tolist() == [0, 1, 2]


def test_fold_inputs_makes_a_mask_for_a_graph_without_one() -> None:
    model, pen = new_graph(input_ids=(IDS, ["n", "s"]))
    output(model, pen.op("Gather", pen.const(np.eye(4), np.float32), model.graph.inputs[0]))
    FoldInputs()(model)
    assert [value.name for value in model.graph.inputs] == ["input_ids", "attention_mask"]
    ids = np.array([[1, 2]])
    run(model, input_ids=ids, attention_mask=ids)


def test_fold_inputs_refuses_unknown_inputs() -> None:
    model, _ = new_graph(input_ids=(IDS, ["n", "s"]), decoder_input_ids=(IDS, ["n", "s"]))
    with pytest.raises(UsageError, match="decoder_input_ids"):
        FoldInputs()(model)


def test_select_rows_keeps_the_chosen_ones() -> None:
    model, pen = new_graph(input_ids=(IDS, ["n", "s"]), attention_mask=(IDS, ["n", "s"]))
    table = RNG.normal(size=(20, 4)).astype(np.float32)
    output(model, pen.op("Gather", pen.const(table), model.graph.inputs[0]))
    kept = np.array([0, 3, 4, 19])
    SelectRows(kept)(model)
    sample = np.array([[3, 0, 2]])
    feeds = {"input_ids": sample}
    (got,) = run(model, attention_mask=sample, **feeds)
    np.testing.assert_array_equal(got, table[[[19, 0, 4]]])


def test_select_rows_needs_a_table() -> None:
    model, _ = new_graph(input_ids=(IDS, ["n", "s"]), attention_mask=(IDS, ["n", "s"]))
    with pytest.raises(UsageError, match="no constant table"):
        SelectRows(np.array([0]))(model)


def test_pen_reuses_an_equal_constant_of_the_same_name(tmp_path: Path) -> None:
    _, pen = new_graph(x=(FLOATS, ["n", 4]))
    first = pen.const(np.ones(3), np.float32, name="shared")
    assert pen.const(np.ones(3), np.float32, name="shared") is first
    assert constant(first).tolist() == [1, 1, 1]  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="shared"):
        pen.const(np.zeros(3), np.float32, name="shared")


def test_trim_positions_truncates_the_table_and_keeps_the_rows() -> None:
    model, pen = new_graph(length=(IDS, [1]))
    table = RNG.normal(size=(64, 4)).astype(np.float32)
    counted = pen.const(np.arange(64)[None], np.int64)
    axis = pen.const([1], np.int64)
    cut = pen.op("Slice", counted, pen.const([0], np.int64), model.graph.inputs[0], axis)
    output(model, pen.op("Gather", pen.const(table), cut))
    TrimPositions(10)(model)
    (got,) = run(model, length=np.array([7]))
    np.testing.assert_array_equal(got, table[None, :7])
    sizes = sorted(v.const_value.nbytes for v in model.graph.initializers.values())  # type: ignore[union-attr]
    assert sizes[-1] == 10 * 4 * 4


@pytest.mark.parametrize("layer_norm", [False, True])
def test_head_stands_before_the_cut_and_leaves_full_alone(layer_norm: bool) -> None:
    shape = ["n", "s"]
    model, pen = new_graph(input_ids=(IDS, shape), attention_mask=(IDS, shape))
    table = RNG.normal(size=(30, 12)).astype(np.float32) + 1
    rows = pen.op("Gather", pen.const(table), model.graph.inputs[0])
    pooled = pen.op("ReduceMean", rows, pen.const([1], np.int64), keepdims=0)
    output(model, pooled)
    head = np.linalg.qr(RNG.normal(size=(12, 12)))[0][:, :8].astype(np.float32)
    AppendContract((), dim=5, width=12, head=head, layer_norm=layer_norm, scale=0.5)(model)
    ids = np.array([[1, 2, 3], [4, 5, 29]])
    coarse, full = run(model, input_ids=ids, attention_mask=np.ones_like(ids))
    expected = normalize(table[ids].mean(axis=1))
    np.testing.assert_allclose(full, expected, atol=1e-6)
    centred = expected - expected.mean(axis=1, keepdims=True) if layer_norm else expected
    codes = quantize(normalize((centred @ head)[:, :5]), scale=0.5)
    assert np.abs(coarse.astype(int) - codes).max() <= 1
    assert np.abs(codes.astype(int)).max() == 127  # scale 0.5 clips
    assert head.shape == constant(model.graph.initializers["head/weight"]).shape  # type: ignore[union-attr]


def test_names_get_short_and_the_outputs_stay() -> None:
    model, pen = new_graph(a=(FLOATS, ["n", 4]), b=(FLOATS, ["n", 4]))
    left, right = model.graph.inputs
    # Names that the pass will give away, on other values than they are for.
    total = pen.op("Add", left, pen.const(np.arange(4), np.float32, name="d"), name="c")
    scaled = pen.op("Mul", total, pen.const(2.0, np.float32, name="a/very/long/name"), name="/0")
    output(model, pen.op("Sub", scaled, right, name="e"))
    feeds = {name: RNG.normal(size=(3, 4)).astype(np.float32) for name in "ab"}
    (before,) = run(model, **feeds)
    ShortenNames()(model)
    proto = ir.to_proto(model)
    assert [value.name for value in (*proto.graph.input, *proto.graph.output)] == ["a", "b", "e"]
    inner = {name for node in proto.graph.node for name in node.output} - {"e"}
    assert sorted({t.name for t in proto.graph.initializer} | inner) == ["c", "d", "f", "g"]
    assert not proto.graph.value_info
    assert not any(node.name for node in proto.graph.node)
    (after,) = run(model, **feeds)
    np.testing.assert_array_equal(after, before)


def test_table_of_passes_names_each_pass_in_the_order_of_an_export() -> None:
    modules = [
        importlib.import_module(f"{passes.__name__}.{found.name}")
        for found in pkgutil.iter_modules(passes.__path__)
    ]
    made = {
        name
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, ir.passes.InPlacePass)
    }
    rows = re.findall(r"^\| (\w+) +\| (\w+)", passes.__doc__ or "", re.MULTILINE)[1:]
    assert sorted(name for name, _ in rows) == sorted(made)
    for name in made:
        (described,) = {vars(m)[name].__doc__ for m in modules if name in vars(m)}
        assert "Requires:" in described, name
        assert "Ensures:" in described, name
    code = inspect.getsource(build._build_graph) + inspect.getsource(lowering)
    called = re.findall(rf"\b({'|'.join(made)})\(", code)
    assert set(called) == made
    for precision in ("int8", "int4"):  # one of them runs, with those that always do
        listed = [name for name, runs in rows if runs not in {"int8", "int4"} - {precision}]
        other = {name for name, runs in rows if runs in {"int8", "int4"} - {precision}}
        assert [name for name in called if name not in other][:-1] == listed[:-1]
