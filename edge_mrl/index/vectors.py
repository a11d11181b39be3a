"""Questions that are vectors: one from elsewhere, or that of a document that is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mrl.arguments import each_id
from edge_mrl.bundle import bundle_codes, read_head, read_manifest
from edge_mrl.codes import CODE_MAX, normalize
from edge_mrl.documents import shorten
from edge_mrl.errors import BindingError, UsageError
from edge_mrl.ingest import MOST_CHANGES
from edge_mrl.search import QueryVectors, Results, answer
from edge_mrl.store import find_bundle

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from edge_mrl.index.facade import Index
    from edge_mrl.search import SearchOptions
    from edge_mrl.store import Binding, View

__all__ = ["ask_by_vector", "ask_for_similar"]


def ask_by_vector(index: Index, vector: ArrayLike, options: SearchOptions) -> Results:
    """The documents nearest to a vector; see ``Index.search_vector``."""
    _require_vector_mode(options)
    for _ in range(MOST_CHANGES):
        binding = index.store.binding
        query = _query_of(index, vector, binding)
        with index.store.searching() as view:
            if view.binding.code == binding.code:
                return _answer(view, query, options)
        index.store.refresh()
    raise BindingError(f"other processes keep changing the bundle of {index.path}: try again")


def ask_for_similar(index: Index, name: str, options: SearchOptions) -> Results:
    """The documents most like one that is stored; see ``Index.similar``."""
    _require_vector_mode(options)
    (name,) = each_id([name])
    with index.store.searching() as view:
        query = _query_of_document(view, name)
        # It is nearest to itself, or hardly farther than its nearest ones.
        found = _answer(view, query, replace(options, k=options.k + 1))
        others = tuple(hit for hit in found if hit.id != name)
        return replace(found, hits=others[: options.k])


def _require_vector_mode(options: SearchOptions) -> None:
    if options.mode != "vector":
        raise UsageError(f'a search by vector has mode "vector", not {options.mode!r}')


def _answer(view: View, query: QueryVectors, options: SearchOptions) -> Results:
    (hits,) = answer(view, [""], [query], options)
    return Results(tuple(hits), damaged=tuple(view.names(view.damaged)))


def _query_of(index: Index, vector: ArrayLike, binding: Binding) -> QueryVectors:
    values = _one_dimensional(vector, binding)
    if values.dtype == np.int8 and len(values) == binding.dim:
        return QueryVectors(values, None)
    if binding.full_dim is None or len(values) != binding.full_dim:
        raise _no_vector(vector, binding)
    full = values.astype(np.float64)
    length = float(np.sqrt(full @ full))
    if not np.isfinite(length) or not length:
        raise UsageError("the vector is zero or not finite, expected one with a direction")
    unit = (full / length).astype(np.float32)
    folder = find_bundle(index.store, trust=index.opening.get("trust"))
    manifest = read_manifest(folder)
    head = read_head(folder, manifest)
    return QueryVectors(bundle_codes(unit[None], head, manifest)[0], unit)


def _one_dimensional(vector: ArrayLike, binding: Binding) -> NDArray[Any]:
    try:
        values = np.asarray(vector)
    except (TypeError, ValueError):  # a ragged list
        raise _no_vector(vector, binding) from None
    if values.ndim != 1 or values.dtype.kind not in "fiu":
        raise _no_vector(vector, binding)
    return values


def _no_vector(vector: ArrayLike, binding: Binding) -> UsageError:
    shape = getattr(vector, "shape", None)
    given = shorten(vector) if shape is None else f"{getattr(vector, 'dtype', '?')}{list(shape)}"
    full = "" if binding.full_dim is None else f"float[{binding.full_dim}], a full vector, or "
    return UsageError(f"the vector is {given}, expected {full}int8[{binding.dim}], a code")


def _query_of_document(view: View, name: str) -> QueryVectors:
    keys = view.keys([name])
    places = view.places(keys, partial=True)
    if not keys or not places:
        what = "has no passages" if keys else "is not in the store"
        raise UsageError(f"document {name!r} {what}: name one that can be found by its meaning")
    first, spans = places[keys[0]]
    levels = view.codes.gather_levels(np.arange(first, first + len(spans)))[0].astype(np.float32)
    fulls = view.fulls(keys).get(keys[0])
    full = None if fulls is None else normalize(normalize(fulls).mean(axis=0, keepdims=True))[0]
    return QueryVectors(_middle(levels), full)


def _middle(levels: NDArray[np.float32]) -> NDArray[np.int8]:
    """The code between several, of their mean length: codes around a centre are not free of scale.

    Args:
        levels: float32[n, dim], levels of codes.

    Returns:
        int8[dim].
    """
    lengths = np.linalg.norm(levels, axis=1)
    mean = normalize(levels).mean(axis=0, keepdims=True)
    middle = normalize(mean)[0] * lengths.mean()
    codes: NDArray[np.int8] = np.clip(np.rint(middle), -CODE_MAX, CODE_MAX).astype(np.int8)
    return codes
