"""How an index is opened: its store and, where the store is made, its bundle."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from edge_mrl.arguments import path_of
from edge_mrl.bundle import bundle_folder, locate_bundle, read_manifest
from edge_mrl.encode import Encoder, check_opening, passage_rule
from edge_mrl.errors import NoStoreError
from edge_mrl.ingest import require_rule
from edge_mrl.store import Store, binding_of

if TYPE_CHECKING:
    from edge_mrl.encode import OpeningKeywords
    from edge_mrl.store import Key

__all__ = ["open_or_create"]


def open_or_create(
    path: str | os.PathLike[str],
    bundle: str | os.PathLike[str] | None,
    opening: OpeningKeywords,
    *,
    max_tokens: int | None,
    overlap: int | None,
    keep_full: str | None,
    key: Key | None,
) -> tuple[Store, Encoder | None]:
    """A store, made if there is none and a bundle is given; and the bundle's encoder if it was opened.

    Arguments and errors are those of ``Index.open``.
    """
    trust = check_opening(opening)
    encoder = None
    with ExitStack() as opened:
        if bundle is None:
            store = opened.enter_context(Store.open(path, key=key))
        else:
            place = locate_bundle(path_of("bundle", bundle))
            folder = bundle_folder(place)
            binding = binding_of(read_manifest(folder, trust=trust), place)
            try:
                store = opened.enter_context(Store.open(path, key=key))
                store.require(binding)
            except NoStoreError:
                encoder = opened.enter_context(Encoder.open(folder, **opening))
                rule = passage_rule(encoder, max_tokens=max_tokens, overlap=overlap)
                store = opened.enter_context(
                    Store.create(path, binding, rule, keep_full=keep_full, key=key)
                )
        require_rule(store, max_tokens=max_tokens, overlap=overlap, keep_full=keep_full)
        opened.pop_all()
    return store, encoder
