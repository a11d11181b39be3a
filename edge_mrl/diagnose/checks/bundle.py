"""Checks of a bundle: it is verified, timed, and compared with another precision of the same model."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edge_mrl.bundle import Manifest, check_files, read_manifest
from edge_mrl.diagnose import probe
from edge_mrl.diagnose.checks.machine import check_memory
from edge_mrl.diagnose.findings import Diagnosis, Finding
from edge_mrl.diagnose.samples import built_in_sample
from edge_mrl.errors import BundleError, EdgeMrlError, UsageError, reason
from edge_mrl.machine import facts

__all__ = ["check_bundle", "check_speed", "read", "require_comparable"]

#: Texts that memory is measured with.
MEMORY_TEXTS = 32
#: Rounds in which two bundles take turns, and seconds of each measurement.
ROUNDS, ROUND_S = 3, 1.0
#: Cosines of a bundle's vectors to those of another precision, on average and at least, below which
#: something is wrong. On average, an int8 network has 0.999, and 0.994 with x86 kernels that saturate.
AGREE_MEAN, AGREE_MIN = 0.99, 0.95


def read(bundle: Path | None) -> tuple[Manifest | None, tuple[Finding, ...]]:
    """The manifest of a bundle, or the finding that says what is wrong with it.

    Raises:
        UsageError: The folder does not exist.
    """
    if bundle is None:
        return None, ()
    try:
        return read_manifest(bundle), ()
    except BundleError as error:
        return None, (Finding("bundle", "problem", str(error), "copy the bundle again"),)


def require_comparable(bundle: Path | None, manifest: Manifest | None, against: Path) -> None:
    """Check that two bundles have vectors that can be compared.

    Args:
        bundle: The bundle's folder.
        manifest: Its manifest; None if it cannot be read.
        against: The other bundle's folder.

    Raises:
        UsageError: They have not, or only one bundle is given.
        BundleError: The other bundle is damaged.
    """
    if bundle is None:
        raise UsageError("--against needs a bundle to compare with: --bundle DIR")
    other = read_manifest(against)
    check_files(against, other, hashes=False)
    if manifest is None:
        return
    if other.space_id != manifest.space_id:
        raise UsageError(
            f"{against} ({other.name}) has another embedding space than {bundle} ({manifest.name}): "
            "expected another precision of the same model"
        )
    if None in (other.full_dim, manifest.full_dim) and other.code_id != manifest.code_id:
        raise UsageError(
            f"{against} and {bundle} have no vectors in common: "
            "expected two bundles with full vectors, or with the same code"
        )


def check_bundle(
    manifest: Manifest,
    job: dict[str, Any],
    against: Path | None,
    *,
    advance: Callable[[str], None],
) -> Diagnosis:
    """Verify a bundle, measure its memory and speed, and compare it with another one.

    Args:
        manifest: The bundle's manifest.
        job: "bundle", "threads" and "low_memory", as ``probe`` takes them.
        against: The folder of a bundle to compare it with, or None.
        advance: Called before each longer step with its name.

    Returns:
        The findings, and the measured figures.
    """
    advance("verifying the bundle")
    findings = [*_check_vectors(job)]
    if any(finding.level == "problem" for finding in findings):
        return Diagnosis((*findings, *check_memory(facts.memory(), None)), {})
    sample = built_in_sample()
    job = {**job, "queries": sample.queries, "documents": sample.documents[:MEMORY_TEXTS]}
    advance("timing the bundle")
    memory = facts.memory()
    try:
        findings += check_memory(memory, _peak_bytes(job))
        figures = _measure(job, against, advance)
    except EdgeMrlError as error:
        problem = Finding("bundle", "problem", reason(error), "see the lines above for the cause")
        return Diagnosis((*findings, problem), {})
    other = None if against is None else read_manifest(against).precision.weights
    findings += check_speed(figures, (manifest.precision.weights, other))
    return Diagnosis(tuple(findings), figures)


def _check_vectors(job: dict[str, Any]) -> Iterator[Finding]:
    try:
        result = probe.run_step("verify", job)
    except EdgeMrlError as error:
        yield Finding(
            "bundle", "problem", reason(error), "copy the bundle again, or export it again"
        )
        return
    yield from (
        Finding("bundle", "problem", text, "see `edge-mrl verify` for the figures")
        for text in result["failures"]
    )
    if result["passed"]:
        text = (
            f"{result['files']} files are intact, {result['texts']} texts have the same vectors as on "
            "the exporter's machine"
        )
        if result["source_cosine_mean"] is not None:
            mean = result["source_cosine_mean"]
            text = f"{text}; cosine to the fp32 source {mean:.4f} on average"
        if result["engine"] != "onnxruntime":
            text = f"{text}; run by the native {result['engine']}"
        if result.get("other_engine") is not None:
            mean = result["engines_cosine_mean"]
            text = f"{text}; cosine to {result['other_engine']}'s vectors {mean:.4f} on average"
        yield Finding("bundle", "good", text)


def _peak_bytes(job: dict[str, Any]) -> int | None:
    """Peak memory of embedding the job's documents, in bytes; None if unknown."""
    peak: int | None = probe.run_step("documents", {**job, "seconds": 0})["peak_rss"]
    return peak


def _measure(
    job: dict[str, Any], against: Path | None, advance: Callable[[str], None]
) -> dict[str, float]:
    """Milliseconds of a query and documents a second, of one or two bundles, which take turns."""
    both = {"": job["bundle"], **({} if against is None else {"against_": str(against)})}
    queries: dict[str, list[float]] = {prefix: [] for prefix in both}
    rates: dict[str, list[float]] = {prefix: [] for prefix in both}
    for number in range(1, ROUNDS + 1):
        advance(f"timing, round {number} of {ROUNDS}")
        for prefix, bundle in both.items():
            work = {**job, "bundle": bundle, "seconds": ROUND_S}
            queries[prefix].append(statistics.median(probe.run_step("query", work)["ms"]))
            rates[prefix].append(statistics.median(probe.run_step("documents", work)["per_s"]))
    found = {}
    for prefix in both:
        found[f"{prefix}query_ms"] = round(statistics.median(queries[prefix]), 3)
        found[f"{prefix}documents_per_s"] = round(statistics.median(rates[prefix]), 2)
    if against is not None:
        advance("comparing vectors")
        cosines = probe.run_step("compare", {**job, "against": str(against)})
        found |= {"against_cosine_mean": cosines["mean"], "against_cosine_min": cosines["min"]}
    return found


def check_speed(figures: dict[str, float], weights: tuple[str, str | None]) -> Iterator[Finding]:
    """A bundle's speed on this machine, and compared with a bundle of other weights.

    Args:
        figures: "query_ms" and "documents_per_s"; with another bundle, the same with "against_" in
            front, "against_cosine_mean" and "against_cosine_min".
        weights: The kinds of weights of the bundle and of the other one, or None.
    """
    own, other = weights
    yield Finding("speed", "good", f"{own}: {_speed(figures, '')}")
    if other is None:
        return
    yield Finding("speed", "good", f"{other}, for comparison: {_speed(figures, 'against_')}")
    gain = figures["against_query_ms"] / figures["query_ms"]
    rate = figures["documents_per_s"] / figures["against_documents_per_s"]
    text = f"{own} is {gain:.1f} times as fast as {other} for a query, {rate:.1f} for documents"
    if max(gain, rate) < 1:
        yield Finding(
            "speed", "warning", text, f"{other} is faster on this CPU: use it if memory allows"
        )
    else:
        yield Finding("speed", "good", text)
    mean, least = figures["against_cosine_mean"], figures["against_cosine_min"]
    text = f"cosine of {own} to {other} {mean:.4f} on average, {least:.4f} at least"
    if mean < AGREE_MEAN or least < AGREE_MIN:
        advice = f"use {other}: this CPU computes {own} wrongly, or the bundles differ in more"
        yield Finding("agreement", "problem", text, advice)
    else:
        yield Finding("agreement", "good", text)


def _speed(figures: dict[str, float], prefix: str) -> str:
    query, rate = figures[f"{prefix}query_ms"], figures[f"{prefix}documents_per_s"]
    return f"{query:.1f} ms a query, {rate:.3g} documents/s"
