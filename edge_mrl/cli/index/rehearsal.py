"""``edge-mrl index --dry-run``: what a run would do. Nothing is written."""

from __future__ import annotations

import argparse
import itertools
from typing import TYPE_CHECKING, Any

from edge_mrl.cli.common.defaults import bundle_of_new
from edge_mrl.cli.common.output import count, print_json
from edge_mrl.cli.common.progress import Progress
from edge_mrl.cli.common.stores import key_of
from edge_mrl.cli.index.reading import Run
from edge_mrl.cli.index.report import left_out, pruning_facts, say
from edge_mrl.errors import GateError, NoStoreError

if TYPE_CHECKING:
    from edge_mrl.documents import Document
    from edge_mrl.sources import Pruning
    from edge_mrl.store import Store

__all__ = ["rehearse"]

#: Documents whose texts are compared with the store's together.
TOGETHER = 256


def rehearse(args: argparse.Namespace) -> int:
    """Print what would be added, updated and pruned.

    Returns:
        The exit code; 1 if a run would ask for --yes.
    """
    from edge_mrl.sources import Places, Search, find_in_roots, what_is_gone
    from edge_mrl.store import Store

    try:
        store: Store | None = Store.open(args.store, key=key_of(args))
    except NoStoreError:
        store = None
    try:
        places = Places(store, move_ids=args.move_ids)
        places.resolve(args.paths)
        scan = find_in_roots(
            places, Search(include=args.include, as_text=args.as_text or args.sql is not None)
        )
        if store is None:
            bundle_of_new(args)  # or there would be no run
        run = Run(places, scan, skip_bad=args.skip_bad, encoding=args.encoding, query=args.sql)
        with Progress("reading", run.total_bytes, quiet=args.quiet) as bar:
            run.watch(bar)
            changes = _changes(store, run, _former_ids(places))
        pruning = None
        if args.prune and store is not None:
            pruning = what_is_gone(store, places, run.facts())
    finally:
        if store is not None:
            store.close()
    _print(args, run, changes, pruning)
    if pruning is not None and pruning.is_large and not args.yes:
        raise GateError(
            f"a run would delete {len(pruning.gone):,} of {pruning.total:,} documents, and ask for --yes"
        )
    return 0


def _former_ids(places: Any) -> list[tuple[str, str]]:
    """What begins ids now, and what begins them after ids were moved."""
    return [(move.new.prefix, move.old.prefix) for move in places.moves]


def _changes(store: Store | None, run: Run, moves: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Ids of documents that would be added and updated, and how many would stay."""
    from edge_mrl.store import text_hash

    changes: dict[str, list[str]] = {"add": [], "update": [], "keep": []}
    documents = run.documents()
    while batch := list(itertools.islice(documents, TOGETHER)):
        names = {document.id: _present_id(document, moves) for document in batch}
        known = {} if store is None else store.hashes(list(names.values()))
        for document in batch:
            digest = known.get(names[document.id])
            same = digest == text_hash(document.text)
            changes["add" if digest is None else "keep" if same else "update"].append(document.id)
    return {kind: list(dict.fromkeys(names)) for kind, names in changes.items()}


def _present_id(document: Document, moves: list[tuple[str, str]]) -> str:
    for new, old in moves:
        if document.id.startswith(new):
            return old + document.id[len(new) :]
    return document.id


def _print(
    args: argparse.Namespace, run: Run, changes: dict[str, list[str]], pruning: Pruning | None
) -> None:
    gone = [] if pruning is None else pruning.gone
    facts: dict[str, Any] = {
        "dry_run": True,
        "added": len(changes["add"]),
        "updated": len(changes["update"]),
        "unchanged": len(changes["keep"]),
        "repeated": run.repeated,
        "skipped_files": len(run.skipped),
        "skipped": dict(run.skipped),
        "noted": dict(run.noted),
        "problems": [{"path": one.path, "why": one.why} for one in run.scan.problems],
        "not_read": left_out(run.scan.left_out),
        "bad_lines": run.bad_lines,
        "refused": [],
        "conflicts": 0,
        **pruning_facts(pruning),
        "would_add": changes["add"],
        "would_update": changes["update"],
        "would_prune": gone,
    }
    if not args.quiet:
        say(facts)
    if args.json:
        print_json(facts)
        return
    for verb, names in (("add", changes["add"]), ("update", changes["update"]), ("prune", gone)):
        for name in names:
            print(f"{verb:<8}{name}")
    if not args.quiet:
        kept = count(len(changes["keep"]), "document")
        print(
            f"would add {len(changes['add']):,}, update {len(changes['update']):,}, prune "
            f"{len(gone):,}, and leave {kept} unchanged; nothing was written"
        )
