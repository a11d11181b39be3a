"""From the fp32 graph to the bundle's graph: optimised, and quantised to the wanted precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edge_mrl.bundle import Precision
from edge_mrl.encode import available_threads
from edge_mrl.errors import UsageError
from edge_mrl_export.graph.calibration import (
    CALIBRATION_ROWS,
    CORRECTION_ROWS,
    record_inputs,
)
from edge_mrl_export.graph.optimizer import optimize
from edge_mrl_export.graph.passes.int4 import PackProducts, PackTables, count_packed_products
from edge_mrl_export.graph.passes.kernels import ApproximateGelu, SplitFusions
from edge_mrl_export.graph.passes.names import ShortenNames
from edge_mrl_export.graph.passes.products import (
    Product,
    QuantizeProducts,
    count_integer_products,
    find_products,
    is_gelu,
    is_norm,
)
from edge_mrl_export.graph.passes.tables import QuantizeTables, count_int8_tables
from edge_mrl_export.graph.passes.versions import LowerVersions
from edge_mrl_export.graph.quantization import ProductPlan, choose_plan, correct_weight

__all__ = ["CARE", "Lowered", "lower"]

#: Ways to quantise to int8, from the fastest bundle and export to the most accurate.
CARE = ("fixed", "per token", "corrected")


@dataclass(frozen=True, slots=True)
class Lowered:
    """A bundle's graph, and how it computes.

    Attributes:
        model: The graph.
        precision: For the manifest.
        worst: The product with the largest relative squared error in calibration: its name and the error.
    """

    model: ir.Model
    precision: Precision
    worst: tuple[str, float] | None


def lower(
    model: ir.Model,
    precision: str,
    token_ids: Sequence[Sequence[int]],
    folder: Path,
    *,
    care: str = CARE[0],
    unsigned: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> Lowered:
    """Optimise a graph and quantise it.

    Args:
        model: fp32 graph with the outputs of a bundle.
        precision: "fp32", "int8" or "int4".
        token_ids: Calibration texts as token ids; int8 needs at least one.
        folder: An existing scratch folder.
        care: What int8 may cost, one of CARE: "fixed" lets calibration fix scales of inputs;
            "per token" does not; "corrected" also chooses codes of weights that make up for each other's
            rounding, which takes minutes.
        unsigned: Whether int8 weights are stored as uint8, for x86-64 without VNNI.
        advance: Called after each calibration text.
    """
    model = optimize(model, folder)
    SplitFusions()(model)
    if precision == "int8":
        ApproximateGelu()(model)
        plans = _plan(model, token_ids, folder, care=care, advance=advance)
        return _to_int8(model, plans, folder, unsigned=unsigned)
    if precision == "int4":
        PackProducts()(model)
        PackTables()(model)
        count = count_packed_products(model)
        described = Precision("int4", "int8 per block", integer_products=count, smoothed_products=0)
        return Lowered(_finish(model, folder), described, None)
    return Lowered(_finish(model, folder), Precision("fp32", "fp32", 0, 0), None)


def _to_int8(
    model: ir.Model, plans: dict[str, ProductPlan], folder: Path, *, unsigned: bool
) -> Lowered:
    QuantizeProducts(plans, unsigned=unsigned)(model)
    QuantizeTables()(model)
    expected = count_integer_products(model), count_int8_tables(model)
    if expected == (0, 0):
        raise UsageError("no product or table of this graph is large enough for int8: use --fp32")
    finished = _finish(model, folder)
    # Optimisers have folded integers back to fp32: then all looks well, but it is slow.
    found = count_integer_products(finished), count_int8_tables(finished)
    if found != expected:
        raise UsageError(
            f"the optimiser left {found[0]} of {expected[0]} integer products and {found[1]} of "
            f"{expected[1]} int8 tables: please report this model"
        )
    described = Precision(
        "uint8" if unsigned and plans else "int8",
        _activations(plans),
        integer_products=found[0],
        smoothed_products=sum(plan.smooth is not None for plan in plans.values()),
    )
    worst = max(((n, p.error) for n, p in plans.items()), key=lambda item: item[1], default=None)
    return Lowered(finished, described, worst)


def _activations(plans: dict[str, ProductPlan]) -> str:
    fixed = sum(plan.step is not None for plan in plans.values())
    if not plans:
        return "fp32"
    if fixed in (0, len(plans)):
        return "uint8 fixed" if fixed else "uint8 per token"
    return "uint8 fixed and per token"


def _plan(
    model: ir.Model,
    token_ids: Sequence[Sequence[int]],
    folder: Path,
    *,
    care: str,
    advance: Callable[[], None],
) -> dict[str, ProductPlan]:
    groups = find_products(model)
    if not groups:
        return {}
    values = [group[0].value for group in groups]
    corrected = care == "corrected"
    most = CORRECTION_ROWS if corrected else CALIBRATION_ROWS
    rows = record_inputs(model, values, token_ids, folder, most=most, advance=advance)

    def choose(group: Sequence[Product]) -> tuple[str, ProductPlan]:
        value = group[0].value
        seen = rows[str(value.name)]
        weight = np.concatenate([product.weight for product in group], axis=1)
        shared = any(product.shared for product in group)  # stored once, for several inputs
        plan = choose_plan(
            seen,
            weight,
            gelu=is_gelu(value),
            may_smooth=not shared,
            may_fix=care == "fixed" and is_norm(value),
        )
        return str(value.name), correct_weight(
            plan, seen, weight
        ) if corrected and not shared else plan

    with ThreadPoolExecutor(available_threads()) as pool:
        return dict(pool.map(choose, groups))


def _finish(model: ir.Model, folder: Path) -> ir.Model:
    """Optimise once more, and remove what only says where the graph came from."""
    model = optimize(model, folder)
    common.ClearMetadataAndDocStringPass()(model)
    common.DeduplicateInitializersPass()(model)
    ShortenNames()(model)
    LowerVersions()(model)
    model.producer_name, model.producer_version = "edge-mrl", None
    model.graph.name = "edge-mrl"
    return model
