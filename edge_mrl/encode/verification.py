"""Checks of a bundle on the machine that will use it: its bytes, its token ids, its vectors."""

from __future__ import annotations

import base64
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle import GOLDEN, KINDS, Manifest, bundle_folder, parse_json, read_file
from edge_mrl.encode.encoder import Encoder
from edge_mrl.encode.trial import admit, run_apart
from edge_mrl.errors import FormatError, GraphError, TokenizerError, brief
from edge_mrl.machine import facts as machine
from edge_mrl.native import reference_engine

__all__ = [
    "BATCH_MIN",
    "GOLDEN_FORMAT",
    "Verification",
    "cosines",
    "encode_vector",
    "try_here",
    "verify",
    "verify_here",
]

GOLDEN_FORMAT = "edge-mrl-golden"
#: How the native kernels' ``Encoder.engine`` begins.
KERNELS = "kernels"
GOLDEN_VERSION = 1
#: The vectors of one int8 graph on x86 and ARM have a cosine of 0.9997 on average and 0.997 at least,
#: because rounding changes some codes. Below these limits, something else is wrong.
MACHINE_MEAN = 0.999
MACHINE_MIN = 0.995
#: Least cosine of a text's vector alone and in a padded batch. They differ by the order of float sums:
#: not at all on x86, and on ARM, whose attention sums in blocks of the padded width, in a few codes
#: (least seen: 0.9998).
BATCH_MIN = 0.999
#: Golden texts that a first trial encodes, and the least cosine of their codes to the exporter's: no
#: rounding goes as low, and a wrong kernel reached 0.24.
TRIAL_TEXTS, TRIAL_MIN = 4, 0.9


@dataclass(frozen=True, slots=True)
class Golden:
    """One text with the vectors that the exporting machine computed.

    Attributes:
        text: The text.
        kind: "document" or "query".
        ids: Token ids.
        full: The bundle's full vector, float32[D], or None if it gives codes only.
        coarse: The bundle's code, int8[dim].
        source: The vector of the fp32 source model, float32[D].
    """

    text: str
    kind: str
    ids: list[int]
    full: NDArray[np.float32] | None
    coarse: NDArray[np.int8]
    source: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Verification:
    """How a bundle works on this machine. Cosines of full vectors are None if it gives codes only.

    Attributes:
        passed: Whether all checks passed.
        failures: One sentence for each check that failed.
        warnings: One sentence for each thing that works but that the user should know.
        texts: Number of golden texts compared.
        files: Number of files whose SHA-256 was compared.
        same_ids: Whether all token ids are those of the exporting machine.
        full_cosine_mean: Mean cosine of full vectors here and on the exporting machine.
        full_cosine_min: The least of these cosines.
        source_cosine_mean: Mean cosine of full vectors here and of the fp32 source model.
        source_cosine_min: The least of these cosines.
        coarse_cosine_min: Least cosine of codes here and on the exporting machine.
        equal_codes: Share of the codes' elements that are equal, from 0 to 1.
        batch_cosine_min: Least cosine of a text's vector alone and in a padded batch.
        engine: What ran the graph; see ``Encoder.engine``.
        other_engine: Where the native kernels ran it: ONNX Runtime, which ran it too; else None.
        engines_cosine_mean: Mean cosine of both engines' vectors of the golden texts.
        engines_cosine_min: The least of these cosines.
    """

    passed: bool
    failures: tuple[str, ...]
    warnings: tuple[str, ...]
    texts: int
    files: int
    same_ids: bool
    full_cosine_mean: float | None
    full_cosine_min: float | None
    source_cosine_mean: float | None
    source_cosine_min: float | None
    coarse_cosine_min: float
    equal_codes: float
    batch_cosine_min: float
    engine: str
    other_engine: str | None = None
    engines_cosine_mean: float | None = None
    engines_cosine_min: float | None = None


def verify(
    bundle: str | os.PathLike[str],
    *,
    threads: int | None = None,
    trust: str | os.PathLike[str] | None = None,
    untried: bool = False,
) -> Verification:
    """Verify a bundle on this machine, in a process of its own, with limits of time and memory.

    Args:
        bundle: The bundle's folder, a .zip of one, or the name of an installed one.
        threads: Use at most so many threads (default: one per core).
        trust: A file of public keys, one of which must have signed it (default: EDGE_MRL_TRUST's).
        untried: Verify it in this process: for a bundle that it has just made.

    Raises:
        UsageError: The folder does not exist.
        BundleError: The bundle is damaged; the class and the message say how.
    """
    folder = bundle_folder(Path(bundle))
    trust = "" if untried else trust
    admitted = admit(folder, trust=trust, verify_hashes=True, untried=True)
    found = None
    if not untried:
        found = run_apart(
            folder,
            admitted.digest,
            size_bytes=admitted.manifest.size_bytes,
            step="verify",
            threads=threads,
        )
    if found is None:
        result = verify_here(folder, threads=threads)
    else:
        lists = {name: tuple(found[name]) for name in ("failures", "warnings")}
        result = Verification(**{**found, **lists})
    if result.passed:
        admitted.remember_tried(result.engine)
    return result


def verify_here(folder: Path, *, threads: int | None) -> Verification:
    """Verify a bundle, whose hashes have been compared, in this process."""
    with Encoder.open(folder, threads=threads, untried=True) as encoder:
        golden = read_golden(folder, encoder.manifest)
        result = _compare(encoder, golden, len(encoder.manifest.files))
        if not encoder.engine.startswith(KERNELS):
            return result
        found = _vectors(encoder, golden)
    with reference_engine(), Encoder.open(folder, threads=threads, untried=True) as encoder:
        other = _compare(encoder, golden, 0)
        apart = cosines(found, _vectors(encoder, golden))
    warnings = [f"in ONNX Runtime: {text}" for text in (*other.failures, *other.warnings)]
    if apart.mean() < MACHINE_MEAN or apart.min() < MACHINE_MIN:
        warnings.append(
            f"the native kernels and ONNX Runtime differ here: cosine {apart.mean():.5f} mean, "
            f"{apart.min():.5f} min, expected at least {MACHINE_MEAN} and {MACHINE_MIN}: let one of "
            "them make and search all stores of this bundle (EDGE_MRL_KERNEL)"
        )
    return dataclasses.replace(
        result,
        warnings=(*result.warnings, *warnings),
        other_engine=other.engine,
        engines_cosine_mean=float(apart.mean()),
        engines_cosine_min=float(apart.min()),
    )


def _vectors(encoder: Encoder, golden: list[Golden]) -> NDArray[Any]:
    """Full vectors of golden texts, each alone; codes where the bundle gives no others."""
    alone = [encoder.encode([g.text], kind=g.kind) for g in golden]
    return np.concatenate([one.coarse if one.full is None else one.full for one in alone])


def try_here(folder: Path) -> str:
    """Encode the shortest golden texts, as a first trial of a bundle.

    Returns:
        The engine that ran the graph; see ``Encoder.engine``.

    Raises:
        BundleError: The bundle cannot encode them, or into something else altogether.
    """
    with Encoder.open(folder, threads=1, untried=True) as encoder:
        golden = read_golden(folder, encoder.manifest)
        shortest = sorted(golden, key=lambda g: (len(g.text), g.text))
        texts = shortest[:TRIAL_TEXTS]
        result = _compare(encoder, texts, 0)
        if not result.same_ids:
            raise TokenizerError(
                f"the tokenizer of the bundle {folder} gives other ids than on the exporting machine: "
                "check the version of `tokenizers`, or export the bundle again"
            )
        if result.coarse_cosine_min < TRIAL_MIN:
            raise GraphError(
                f"the graph of the bundle {folder} gives something else than on the exporting machine "
                f"(cosine {result.coarse_cosine_min:.3f}): `edge-mrl verify` says more"
            )
        _require_differences(encoder, golden)
        return encoder.engine


def _require_differences(encoder: Encoder, golden: list[Golden]) -> None:
    """Check that a graph does not give one vector for all texts."""
    longest = max(golden, key=lambda g: len(g.ids))
    shortest = min(golden, key=lambda g: len(g.ids))
    if set(longest.ids) == set(shortest.ids):
        return
    coarse = encoder.encode([longest.text, shortest.text], kind=longest.kind).coarse
    if (coarse[0] == coarse[1]).all():
        raise GraphError(
            f"the graph of the bundle {encoder.path} gives the same vector for different texts: "
            "export the model again"
        )


def read_golden(bundle: Path, manifest: Manifest) -> list[Golden]:
    """Read the golden texts of a bundle, with their vectors.

    Raises:
        FormatError: The file is damaged, or its version is unknown.
        BundleError: It has other bytes than the manifest names.
    """
    parsed = parse_json(read_file(bundle, GOLDEN, manifest.files[GOLDEN]), GOLDEN)
    try:
        if (parsed["format"], parsed["version"]) != (GOLDEN_FORMAT, GOLDEN_VERSION):
            named = brief(f"{parsed['format']!r} {parsed['version']!r}", 80)
            raise FormatError(f"{GOLDEN}: unknown format {named}")
        golden = [_golden(entry, manifest) for entry in parsed["texts"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{GOLDEN} cannot be read: {brief(repr(error))}") from error
    if not golden or len({len(g.source) for g in golden}) != 1:
        raise FormatError(f"{GOLDEN} has no texts, or vectors of several lengths")
    return golden


def _golden(entry: dict[str, Any], manifest: Manifest) -> Golden:
    full = None if entry["full"] is None else decode_vector(entry["full"], "<f4")
    golden = Golden(
        text=entry["text"],
        kind=entry["kind"],
        ids=entry["ids"],
        full=full,
        coarse=decode_vector(entry["coarse"], "i1"),
        source=decode_vector(entry["source"], "<f2").astype(np.float32),
    )
    width = None if full is None else len(full)
    if (len(golden.coarse), width) != (manifest.dim, manifest.full_dim):
        raise ValueError(f"vectors of {len(golden.coarse)} and {width} dimensions")
    if full is not None and len(golden.source) != len(full):
        raise ValueError(f"vectors of {len(golden.source)} dimensions of the source")
    if not isinstance(golden.text, str) or golden.kind not in KINDS:
        raise ValueError(f"a text of the kind {brief(golden.kind, 40)}")
    if not all(type(token) is int for token in golden.ids):
        raise ValueError("ids that are no numbers")
    return golden


def decode_vector(text: str, dtype: str) -> NDArray[Any]:
    """Decode base64 of little-endian values to an array."""
    data = base64.b64decode(text, validate=True)
    return np.frombuffer(data, dtype=dtype)


def encode_vector(vector: NDArray[Any], dtype: str) -> str:
    """Encode an array as base64 of little-endian values."""
    return base64.b64encode(vector.astype(dtype).tobytes()).decode("ascii")


def _compare(encoder: Encoder, golden: list[Golden], files: int) -> Verification:
    alone = [encoder.encode([g.text], kind=g.kind) for g in golden]
    coarse = np.concatenate([e.coarse for e in alone])
    expected = np.stack([g.coarse for g in golden])
    same_ids = all(encoder.tokenize([g.text], kind=g.kind)[0] == g.ids for g in golden)
    to_golden = to_source = None
    if encoder.manifest.full_dim is not None:
        full = np.concatenate([e.full for e in alone if e.full is not None])
        to_golden = cosines(full, np.stack([g.full for g in golden if g.full is not None]))
        to_source = cosines(full, np.stack([g.source for g in golden]))
    coarse_min = float(cosines(coarse, expected).min())
    batch_min = _batch_cosine(encoder, golden, alone)
    failures = []
    if not same_ids:
        failures.append(
            "token ids differ from the exporting machine's: check the version of `tokenizers`"
        )
    if to_golden is not None and (to_golden.mean() < MACHINE_MEAN or to_golden.min() < MACHINE_MIN):
        failures.append(
            f"vectors differ from the exporting machine's: cosine {to_golden.mean():.5f} mean, "
            f"{to_golden.min():.5f} min; expected at least {MACHINE_MEAN} and {MACHINE_MIN}"
        )
    if coarse_min < MACHINE_MIN - 0.005:  # codes round once more than the vectors behind them
        failures.append(f"codes differ from the exporting machine's: cosine {coarse_min:.5f} min")
    if batch_min < BATCH_MIN:
        failures.append(
            f"the vectors of a text alone and in a batch differ: cosine {batch_min:.6f}, expected at "
            f"least {BATCH_MIN}"
        )
    return Verification(
        passed=not failures,
        failures=tuple(failures),
        warnings=tuple(_cpu_warnings(encoder)),
        texts=len(golden),
        files=files,
        same_ids=same_ids,
        full_cosine_mean=None if to_golden is None else float(to_golden.mean()),
        full_cosine_min=None if to_golden is None else float(to_golden.min()),
        source_cosine_mean=None if to_source is None else float(to_source.mean()),
        source_cosine_min=None if to_source is None else float(to_source.min()),
        coarse_cosine_min=coarse_min,
        equal_codes=float((coarse == expected).mean()),
        batch_cosine_min=batch_min,
        engine=encoder.engine,
    )


def _batch_cosine(encoder: Encoder, golden: list[Golden], alone: list[Any]) -> float:
    """The least cosine of texts encoded alone and in one padded batch."""
    lowest = 1.0
    for kind in {g.kind for g in golden}:
        picks = [i for i, g in enumerate(golden) if g.kind == kind]
        batch = encoder.encode_padded([golden[i].text for i in picks], kind=kind)
        together = batch.coarse if batch.full is None else batch.full
        single = [alone[i].coarse if batch.full is None else alone[i].full for i in picks]
        lowest = min(lowest, float(cosines(together, np.concatenate(single)).min()))
    return lowest


def cosines(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float64]:
    """Cosine of each row of one array and the same row of another.

    Args:
        left: Numbers, [n, d].
        right: Numbers, [n, d].

    Returns:
        float64[n]; 1 for two rows of zeros.
    """
    a, b = left.astype(np.float64), right.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    return np.where(both_zero, 1.0, (a * b).sum(axis=1) / np.maximum(norms, 1e-30))


def _cpu_warnings(encoder: Encoder) -> list[str]:
    """Warnings about ONNX Runtime's int8 products on this CPU; a static model has no such products."""
    precision = encoder.manifest.precision
    if (
        encoder.engine != "onnxruntime"
        or precision.weights != "int8"
        or not precision.integer_products
    ):
        return []
    if not machine.saturates(machine.cpu()):
        return []
    return [
        (
            "this x86 CPU has no VNNI, so its 8-bit products saturate (cosine about 0.997 instead of "
            "0.999): a bundle exported with --target x86-64 is exact here"
        )
    ]
