"""An export, from a model's name to a verified bundle: start reading here.

load source ► prune vocabulary ► choose head ► trace and fuse ► append pooling, head and codes ► calibrate
and quantise ► write to staging ► measure through the real runtime ► gates ► golden vectors ► publish
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edge_mrl
from edge_mrl.bundle import (
    FORMAT,
    GOLDEN,
    MANIFEST,
    TOKENIZER,
    Dims,
    FileEntry,
    Head,
    Manifest,
    Padding,
    Precision,
    SourceModel,
    dump_manifest,
    expected_outputs,
    head_id,
    lowest_version,
    make_code,
    parse_manifest,
    read_head,
    require_key,
    sign_bundle,
)
from edge_mrl.codes import Packing
from edge_mrl.encode import Encoder, Verification, verify
from edge_mrl.errors import GateError
from edge_mrl.native import reference_engine
from edge_mrl_export.bundle import (
    GATES,
    GOLDEN_TEXTS,
    Fidelity,
    Speed,
    check_gates,
    check_output,
    file_entries,
    golden_vectors,
    measure,
    measure_speed,
    publish,
    reaches_gates,
    report_data,
    report_html,
    staging,
    usual_sizes,
    write_graph,
    write_head,
    write_json,
)
from edge_mrl_export.codes import (
    ChosenHead,
    choose_head,
    choose_packing,
    curve_of_texts,
    kept_by_stored_codes,
)
from edge_mrl_export.graph import (
    CARE,
    AppendContract,
    FoldInputs,
    Lowered,
    SelectRows,
    TrimPositions,
    lower,
    source_graph,
)
from edge_mrl_export.recipe import TARGETS, Recipe
from edge_mrl_export.source import Source, load_source
from edge_mrl_export.stages import Clock, Silent, Stages, in_one_line
from edge_mrl_export.texts import Vocabulary, calibration_texts, choose_vocabulary, read_corpus

__all__ = ["Export", "export"]

#: Texts to calibrate on (at most half of the corpus), and texts to measure fidelity on: at least half of
#: the latter were not calibrated on.
CALIBRATION_TEXTS = 128
GATE_TEXTS = 256
#: Value of the int8 code 127. At 128 dimensions it lost nothing; it is fixed here, never at run time.
CODE_SCALE = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """What is decided before a graph is made.

    Attributes:
        source: The source model.
        recipe: What was asked for.
        vocabulary: The bundle's tokens.
        texts: Text to calibrate on and to measure with.
        head: The projection head, from full vectors to codes.
        packing: How a store keeps documents' codes.
    """

    source: Source
    recipe: Recipe
    vocabulary: Vocabulary
    texts: Sequence[str]
    head: ChosenHead
    packing: Packing

    @property
    def dim(self) -> int:
        """Dimensions of the coarse code."""
        return self.recipe.resolved_dim(self.source)

    @property
    def baked(self) -> NDArray[np.float32] | None:
        """The head's matrix in the graph, float32[D, dim]: the identity for a prefix, None for all D.

        So every graph that truncates has a place for a head, where a device can put its own.
        """
        if self.head.matrix is None and self.dim < self.source.width:
            return np.eye(self.source.width, self.dim, dtype=np.float32)
        return self.head.matrix

    @property
    def max_tokens(self) -> int:
        """Longest input."""
        return self.recipe.resolved_max_tokens(self.source)

    @property
    def layer_norm(self) -> bool:
        """Whether a layer norm comes before the head."""
        return self.recipe.resolved_layer_norm(self.source)


@dataclass(frozen=True, slots=True)
class Export:
    """A finished export.

    Attributes:
        path: The bundle's folder.
        manifest: Its manifest.
        fidelity: Measured on the bundle as written.
        report: Contents of report.json.
        speed: Of encoding on this machine; not part of the bundle.
        seconds: Wall time by stage, in seconds; not part of the bundle.
    """

    path: Path
    manifest: Manifest
    fidelity: Fidelity
    report: dict[str, Any]
    speed: Speed
    seconds: dict[str, float]


def export(
    model: str | None,
    output: Path,
    recipe: Recipe,
    *,
    force: bool = False,
    sign: Path | str | None = None,
    stages: Stages | None = None,
) -> Export:
    """Turn a text-embedding model into a verified bundle.

    Args:
        model: Hub id, folder or .onnx file; None for all-MiniLM-L6-v2.
        output: Folder to make; it appears only when the bundle is complete and verified.
        recipe: What was asked for.
        force: Replace an earlier bundle at ``output``.
        sign: A file with a private key to sign the bundle with.
        stages: Told about progress.

    Raises:
        UsageError: The model or the recipe cannot be exported; nothing is written.
        GateError: The bundle is too far from its source; nothing is written.
        NetworkError: The hub cannot be reached.
    """
    output = output.expanduser().absolute()
    check_output(output, force=force)
    if sign is not None:
        require_key(sign)
    texts = _texts(recipe)
    clock = Clock(stages or Silent())
    with in_one_line(clock, model or "the default model"):
        return _export(model, output, recipe, texts, sign, clock)


def _export(
    model: str | None,
    output: Path,
    recipe: Recipe,
    texts: Sequence[str],
    sign: Path | str | None,
    clock: Clock,
) -> Export:
    clock.stage("load source model")
    source = load_source(
        model, pooling=recipe.pooling, output=recipe.graph_output, prompts=recipe.prompts
    )
    recipe.check(source)
    source.check_finite()
    vocabulary = choose_vocabulary(
        source.tokenizer, texts, recipe.prune_vocab, table=source.token_rows is not None
    )
    own = () if recipe.corpus is None else texts
    head, packing = choose_packing(
        source, recipe, own, choose_head(source, recipe, own, clock), scale=CODE_SCALE, stages=clock
    )
    plan = _Plan(source, recipe, vocabulary, texts, head, packing)
    with tempfile.TemporaryDirectory(prefix="edge-mrl-") as scratch, staging(output) as folder:
        manifest, measured = _build(plan, Path(scratch), folder, clock)
        manifest, report = _complete(plan, folder, manifest, measured, clock)
        if sign is not None:
            sign_bundle(folder, sign)
        publish(folder, output)
    return Export(output, manifest, measured.fidelity, report, measured.speed, clock.seconds())


@dataclass(frozen=True, slots=True)
class _Measured:
    """What was measured on the written bundle.

    Attributes:
        fidelity: How close it is to the source.
        by_dimension: Quality that prefixes of the code keep, see ``codes.curve``.
        kept: Quality that the code itself keeps, and how that was measured.
        speed: Of encoding, on this machine.
    """

    fidelity: Fidelity
    by_dimension: dict[str, Any]
    kept: dict[str, Any]
    speed: Speed


def _build(plan: _Plan, scratch: Path, folder: Path, clock: Clock) -> tuple[Manifest, _Measured]:
    """Write a graph that passes its gates: with fixed scales or, if that fails, with scales per token.

    If these fail too, codes of the weights are fitted to the calibration text: large models need that.
    """
    for care in CARE:
        lowered = _build_graph(plan, scratch, clock, care=care)
        clock.stage("write")
        write_head(plan.head.matrix, folder)
        write_graph(lowered.model, folder)
        write_json(plan.vocabulary.tokenizer, folder / TOKENIZER)
        manifest = _manifest(plan, lowered.precision)
        measured = _measure(plan, folder, manifest, clock)
        quantised = plan.recipe.precision == "int8" and lowered.precision.activations != "fp32"
        if reaches_gates(measured.fidelity) or not quantised:
            break
    if not plan.recipe.allow_low_fidelity:
        check_gates(measured.fidelity, plan.recipe.precision)
    return manifest, measured


def _texts(recipe: Recipe) -> list[str]:
    return calibration_texts() if recipe.corpus is None else read_corpus(recipe.corpus)


def _spread(texts: Sequence[str], count: int) -> list[str]:
    """At most ``count`` of the texts, evenly spaced."""
    picks = np.linspace(0, len(texts) - 1, min(count, len(texts))).round().astype(int)
    return [texts[i] for i in picks]


def _build_graph(plan: _Plan, scratch: Path, clock: Clock, *, care: str) -> Lowered:
    source, recipe, vocabulary = plan.source, plan.recipe, plan.vocabulary
    clock.stage("trace and fuse")
    model = source_graph(source, scratch, precision=recipe.precision, tracer=recipe.tracer)
    FoldInputs(source.first_position)(model)
    if vocabulary.kept is not None:
        SelectRows(vocabulary.kept)(model)
    TrimPositions(plan.max_tokens)(model)
    AppendContract(
        source.modules,
        dim=plan.dim,
        width=source.width,
        layer_norm=plan.layer_norm,
        head=plan.baked,
        scale=CODE_SCALE,
        coarse_only=recipe.coarse_only,
    )(model)
    sample = _spread(plan.texts, min(CALIBRATION_TEXTS, len(plan.texts) // 2))
    ids = vocabulary.encode(sample, source.prompts["document"], plan.max_tokens)
    clock.stage(f"calibrate and quantise to {recipe.precision}", len(ids))
    return lower(
        model,
        recipe.precision,
        ids,
        scratch,
        care=care,
        unsigned=TARGETS[recipe.target],
        advance=clock.advance,
    )


def _manifest(plan: _Plan, precision: Precision) -> Manifest:
    """The manifest as known before anything is measured."""
    source, dim = plan.source, plan.dim
    dims = Dims(dim, None if plan.recipe.coarse_only else source.width)
    head = head_id(plan.head.matrix, layer_norm=plan.layer_norm)
    packing = plan.packing
    return Manifest(
        format=FORMAT,
        version=lowest_version(packing.kind, plan.head.kind),
        manifest_sha256="0" * 64,
        name=source.name,
        source=SourceModel(source.model, source.architecture, source.licence),
        space_id=source.space_id(),
        dims=dims,
        inputs=["input_ids", "attention_mask"],
        outputs=expected_outputs(dims),
        code=make_code(head, dim, scale=CODE_SCALE, packing=packing),
        head=Head(head, plan.head.kind, plan.layer_norm),
        prompts={kind: source.prompts[kind] for kind in ("document", "query")},
        max_tokens=plan.max_tokens,
        padding=Padding("right", source.pad_id),
        precision=precision,
        quality={},
        tools=_tools(plan.recipe.tracer),
        files={},
    )


def _tools(tracer: str) -> dict[str, str]:
    packages = ["numpy", "onnx-ir", "onnxruntime", "sentence-transformers", "tokenizers", "torch"]
    packages += ["transformers", *(["optimum", "optimum-onnx"] if tracer == "optimum" else [])]
    versions = {name: importlib.metadata.version(name) for name in sorted(packages)}
    return {"edge-mrl": edge_mrl.__version__, **versions}


def _measure(plan: _Plan, folder: Path, manifest: Manifest, clock: Clock) -> _Measured:
    """Run the written files through the real runtime, against the source run by its own library."""
    sample = plan.vocabulary.unchanged(_spread(plan.texts, GATE_TEXTS))
    if not sample:
        raise GateError(
            "no text has the same tokens with the pruned vocabulary: keep more tokens (--prune-vocab)"
        )
    (folder / GOLDEN).write_bytes(b"")
    _write_manifest(folder, manifest)
    clock.stage("run source model")
    reference = plan.source.encode(sample, kind="document", max_tokens=manifest.max_tokens)
    clock.stage("measure bundle", len(sample))
    with reference_engine(), Encoder.open(folder, untried=True) as encoder:
        _check_ids(encoder, plan.source, plan.vocabulary, sample)
        head = read_head(folder, encoder.manifest)
        fidelity = measure(encoder, sample, reference, head=head, advance=clock.advance)
        speed, codes = measure_speed(encoder, sample)
    curve = plan.head.facts.get("by_dimension") or curve_of_texts(
        reference, plan.head.kind, head, dim=plan.dim, layer_norm=plan.layer_norm
    )
    return _Measured(fidelity, curve, _kept(plan, reference, codes), speed)


def _kept(plan: _Plan, reference: NDArray[np.float32], codes: NDArray[np.int8]) -> dict[str, Any]:
    """Retrieval quality at the bundle's own code: on held-out text where a head was chosen by it."""
    found = plan.head.kept(plan.packing)
    share, measured = found or kept_by_stored_codes(reference, codes, plan.packing)
    return {"kept": share, "measured": measured}


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
                    f"the bundle's tokenizer and the source's own library disagree on {text[:80]!r}: "
                    f"ids {left[:12]} instead of {right[:12]}; please report this model"
                )


def _complete(
    plan: _Plan, folder: Path, manifest: Manifest, measured: _Measured, clock: Clock
) -> tuple[Manifest, dict[str, Any]]:
    """Write golden vectors, report and final manifest; then verify the bundle as a device does."""
    vocabulary, head, fidelity = plan.vocabulary, plan.head, measured.fidelity
    clock.stage("golden vectors and report")
    with reference_engine(), Encoder.open(folder, untried=True) as encoder:
        same = set(vocabulary.unchanged([text for _, text in GOLDEN_TEXTS]))
        texts = tuple(pair for pair in GOLDEN_TEXTS if pair[1] in same)
        write_json(golden_vectors(encoder, plan.source, texts), folder / GOLDEN)
    quality = {f.name: float(getattr(fidelity, f.name)) for f in dataclasses.fields(fidelity)}
    manifest = dataclasses.replace(manifest, quality=quality)
    facts = {
        "fidelity": dataclasses.asdict(fidelity),
        "gates": {"enforced": not plan.recipe.allow_low_fidelity, **GATES},
        "baked": plan.source.baked(),
        "head": {name: fact for name, fact in head.facts.items() if name != "by_dimension"},
        "quality_by_dimension": measured.by_dimension,
        "code": {
            "stored": plan.packing.kind,
            "bytes": plan.packing.bytes(plan.dim),
            **measured.kept,
        },
        "vocabulary": vocabulary.facts(),
        "sizes_bytes": {name: entry.size_bytes for name, entry in file_entries(folder).items()},
        "weights_elsewhere": usual_sizes(plan.source),
        "notes": [*plan.source.notes, *vocabulary.notes, *head.notes],
    }
    report = report_data(manifest, facts)
    write_json(report, folder / "report.json", indent=1)
    (folder / "report.html").write_text(report_html(report), encoding="utf-8")
    manifest = _write_manifest(folder, manifest)
    clock.stage("verify")
    _accept(verify(folder, untried=True))
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
