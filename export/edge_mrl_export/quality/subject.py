"""What is measured: a bundle or a source model, and the vectors that it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle import MANIFEST, Manifest, head_inputs, read_head
from edge_mrl.codes import INT8, Packing
from edge_mrl.encode import Encoder
from edge_mrl.errors import UsageError
from edge_mrl_export.quality.cache import Cache

__all__ = [
    "Encoded",
    "FullModel",
    "Subject",
    "is_bundle",
    "open_bundle",
    "open_source",
]

Float = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Vectors of texts.

    Attributes:
        full: float32[n, D], unit length.
        codes: int8[n, dim] of the bundle's graph; None from a source model.
    """

    full: Float
    codes: NDArray[np.int8] | None = None


@dataclass(frozen=True, slots=True)
class FullModel:
    """A model that computes full vectors.

    Attributes:
        name: Shown to people.
        key: Identifies the model in the cache.
        width: Dimensions D.
        encode: Yields the vectors of texts of a kind, in parts.
        dim: Dimensions of the codes that it computes too; 0 if it computes no codes.
    """

    name: str
    key: str
    width: int
    encode: Callable[[list[str], str], Iterator[Encoded]]
    dim: int = 0

    def vectors(self, cache: Cache, texts: Sequence[str], kind: str) -> Encoded:
        """Encode "query" or "document" texts, or take them from the cache."""

        def rows(some: list[str]) -> Iterator[Float]:
            for part in self.encode(some, kind):
                codes = () if part.codes is None else (part.codes.astype(np.float32),)
                yield np.concatenate([part.full, *codes], axis=1)

        label = f"{self.name}: {kind} vectors"
        found = cache.vectors(f"{self.key} {kind}", self.width + self.dim, texts, rows, label=label)
        full = np.ascontiguousarray(found[:, : self.width])
        return Encoded(full, found[:, self.width :].astype(np.int8) if self.dim else None)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: a model, the head of its codes, and the model that it is compared with.

    Attributes:
        name: Name of the model.
        model: What users run: the bundle, or the source model if there is no bundle yet.
        base: What quality is a share of: the fp32 source, or ``model`` itself.
        head: float32[D, dim] of the codes, or None for the plain prefix.
        layer_norm: Whether a layer norm comes before the head.
        scale: The value of the int8 code 127.
        dim: Dimensions of the bundle's code; None for a source model.
        packing: How a store packs the bundle's codes.
        command: The source model as ``edge-mrl export`` takes it.
        matryoshka: Whether the source was trained for short prefixes.
        folder: The bundle's folder; None for a source model.
        notes: For the reader: what limits the comparison.
    """

    name: str
    model: FullModel
    base: FullModel
    head: Float | None = None
    layer_norm: bool = False
    scale: float = 1.0
    dim: int | None = None
    packing: Packing = INT8
    command: str = ""
    matryoshka: bool = False
    folder: Path | None = None
    notes: tuple[str, ...] = ()

    def head_inputs(self, full: Float) -> Float:
        """What the head multiplies: full vectors, centred by the layer norm if there is one."""
        return head_inputs(full, layer_norm=self.layer_norm)


def is_bundle(target: str) -> bool:
    """Whether a name on the command line is a bundle's folder."""
    return (Path(target) / MANIFEST).is_file()


def open_bundle(encoder: Encoder, source: str | None) -> Subject:
    """A bundle, compared with its fp32 source if that is available.

    Args:
        encoder: The bundle; it must stay open while the subject is used.
        source: Hub id or folder of the source; None for the model that the manifest names.

    Raises:
        UsageError: The bundle has no full vectors, or ``source`` does not exist.
    """
    manifest = encoder.manifest
    if manifest.full_dim is None:
        raise UsageError(
            f"{encoder.path.name} has coarse codes alone: give a bundle with full vectors, or a model"
        )

    def encode(texts: list[str], kind: str) -> Iterator[Encoded]:
        for part in encoder.stream(texts, kind=kind):
            if part.full is not None:
                yield Encoded(part.full, part.coarse)

    key = f"bundle {manifest.manifest_sha256}"
    model = FullModel("bundle", key, manifest.full_dim, encode, manifest.dim)
    base, note = _source_of(manifest, source)
    return Subject(
        name=manifest.name,
        model=model,
        base=base or model,
        head=read_head(encoder.path, manifest),
        layer_norm=manifest.head.layer_norm,
        scale=manifest.code.scale,
        dim=manifest.dim,
        packing=manifest.code.packing,
        command=manifest.source.model,
        folder=encoder.path,
        notes=(note,) if note else (),
    )


def _source_of(manifest: Manifest, source: str | None) -> tuple[FullModel | None, str | None]:
    """The fp32 source of a bundle, loaded only if a vector is not cached; or why it is missing."""
    from edge_mrl.errors import NetworkError
    from edge_mrl_export.source import DEFAULT_MODEL, locate

    named = source
    if named is None and manifest.source.model != DEFAULT_MODEL:
        named = manifest.source.model
    try:
        locate(named, default=DEFAULT_MODEL)
    except (UsageError, NetworkError) as error:
        if source is not None:
            raise
        return None, (
            f"the fp32 source is not available ({error}); all is compared with the bundle's own full "
            "vectors. Name the source with --source"
        )
    loaded: list[FullModel] = []

    def encode(texts: list[str], kind: str) -> Iterator[Encoded]:
        if not loaded:
            loaded.append(open_source(named, manifest.max_tokens, manifest.prompts).model)
            if loaded[0].key != key:
                raise UsageError(
                    f"{named or DEFAULT_MODEL} is not the model, or not the version, that the bundle was "
                    "made from: name the right one with --source"
                )
        yield from loaded[0].encode(texts, kind)

    key = _source_key(manifest.space_id, manifest.max_tokens)
    return FullModel("fp32 source", key, manifest.full_dim or 0, encode), None


def open_source(
    model: str | None, max_tokens: int | None = None, prompts: Mapping[str, str] | None = None
) -> Subject:
    """A source model, run by its own library.

    Args:
        model: Hub id or folder; None for all-MiniLM-L6-v2.
        max_tokens: Longest input; None for the model's own limit.
        prompts: Prompts by kind; None for the model's own.

    Raises:
        UsageError: There is no such model.
        NetworkError: The hub cannot be reached.
    """
    from edge_mrl_export.source import load_source

    source = load_source(model, prompts=prompts)
    limit = max_tokens or source.max_tokens

    def encode(texts: list[str], kind: str) -> Iterator[Encoded]:
        yield Encoded(source.encode(texts, kind=kind, max_tokens=limit))

    full = FullModel("fp32 source", _source_key(source.space_id(), limit), source.width, encode)
    return Subject(
        name=source.name,
        model=full,
        base=full,
        layer_norm=source.layer_norm,
        command=model or source.model,
        matryoshka=source.mrl_dims is not None,
    )


def _source_key(space_id: str, max_tokens: int) -> str:
    return f"source {space_id} {max_tokens}"
