"""How an index is opened: its store and, where the store is made, its bundle."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_mrl.arguments import check_flag, path_of
from edge_mrl.bundle import bundle_folder, locate_bundle, read_manifest
from edge_mrl.encode import Encoder, OpeningKeywords, check_opening, passage_rule
from edge_mrl.errors import NoStoreError
from edge_mrl.ingest import require_rule
from edge_mrl.store import Store, binding_of

if TYPE_CHECKING:
    from edge_mrl.store import Key

__all__ = ["Asked", "IndexKeywords", "open_or_create"]


class IndexKeywords(OpeningKeywords, total=False):
    """How an index is opened; see ``Index.open``."""

    headings: bool | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for of a new store, and has to be so in one that is there; None for nothing.

    Attributes:
        max_tokens: The longest passage, in tokens.
        overlap: Tokens that neighbouring passages share.
        headings: Whether headings are embedded with passages of Markdown.
        keep_full: How full vectors are kept.
    """

    max_tokens: int | None = None
    overlap: int | None = None
    headings: bool | None = None
    keep_full: str | None = None


def open_or_create(
    path: str | os.PathLike[str],
    bundle: str | os.PathLike[str] | None,
    opening: OpeningKeywords,
    asked: Asked,
    *,
    key: Key | None,
) -> tuple[Store, Encoder | None]:
    """A store, made if there is none and a bundle is given; and the bundle's encoder if it was opened.

    Arguments and errors are those of ``Index.open``.
    """
    trust = check_opening(opening)
    if asked.headings is not None:
        check_flag("headings", asked.headings)
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
                rule = passage_rule(
                    encoder,
                    max_tokens=asked.max_tokens,
                    overlap=asked.overlap,
                    headings=asked.headings,
                )
                store = opened.enter_context(
                    Store.create(path, binding, rule, keep_full=asked.keep_full, key=key)
                )
        require_rule(
            store,
            max_tokens=asked.max_tokens,
            overlap=asked.overlap,
            headings=asked.headings,
            keep_full=asked.keep_full,
        )
        opened.pop_all()
    return store, encoder
