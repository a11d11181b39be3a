"""The report beside a bundle: report.json for programs, report.html for people."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from edge_mrl.bundle import Manifest

__all__ = ["report_data", "report_html"]

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;"
    "color:#1b1b1b;background:#fff}table{border-collapse:collapse;width:100%}"
    "td,th{text-align:left;padding:.3rem .5rem;border-bottom:1px solid #ddd;vertical-align:top;"
    "overflow-wrap:anywhere}td+td{text-align:right;font-variant-numeric:tabular-nums}"
    "caption{text-align:left;font-weight:600;padding:1rem 0 .3rem}p.note{color:#555}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#eee}td,th{border-color:#333}"
    "p.note{color:#aaa}}"
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
    title = html.escape(f"{data['name']}: {data['dims']['coarse']} dimensions")
    tables = [
        _table(
            "Model",
            _flat(
                {k: data[k] for k in ("source", "architecture", "dims", "max_tokens", "prompts")}
            ),
        ),
        _table("Precision", _flat(data["precision"])),
        _table("Fidelity to the fp32 source (cosine)", _flat(data["fidelity"])),
        _table("Gates", _flat(data["gates"])),
        _table("Head: what turns the full vector into the code", _flat(data["head"])),
        _table("Vocabulary", _flat(data["vocabulary"])),
        _table("Files in bytes", _flat(data["sizes_bytes"])),
        _table("Made with", _flat(data["tools"])),
    ]
    notes = "".join(f"<p class=note>{html.escape(note)}</p>" for note in data["notes"])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE}</style><h1>{title}</h1>{notes}{''.join(tables)}"
        "<p class=note>Fidelity: the written bundle, run by the edge-mrl runtime, against the source "
        "model run by its own library, over the calibration text. Sizes: the graph and weights; "
        "truncation makes the index smaller, not the graph.</p></html>\n"
    )


def _table(caption: str, rows: Mapping[str, Any]) -> str:
    body = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(_shown(value))}</td></tr>"
        for name, value in rows.items()
    )
    return f"<table><caption>{html.escape(caption)}</caption>{body}</table>"


def _flat(value: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        label = key.replace("_", " ")
        if isinstance(item, Mapping):
            flat |= {f"{label}, {inner}": leaf for inner, leaf in _flat(item).items()}
        else:
            flat[label] = item
    return flat


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return (
        f"{value:,}"
        if isinstance(value, int) and not isinstance(value, bool)
        else str(value) or "none"
    )
