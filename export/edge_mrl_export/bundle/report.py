"""The report beside a bundle: report.json for programs, report.html for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edge_mrl.bundle import Manifest
from edge_mrl.cli import size
from edge_mrl_export.pages import Axis, Line, Page, Panel

__all__ = ["report_data", "report_html"]

#: What the files of a bundle are that run; the rest is for checks and for people.
WEIGHTS = ("model.onnx", "model.onnx.data")
FIDELITY = (
    "Cosines of the written bundle, run by the edge-mrl runtime, to the source model run by its own "
    "library, over the calibration text (your own, if you gave some). A code is compared with the code "
    "of the source's own vector. The last two compare a text alone with itself in a batch."
)
ELSEWHERE = (
    "Computed from the model's parameters, without graph and tokenizer: 4 bytes each for fp32, 2 for "
    "fp16; for stock int8, 1 byte for all matrices and 4 for the rest, as onnxruntime's quantize_dynamic "
    "leaves them. This bundle: its graph and weights, as they lie on disk. Cutting the code makes the "
    "index smaller, not the graph."
)


def report_data(manifest: Manifest, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a bundle when it is written: no times, so that equal exports are equal.

    Args:
        manifest: The manifest, before hashes.
        facts: Fidelity, gates, head, vocabulary, notes.
    """
    return {
        "name": manifest.name,
        "source": {"model": manifest.source.model, "licence": manifest.source.licence},
        "architecture": manifest.source.architecture,
        "dims": {"coarse": manifest.dim, "full": manifest.full_dim},
        "max_tokens": manifest.max_tokens,
        "prompts": manifest.prompts,
        "layer_norm": manifest.head.layer_norm,
        "precision": {
            "weights": manifest.precision.weights,
            "activations": manifest.precision.activations,
            "integer_products": manifest.precision.integer_products,
            "smoothed_products": manifest.precision.smoothed_products,
        },
        **facts,
        "tools": manifest.tools,
    }


def report_html(data: Mapping[str, Any]) -> str:
    """A self-contained page of the report's figures."""
    dims, code, source = data["dims"], data["code"], data["source"]
    full = (
        "no full vectors" if dims["full"] is None else f"full vectors of {dims['full']} dimensions"
    )
    page = Page(
        f"{data['name']}, {dims['coarse']} dimensions",
        f"A bundle for search on the device, made of {source['model']} ({data['architecture']}, licence "
        f"{source['licence']}). It gives codes of {dims['coarse']} dimensions, of which a store keeps "
        f"{code['bytes']} bytes a passage ({code['stored']}), and {full}.",
    )
    for note in data["notes"]:
        page.note(note)
    page.heading(
        "What is in the graph", "From the tokens to the code; a runtime has none of it to set."
    )
    page.facts(_baked(data))
    page.heading("How near it is to the source", FIDELITY)
    page.facts(_fidelity(data))
    curve = data["quality_by_dimension"]
    page.heading("Quality by dimension", f"Measured: {curve['measured']}.")
    page.plots([_curve_panel(curve)])
    page.figures(*_curve_table(curve))
    page.heading("Size of the weights", ELSEWHERE)
    page.facts(_sizes(data))
    page.heading("The head", "The map from the full vector to the code.")
    page.facts(_flat(data["head"]))
    page.heading("Files")
    page.facts((name, size(count)) for name, count in data["sizes_bytes"].items())
    page.heading("Made with")
    page.facts(_flat(data["tools"]))
    return page.html()


def _baked(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    dims, precision, vocabulary = data["dims"], data["precision"], data["vocabulary"]
    yield "Input", f"up to {data['max_tokens']:,} tokens"
    for kind, prompt in data["prompts"].items():
        yield f"Prompt of a {kind}", f"“{prompt}”" if prompt else "none"
    yield "Vocabulary", f"{vocabulary['tokens']:,} of {vocabulary['source_tokens']:,} tokens"
    yield "Weights", precision["weights"]
    yield "Activations", precision["activations"]
    yield "Integer products", f"{precision['integer_products']:,}"
    yield "After the network", ", then ".join(data["baked"])
    yield "Full vector", "left out" if dims["full"] is None else f"{dims['full']}, unit length"
    yield "Layer norm before the head", "yes" if data["layer_norm"] else "no"
    yield "Head", f"{data['head']['kind']} ({data['head']['why']})"
    yield "Cut", f"the first {dims['coarse']} dimensions, brought to unit length again"
    yield "Code", f"int8, round(127 x); a store keeps {data['code']['stored']}"


def _fidelity(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    found, gates = data["fidelity"], data["gates"]
    yield "Texts", f"{found['texts']:,}"
    names = {
        "cosine_mean": "Full vector, mean",
        "cosine_min": "Full vector, least",
        "code_cosine_mean": "Code, mean",
        "code_cosine_min": "Code, least",
        "padded_min": "Padded, least",
        "mixed_min": "Among other lengths, least",
    }
    for key, name in names.items():
        least = f" (at least {gates[key]})" if key in gates and gates["enforced"] else ""
        yield name, f"{found[key]:.4f}{least}"


def _curve_panel(curve: Mapping[str, Any]) -> Panel:
    names = {"prefix": "cut"}
    lines = [
        Line(
            names.get(kind, kind),
            [(d, 100 * s) for d, s in zip(curve["dims"], scores, strict=True)],
        )
        for kind, scores in curve["kept"].items()
    ]
    dims = [float(dim) for dim in curve["dims"]]
    across = tuple(dims) if len(dims) > 1 else (dims[0] / 2, dims[0])
    x = Axis("dimensions of the code", across)
    most = max(max(scores) for scores in curve["kept"].values())
    ticks = (0, 20, 40, 60, 80, 100) if most <= 1 else (0, 20, 40, 60, 80, 100, 120)
    y = Axis("of what the full vectors reach, %", ticks, log=False)
    return Panel("Held-out text" if "held-out" in curve["measured"] else "Text", x, y, lines)


def _curve_table(curve: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    heads = ["dimensions", *("cut" if kind == "prefix" else kind for kind in curve["kept"])]
    rows = [
        [str(dim), *(f"{scores[place]:.1%}" for scores in curve["kept"].values())]
        for place, dim in enumerate(curve["dims"])
    ]
    return heads, rows


def _sizes(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    others = data["weights_elsewhere"]
    own = sum(data["sizes_bytes"].get(name, 0) for name in WEIGHTS)
    yield "Parameters", f"{others['parameters']:,}"
    yield "This bundle", size(own)
    for key, name in (("fp32", "fp32"), ("fp16", "fp16"), ("stock_int8", "stock int8")):
        yield f"As {name}", f"{size(others[key])} ({others[key] / own:.1f} times this)"


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        label = key.replace("_", " ")
        if isinstance(value, Mapping):
            yield from ((f"{label}, {inner}", leaf) for inner, leaf in _flat(value))
        else:
            yield label, _shown(value)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    plain = isinstance(value, int) and not isinstance(value, bool)
    return f"{value:,}" if plain else str(value) or "none"
