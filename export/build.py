"""Export, from a model's name to a verified bundle: start reading here.

load source ► prune vocabulary ► trace and fuse ► bake the contract ► calibrate and quantise
► write to staging ► measure through the real runtime ► gates ► golden vectors ► publish
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import edge_mrl
from edge_mrl.bundle import (
    FORMAT,
    GOLDEN,
    MANIFEST,
    TOKENIZER,
    VERSION,
    Code,
    Dims,
    FileEntry,
    Head,
    Manifest,
    Padding,
    Precision,
    SourceModel,
    dump_manifest,
    expected_outputs,
    parse_manifest,
)
from edge_mrl.encoder import Encoder
from edge_mrl.errors import GateError
from edge_mrl.verify import Verification, verify
from edge_mrl_export.calibration import calibration_texts, read_corpus
from edge_mrl_export.gates import GATES, Fidelity, check_gates, measure, passes
from edge_mrl_export.golden import GOLDEN_TEXTS, golden_vectors
from edge_mrl_export.graph import source_graph
from edge_mrl_export.lower import Lowered, lower
from edge_mrl_export.passes.contract import AppendContract
from edge_mrl_export.passes.inputs import FoldInputs
from edge_mrl_export.passes.positions import TrimPositions
from edge_mrl_export.passes.vocabulary import SelectRows
from edge_mrl_export.recipe import TARGETS, Recipe
from edge_mrl_export.report import report_data, report_html
from edge_mrl_export.source import Source, load_source
from edge_mrl_export.vocabulary import Vocabulary, choose_vocabulary
from edge_mrl_export.write import (
    check_output,
    file_entries,
    publish,
    staging,
    write_graph,
    write_json,
)

__all__ = ["CALIBRATION_TEXTS", "GATE_TEXTS", "Export", "Stages", "export"]

#: Texts whose activations decide smoothing, at most half of the corpus, and texts on which fidelity is
#: measured: so at least half of those were not calibrated on.
CALIBRATION_TEXTS = 128
GATE_TEXTS = 256
#: int8 codes at this scale lost nothing at 128 dimensions; it is frozen here, never at run time.
CODE_SCALE = 1.0


class Stages(Protocol):
    """Told what is being done; the command line shows it."""

    def stage(self, name: str, steps: int | None = None) -> None:
        """A new stage begins, of so many steps if that is known."""

    def advance(self) -> None:
        """One step of the stage is done."""


class Silent:
    """Stages that nobody watches."""

    def stage(self, name: str, steps: int | None = None) -> None:
        """Ignore it."""

    def advance(self) -> None:
        """Ignore it."""


@dataclass(frozen=True, slots=True)
class Export:
    """A finished export.

    Attributes:
        path: The bundle's folder.
        manifest: Its manifest.
        fidelity: Measured on the bundle as written.
        report: Contents of report.json.
        seconds: Wall time by stage, in seconds; not part of the bundle.
    """

    path: Path
    manifest: Manifest
    fidelity: Fidelity
    report: dict[str, Any]
    seconds: dict[str, float]


def export(
    model: str | None,
    output: Path,
    recipe: Recipe,
    *,
    force: bool = False,
    stages: Stages | None = None,
) -> Export:
    """Turn a text-embedding model into a verified bundle.

    Args:
        model: Hub id, folder or .onnx file; None for all-MiniLM-L6-v2.
        output: Folder to make; it appears only when the bundle is complete and verified.
        recipe: What was asked for.
        force: Replace an earlier bundle at ``output``.
        stages: Told what is being done.

    Raises:
        UsageError: The model or the recipe cannot be exported; nothing is written.
        GateError: The bundle is too far from its source; nothing is written.
        NetworkError: The hub cannot be reached.
    """
    output = output.expanduser().absolute()
    check_output(output, force=force)
    texts = _texts(recipe)
    clock = _Clock(stages or Silent())
    clock.stage("load source model")
    source = load_source(model, pooling=recipe.pooling)
    recipe.check(source)
    source.check_finite()
    vocabulary = choose_vocabulary(source.tokenizer, texts, recipe.prune_vocab)
    with tempfile.TemporaryDirectory(prefix="edge-mrl-") as scratch, staging(output) as folder:
        manifest, fidelity = _build(source, recipe, vocabulary, texts, Path(scratch), folder, clock)
        manifest, report = _complete(folder, manifest, source, recipe, vocabulary, fidelity, clock)
        publish(folder, output)
    return Export(output, manifest, fidelity, report, clock.seconds())


def _build(
    source: Source,
    recipe: Recipe,
    vocabulary: Vocabulary,
    texts: Sequence[str],
    scratch: Path,
    folder: Path,
    clock: _Clock,
) -> tuple[Manifest, Fidelity]:
    """Write a graph that passes its gates; if one with fixed steps does not, one that codes per token."""
    dim, max_tokens = recipe.resolved_dim(source), recipe.resolved_max_tokens(source)
    for fixed_steps in (True, False):
        lowered = _build_graph(
            source, recipe, vocabulary, texts, scratch, clock, fixed_steps=fixed_steps
        )
        clock.stage("write")
        write_graph(lowered.model, folder)
        write_json(vocabulary.tokenizer, folder / TOKENIZER)
        manifest = _manifest(source, recipe, dim, max_tokens, lowered.precision)
        fidelity = _measure(folder, manifest, source, vocabulary, texts, clock)
        if passes(fidelity) or "fixed" not in lowered.precision.activations:
            break
    if not recipe.allow_low_fidelity:
        check_gates(fidelity, recipe.precision)
    return manifest, fidelity


class _Clock:
    """Passes stages on and keeps their wall times."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._starts: list[tuple[str, float]] = []

    def stage(self, name: str, steps: int | None = None) -> None:
        self._starts.append((name, time.perf_counter()))
        self._stages.stage(name, steps)

    def advance(self) -> None:
        self._stages.advance()

    def seconds(self) -> dict[str, float]:
        ends = [start for _, start in self._starts[1:]] + [time.perf_counter()]
        totals: dict[str, float] = {}
        for (name, start), end in zip(self._starts, ends, strict=True):
            totals[name] = totals.get(name, 0.0) + end - start
        return {name: round(seconds, 2) for name, seconds in totals.items()}


def _texts(recipe: Recipe) -> list[str]:
    return calibration_texts() if recipe.corpus is None else read_corpus(recipe.corpus)


def _spread(texts: Sequence[str], count: int) -> list[str]:
    """At most ``count`` of the texts, evenly spread."""
    picks = np.linspace(0, len(texts) - 1, min(count, len(texts))).round().astype(int)
    return [texts[i] for i in picks]


def _build_graph(
    source: Source,
    recipe: Recipe,
    vocabulary: Vocabulary,
    texts: Sequence[str],
    scratch: Path,
    clock: _Clock,
    *,
    fixed_steps: bool,
) -> Lowered:
    clock.stage("trace and fuse")
    model = source_graph(source, scratch, precision=recipe.precision)
    FoldInputs()(model)
    if vocabulary.kept is not None:
        SelectRows(vocabulary.kept)(model)
    TrimPositions(recipe.resolved_max_tokens(source))(model)
    AppendContract(
        source.modules,
        dim=recipe.resolved_dim(source),
        width=source.width,
        layer_norm=_layer_norm(source, recipe),
        scale=CODE_SCALE,
        coarse_only=recipe.coarse_only,
    )(model)
    sample = _spread(texts, min(CALIBRATION_TEXTS, len(texts) // 2))
    ids = vocabulary.encode(sample, source.prompts["document"], recipe.resolved_max_tokens(source))
    clock.stage(f"calibrate and quantise to {recipe.precision}", len(ids))
    return lower(
        model,
        recipe.precision,
        ids,
        scratch,
        fixed_steps=fixed_steps,
        unsigned=TARGETS[recipe.target],
        advance=clock.advance,
    )


def _layer_norm(source: Source, recipe: Recipe) -> bool:
    return source.layer_norm if recipe.layer_norm is None else recipe.layer_norm


def _manifest(
    source: Source, recipe: Recipe, dim: int, max_tokens: int, precision: Precision
) -> Manifest:
    """The manifest as far as it is known before anything is measured."""
    dims = Dims(dim, None if recipe.coarse_only else source.width)
    layer_norm = _layer_norm(source, recipe)
    head_id = _digest({"kind": "prefix", "layer_norm": layer_norm})
    rules = {"int8": "clip(round_half_even(127*x/scale),-127,127)", "bit": "code>0,msb_first"}
    code_id = _digest({"head": head_id, "dim": dim, "scale": CODE_SCALE, **rules})
    return Manifest(
        format=FORMAT,
        version=VERSION,
        manifest_sha256="0" * 64,
        name=source.name,
        source=SourceModel(source.model, source.architecture, source.licence),
        space_id=source.space_id(),
        dims=dims,
        inputs=["input_ids", "attention_mask"],
        outputs=expected_outputs(dims),
        code=Code(code_id, CODE_SCALE, rules["int8"], rules["bit"]),
        head=Head(head_id, "prefix", layer_norm),
        prompts={kind: source.prompts[kind] for kind in ("document", "query")},
        max_tokens=max_tokens,
        padding=Padding("right", source.pad_id),
        precision=precision,
        quality={},
        tools=_tools(),
        files={},
    )


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _tools() -> dict[str, str]:
    packages = (
        "numpy",
        "onnx-ir",
        "onnxruntime",
        "optimum",
        "sentence-transformers",
        "tokenizers",
        "torch",
        "transformers",
    )
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"edge-mrl": edge_mrl.__version__, **versions}


def _measure(
    folder: Path,
    manifest: Manifest,
    source: Source,
    vocabulary: Vocabulary,
    texts: Sequence[str],
    clock: _Clock,
) -> Fidelity:
    """Run the written files through the real runtime, against the source run by its own library."""
    sample = vocabulary.unchanged(_spread(texts, GATE_TEXTS))
    if not sample:
        raise GateError("no text tokenises the same with the pruned vocabulary: keep more tokens")
    (folder / GOLDEN).write_bytes(b"")
    _write_manifest(folder, manifest)
    clock.stage("run source model")
    reference = source.encode(sample, kind="document", max_tokens=manifest.max_tokens)
    clock.stage("measure bundle", len(sample))
    with Encoder.open(folder) as encoder:
        _check_ids(encoder, source, vocabulary, sample)
        return measure(encoder, sample, reference, advance=clock.advance)


def _check_ids(
    encoder: Encoder, source: Source, vocabulary: Vocabulary, texts: Sequence[str]
) -> None:
    """The runtime's token ids must be those of the source's own library."""
    for kind in ("document", "query"):
        expected = source.token_ids(texts[:64], kind=kind, max_tokens=encoder.manifest.max_tokens)
        got = vocabulary.original_ids(encoder.tokenize(texts[:64], kind=kind))
        for text, left, right in zip(texts, got, expected, strict=False):
            if left != right:
                raise GateError(
                    f"the tokenizer gives other ids than the source's own library for {text[:80]!r}: "
                    f"{left[:12]} instead of {right[:12]}; please report this model"
                )


def _complete(
    folder: Path,
    manifest: Manifest,
    source: Source,
    recipe: Recipe,
    vocabulary: Vocabulary,
    fidelity: Fidelity,
    clock: _Clock,
) -> tuple[Manifest, dict[str, Any]]:
    """Golden vectors, report and final manifest, then a last look as a user's machine would take it."""
    clock.stage("golden vectors and report")
    with Encoder.open(folder) as encoder:
        same = set(vocabulary.unchanged([text for _, text in GOLDEN_TEXTS]))
        texts = tuple(pair for pair in GOLDEN_TEXTS if pair[1] in same)
        write_json(golden_vectors(encoder, source, texts), folder / GOLDEN)
    quality = {f.name: float(getattr(fidelity, f.name)) for f in dataclasses.fields(fidelity)}
    manifest = dataclasses.replace(manifest, quality=quality)
    facts = {
        "fidelity": dataclasses.asdict(fidelity),
        "gates": {"enforced": not recipe.allow_low_fidelity, **GATES},
        "vocabulary": vocabulary.facts(),
        "sizes_bytes": {name: entry.size_bytes for name, entry in file_entries(folder).items()},
        "notes": [*source.notes, *vocabulary.notes],
    }
    report = report_data(manifest, facts)
    write_json(report, folder / "report.json", indent=1)
    (folder / "report.html").write_text(report_html(report), encoding="utf-8")
    manifest = _write_manifest(folder, manifest)
    clock.stage("verify")
    _accept(verify(folder))
    return manifest, report


def _accept(result: Verification) -> None:
    if not result.passed:
        raise GateError(
            f"the written bundle fails its own verification: {'; '.join(result.failures)}"
        )


def _write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    files: dict[str, FileEntry] = file_entries(folder)
    data = dump_manifest(dataclasses.replace(manifest, files=files))
    (folder / MANIFEST).write_bytes(data)
    return parse_manifest(data)
