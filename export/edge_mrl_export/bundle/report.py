"""The report of an export: report.json for programs, report.html and a printed summary for people.

Both of the latter begin with what their reader wants to know: how large the bundle is, how close to its
source, how much retrieval quality the code keeps, and what to type next. How it was made comes after.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from edge_mrl.bundle import Manifest
from edge_mrl.cli import size
from edge_mrl_export.pages import Axis, Line, Page, Panel

__all__ = ["answer_rows", "next_commands", "report_data", "report_html"]

#: Files of a bundle that hold the network. The rest is the tokenizer, checks and this report.
NETWORK_FILES = ("model.onnx", "model.onnx.data")
#: Stands for the bundle's folder on the page: it names no path of the machine that it was written on.
PLACE = "BUNDLE"
FIDELITY = (
    "How it was measured: the written bundle, run by the edge-mrl runtime, against the source model, run "
    "by its own library, on the calibration text (your own text, if you gave some). Full vectors are "
    "compared with full vectors, codes with the codes of the source's vectors. The last two rows compare "
    "a text encoded alone with the same text encoded in a batch."
)
ELSEWHERE = (
    "Computed from the number of parameters, without graph and tokenizer: 4 bytes each in fp32, 2 in "
    "fp16. Stock int8 has 1 byte for each value of a matrix and 4 for all others, as onnxruntime's "
    "quantize_dynamic leaves them. For this bundle: graph and weights, as they are on disk. A shorter "
    "code makes the index smaller, not the network."
)
SPEED = (
    "The time to encode depends on the machine, so it is not in this file: equal exports give equal "
    "files. The export printed it; edge-mrl bench measures it on each device."
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


def answer_rows(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a reader wants to know first: names and values.

    Args:
        data: See ``report_data``.
    """
    fidelity, gates, code = data["fidelity"], data["gates"], data["code"]
    mean, least = fidelity["cosine_mean"], fidelity["cosine_min"]
    if not gates["enforced"]:
        verdict = "gates not enforced"
    else:
        verdict = f"gates {gates['cosine_mean']} and {gates['cosine_min']}: passed"
    rows = [
        ("size", f"{size(sum(data['sizes_bytes'].values()))} on disk"),
        (
            "fidelity",
            f"cosine to the fp32 source {mean:.4f} on average, {least:.4f} at the least ({verdict})",
        ),
    ]
    if code["kept"] is not None:
        rows.append(("quality", _kept(code)))
    passage = (
        f"{code['bytes']} bytes in a store: {data['dims']['coarse']} dimensions, {code['stored']}"
    )
    return [*rows, ("passage", passage)]


def _kept(code: Mapping[str, Any]) -> str:
    """What the stored codes keep: of the quality on held-out text, or else of the nearest texts."""
    if "held-out" in code["measured"]:
        return f"{code['kept']:.1%} of the full vectors' quality is kept, on held-out text"
    return f"{code['kept']:.1%} of each text's nearest others are found again, on sample text"


def next_commands(bundle: str) -> list[str]:
    """What to type next: check the bundle, index files with it, search them.

    Args:
        bundle: The bundle's folder.
    """
    folder = shlex.quote(bundle)
    return [
        f"edge-mrl verify {folder}",
        f"edge-mrl index notes/ --bundle {folder} --store notes.db",
        'edge-mrl search "a question about your notes" --store notes.db',
    ]


def report_html(data: Mapping[str, Any]) -> str:
    """A self-contained page of the report's figures.

    Args:
        data: See ``report_data``.
    """
    dims, source = data["dims"], data["source"]
    full = (
        "no full vectors" if dims["full"] is None else f"full vectors of {dims['full']} dimensions"
    )
    page = Page(
        f"{data['name']}, {dims['coarse']} dimensions",
        f"A bundle for search on the device, made from {source['model']} ({data['architecture']}, "
        f"licence {source['licence']}). It gives codes of {dims['coarse']} dimensions and {full}.",
    )
    _answers(page, data)
    page.heading("How close it is to the source", FIDELITY)
    page.facts(_fidelity(data))
    curve = data["quality_by_dimension"]
    page.heading("Quality by dimension", f"How it was measured: {curve['measured']}.")
    page.plots([_curve_panel(curve)])
    page.figures(*_curve_table(curve))
    page.heading("Size of the weights", ELSEWHERE)
    page.facts(_sizes(data))
    page.heading(
        "What is in the graph",
        "From token ids to the code. All of it is fixed; a runtime has no setting for any of it.",
    )
    page.facts(_graph(data))
    page.heading("The projection head", "It maps the full vector to the code.")
    page.facts(_flat(data["head"]))
    page.heading("Files")
    page.facts((name, size(count)) for name, count in data["sizes_bytes"].items())
    page.heading("Made with")
    page.facts(_flat(data["tools"]))
    return page.html()


def _answers(page: Page, data: Mapping[str, Any]) -> None:
    """What a reader wants to know first."""
    names = {
        "size": "Size",
        "fidelity": "Fidelity",
        "quality": "Retrieval quality",
        "passage": "Each passage",
    }
    page.facts((names[name], value) for name, value in answer_rows(data))
    if data["code"]["kept"] is not None:
        page.note(f"Retrieval quality: {data['code']['measured']}.")
    page.note(SPEED)
    for note in data["notes"]:
        page.note(f"Note: {note}.")
    page.heading("What to type next", f"{PLACE} stands for the folder of this page.")
    page.code("\n".join(next_commands(PLACE)))


def _graph(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    dims, precision, vocabulary = data["dims"], data["precision"], data["vocabulary"]
    yield "Longest input", f"{data['max_tokens']:,} tokens"
    for kind, prompt in data["prompts"].items():
        yield f"Prompt before a {kind}", f"“{prompt}”" if prompt else "no prompt"
    yield "Vocabulary", f"{vocabulary['tokens']:,} of {vocabulary['source_tokens']:,} tokens"
    yield "Weights", precision["weights"]
    yield "Activations", precision["activations"]
    yield "Integer products", f"{precision['integer_products']:,}"
    yield "After the network", ", then ".join(data["baked"])
    full = "left out (--coarse-only)" if dims["full"] is None else f"{dims['full']}, unit length"
    yield "Full vector", full
    yield "Layer norm before the head", "yes" if data["layer_norm"] else "no"
    yield "Projection head", f"{data['head']['kind']} ({data['head']['why']})"
    yield "Truncation", f"to the first {dims['coarse']} dimensions, then to unit length again"
    yield "Code", f"int8, round(127 x); a store keeps {data['code']['stored']}"


def _fidelity(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    found, gates = data["fidelity"], data["gates"]
    yield "Texts", f"{found['texts']:,}"
    names = {
        "cosine_mean": "Full vector, mean cosine",
        "cosine_min": "Full vector, lowest cosine",
        "code_cosine_mean": "Code, mean cosine",
        "code_cosine_min": "Code, lowest cosine",
        "padded_min": "Alone and padded, lowest cosine",
        "mixed_min": "Alone and among other lengths, lowest cosine",
    }
    for key, name in names.items():
        gate = f" (gate: {gates[key]})" if key in gates and gates["enforced"] else ""
        yield name, f"{found[key]:.4f}{gate}"


def _curve_panel(curve: Mapping[str, Any]) -> Panel:
    lines = [
        Line(
            _head_name(kind),
            [(d, 100 * s) for d, s in zip(curve["dims"], scores, strict=True)],
        )
        for kind, scores in curve["kept"].items()
    ]
    dims = [float(dim) for dim in curve["dims"]]
    across = tuple(dims) if len(dims) > 1 else (dims[0] / 2, dims[0])
    x = Axis("dimensions of the code", across)
    most = max(max(scores) for scores in curve["kept"].values())
    ticks = (0, 20, 40, 60, 80, 100) if most <= 1 else (0, 20, 40, 60, 80, 100, 120)
    y = Axis("of the full vectors' quality, %", ticks, log=False)
    return Panel("Held-out text" if "held-out" in curve["measured"] else "Sample text", x, y, lines)


def _curve_table(curve: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    heads = ["dimensions", *map(_head_name, curve["kept"])]
    rows = [
        [str(dim), *(f"{scores[place]:.1%}" for scores in curve["kept"].values())]
        for place, dim in enumerate(curve["dims"])
    ]
    return heads, rows


def _head_name(kind: str) -> str:
    return "plain prefix" if kind == "prefix" else kind


def _sizes(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    others = data["weights_elsewhere"]
    own = sum(data["sizes_bytes"].get(name, 0) for name in NETWORK_FILES)
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
