"""What ``edge-mrl index`` did, for people and for programs."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edge_mrl.cli.common.output import count, duration, print_json, size, table

if TYPE_CHECKING:
    from edge_mrl.cli.index.reading import Run
    from edge_mrl.index import Index
    from edge_mrl.ingest import Stored
    from edge_mrl.sources import Pruning
    from edge_mrl.store import Moved

__all__ = ["facts_of", "left_out", "print_report", "pruning_facts", "say"]

#: Places, texts and suffixes that are named one by one.
MOST_NAMED = 10


def facts_of(
    index: Index, stored: Stored, run: Run, pruning: Pruning | None, moved: Moved | None
) -> dict[str, Any]:
    """The summary as it is printed with --json; size and time come later."""
    counts = index.count()
    facts: dict[str, Any] = {
        "added": stored.added,
        "updated": stored.updated,
        "unchanged": stored.unchanged,
        "repeated": run.repeated,
        "conflicts": stored.conflicts,
        "skipped_files": len(run.skipped),
        "skipped": dict(run.skipped),
        "noted": dict(run.noted),
        "problems": [{"path": one.path, "why": one.why} for one in run.scan.problems],
        "not_read": left_out(run.scan.left_out),
        "bad_lines": run.bad_lines,
        "refused": [{"id": one.id, "reason": one.reason} for one in stored.refused],
        "passages": stored.passages,
        "max_tokens": index.rule.max_tokens,
        "overlap": index.rule.overlap,
        "roots": {root.name: root.path for root in run.places.roots_in_use()},
        "store": {
            "path": str(index.path),
            "documents": counts.documents,
            "passages": counts.passages,
            "code_bytes": counts.passages * index.binding.packing.bytes(index.binding.dim),
        },
    }
    if moved is not None:
        facts["moved_ids"] = moved.moved
    return facts | pruning_facts(pruning)


def pruning_facts(pruning: Pruning | None, *, deleted: bool = True) -> dict[str, Any]:
    """What --prune deleted or kept, for --json."""
    if pruning is None:
        return {"pruned": 0, "kept": []}
    kept = [
        {"path": place, "why": why, "documents": number}
        for (place, why), number in pruning.kept.most_common()
    ]
    return {"pruned": len(pruning.gone) if deleted else 0, "kept": kept}


def left_out(suffixes: Counter[str]) -> dict[str, Any]:
    """Files that were left out, for --json."""
    from edge_mrl.sources import extra_reads

    extra = [suffix for suffix, _ in suffixes.most_common() if extra_reads(suffix)]
    return {"files": suffixes.total(), "by_suffix": dict(suffixes.most_common()), "extra": extra}


def print_report(args: argparse.Namespace, facts: Mapping[str, Any]) -> None:
    """Print the summary, and on standard error what was not read."""
    if not args.quiet:
        say(facts)
    if args.json:
        print_json(facts)
        return
    if args.quiet:
        return
    store, seconds = facts["store"], facts["seconds"]
    rate = f", {facts['passages'] / seconds:.0f} passages/s" if facts["passages"] else ""
    rule = f"up to {facts['max_tokens']} tokens, {facts['overlap']} shared"
    held = [count(store["documents"], "document"), count(store["passages"], "passage")]
    held.append(f"{size(store['code_bytes'])} of codes")
    rows = [
        ("documents", _documents(facts)),
        ("passages", f"{facts['passages']:,} embedded ({rule})"),
        ("store", f"{store['path']}, {size(store['size_bytes'])}: {', '.join(held)}"),
        ("took", f"{duration(seconds)}{rate}"),
    ]
    print(table(rows))


def _documents(facts: Mapping[str, Any]) -> str:
    done = facts["added"] + facts["updated"] + facts["unchanged"]
    kinds = ", ".join(f"{facts[key]:,} {key}" for key in ("added", "updated", "unchanged"))
    more = [
        (facts["pruned"], count(facts["pruned"], "document") + " pruned"),
        (facts["repeated"], f"{facts['repeated']:,} of them given more than once"),
        (facts["conflicts"], f"{facts['conflicts']:,} in conflict"),
        (facts["skipped_files"], count(facts["skipped_files"], "file") + " skipped"),
        (len(facts["bad_lines"]), count(len(facts["bad_lines"]), "bad line") + " skipped"),
        (len(facts["refused"]), count(len(facts["refused"]), "text") + " refused"),
        (facts.get("moved_ids"), count(facts.get("moved_ids", 0), "id") + " moved"),
    ]
    return f"{done:,}: {kinds}" + "".join(f"; {text}" for number, text in more if number)


def say(facts: Mapping[str, Any]) -> None:
    """Print on standard error what was left out or kept."""
    for one in facts["refused"][:MOST_NAMED]:
        _note(f"warning: {one['id']}: left out, {one['reason']}")
    _rest(len(facts["refused"]), "text")
    if facts["conflicts"]:
        _note(
            f"warning: {count(facts['conflicts'], 'document')} left as another device wrote them under "
            "the same ids (`edge-mrl sync --dead-letters` shows yours): give the folder a name of its "
            "own with NAME=PATH and --move-ids"
        )
    for one in facts["kept"][:MOST_NAMED]:
        _note(f"note: {one['path']} {one['why']}: {count(one['documents'], 'document')} kept")
    _rest(len(facts["kept"]), "place")
    not_read = facts["not_read"]
    if not_read["files"]:
        _note(f"note: {_suffixes(not_read)}")


def _suffixes(not_read: Mapping[str, Any]) -> str:
    kinds = list(not_read["by_suffix"].items())
    named = [
        f"{number:,} {suffix}" if suffix else f"{number:,} without suffix"
        for suffix, number in kinds[:MOST_NAMED]
    ]
    rest = sum(number for _, number in kinds[MOST_NAMED:])
    if rest:
        named.append(f"{rest:,} others")
    if not_read["extra"]:
        named[-1] += f'; pip install "edge-mrl[files]" reads {", ".join(not_read["extra"])}'
    others = [suffix for suffix, _ in kinds if suffix not in not_read["extra"]]
    if not others:  # no pattern would read them
        return f"{count(not_read['files'], 'file')} not read: {', '.join(named)}"
    first = next((suffix for suffix in others if suffix), "")
    example = f'"*{first}"' if first else '"README*"'
    return (
        f"{count(not_read['files'], 'file')} not read: {', '.join(named)} "
        f"(--include {example} reads such files)"
    )


def _rest(number: int, noun: str) -> None:
    if number > MOST_NAMED:
        _note(f"and {count(number - MOST_NAMED, noun)} more; --json names all")


def _note(text: str) -> None:
    print(f"edge-mrl: {text}", file=sys.stderr)
