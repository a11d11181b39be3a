"""Copies of one device's store: seen by the marks that each copy sends, and told from restarts.

A device draws a new mark for each run, keeps it in its store before it sends it, and sends it with those
before it, newest first. So a store's marks are a chain. Of two copies each goes on with a chain of its
own from the moment at which they were copied, and the server sees their chains take turns.

One chain has the device's name. Whoever comes with another one is asked for one more mark
(``UnsureCopyError``): an answer reaches nobody who sent a request long ago, so what is late changes
nothing. Then that chain has the name. A backup that was put back does this once, and the former chain
never goes on. Only where a chain comes back that had the name before, and that twice within 30 days (A,
B, A, B), the stores are called copies, and the one that came last is refused from then on. Three backups,
put back in turn, each at the very end of its chain, would be the same sight; nobody does that.

Restarts, several processes on one store and a thread beside a command share the chain in the store.
Requests that are doubled or late repeat marks that are known. A mark that was changed by a bit is the
end of a chain that nobody goes on with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

from edge_mrl.wire import now_ms
from edge_mrl_server.errors import ClonedError, UnavailableError, UnsureCopyError
from edge_mrl_server.logs import LOGGER
from edge_mrl_server.storage.database import Database
from edge_mrl_server.storage.records import Principal

__all__ = ["judge", "meet", "parse"]

#: Chains of a device that are remembered, and marks of each: what is older is nobody's, or comes late.
MAX_CHAINS = 8
MAX_MARKS = 16
#: Chains that took turns twice within this time are copies.
WINDOW_MS = 30 * 86_400_000
#: How often a note is tried again that another request was faster with.
TRIES = 3
_MARKS = re.compile(r"[0-9a-f]{16}(?:-[0-9a-f]{16}){0,15}")

Verdict = Literal["known", "moved", "unsure", "cloned"]


def parse(header: str | None) -> tuple[str, ...]:
    """The marks of a request, newest first; none where it has none, or where they were damaged.

    No digest protects a header. One that cannot be read says nothing, and is no reason to refuse.
    """
    if header is None or not _MARKS.fullmatch(header):
        return ()
    return tuple(header.split("-"))


def meet(database: Database, principal: Principal, marks: Sequence[str]) -> None:
    """Compare the marks of a request with those that the device sent before, and note them.

    Raises:
        UnsureCopyError: The device has to draw another mark, and to ask again.
        ClonedError: It is one of several copies, and another one has the device's name now.
    """
    if not marks:
        return
    before = principal.marks
    for _ in range(TRIES):
        after, verdict = judge(before, marks, now=now_ms())
        if verdict == "known":
            return
        try:
            if after != before:
                before = _note(database, principal, before, after, cloned=verdict == "cloned")
        except UnavailableError:
            return  # no push may make a pull wait: what follows is only noticed later
        if after == before:
            _tell(principal, verdict)
            return


def _note(
    database: Database, principal: Principal, before: str, after: str, *, cloned: bool
) -> str:
    """Write what is known now, unless another request did meanwhile; returns what is there."""
    where = "WHERE tenant = ? AND device = ?"
    who = (principal.tenant, principal.device)
    with database.write(lazily=True) as transaction:
        noted = transaction.run(
            "UPDATE devices SET marks = ?, cloned_ms = coalesce(cloned_ms, ?) "  # noqa: S608
            f"{where} AND marks = ?",
            after,
            now_ms() if cloned else None,
            *who,
            before,
        )
        if noted:
            return after
        rows = transaction.rows(f"SELECT marks FROM devices {where}", *who)  # noqa: S608
        return str(rows[0]["marks"]) if rows else before


def _tell(principal: Principal, verdict: Verdict) -> None:
    if verdict == "cloned":
        fields = {"tenant": principal.tenant, "device": principal.device}
        LOGGER.warning("cloned", extra={"fields": fields})
        raise ClonedError(principal.device)
    if verdict == "unsure":
        raise UnsureCopyError


def judge(text: str, marks: Sequence[str], *, now: int) -> tuple[str, Verdict]:
    """What a request's marks say.

    Args:
        text: What is known of the device's chains, as this function returned it; "" at first.
        marks: The request's, newest first; at least one.
        now: The time, in milliseconds since 1970.

    Returns:
        What is known now, and: "known" (nothing is new), "moved" (the chain that has the name went on,
        or another one has it now), "unsure" (another chain, or a request that is late),
        "cloned" (chains took turns, and this request's is not the one that has the device's name).
    """
    state: dict[str, Any] = json.loads(text) if text else {"chains": [], "turns": []}
    chains: list[dict[str, Any]] = state["chains"]
    newest, found = marks[0], _find(chains, marks)
    if found is not None and found[0].get("out"):
        return text, "cloned"
    if found is not None and found[1] == 0:
        return text, "unsure" if found[0].get("asked") == newest else "known"
    if not chains:
        chains.append({"marks": [newest], "ms": now, "was": True})
        return _dump(state), "moved"
    if found is None or marks[found[1]] != found[0]["marks"][0]:
        # Another chain: a backup that was put back, a copy, or a request that is very late.
        _add(chains, {"marks": [newest], "ms": now, "asked": newest})
        return _dump(state), "unsure"
    chain, place = found
    live = chain is chains[0] or chain.get("asked") == marks[place]
    chain.pop("asked", None)
    chain["marks"] = [*marks[:place], *chain["marks"]][:MAX_MARKS]
    chain["ms"] = now
    if not live:
        chain["asked"] = newest
        return _dump(state), "unsure"
    if chain is chains[0]:
        return _dump(state), "moved"
    if chain.get("was"):  # it had the name before: they take turns
        state["turns"] = [*(ms for ms in state["turns"] if ms > now - WINDOW_MS), now]
        if len(state["turns"]) > 1:
            chain["out"] = True
            return _dump(state), "cloned"
    chain["was"] = True
    chains.remove(chain)
    chains.insert(0, chain)
    return _dump(state), "moved"


def _find(
    chains: Sequence[dict[str, Any]], marks: Sequence[str]
) -> tuple[dict[str, Any], int] | None:
    """The chain of the newest mark that is known, and that mark's place in the request.

    Where chains parted, a mark may be in one and the end of another: the end tells more.
    """
    for place, mark in enumerate(marks):
        for chain in sorted(chains, key=lambda chain: chain["marks"][0] != mark):
            if mark in chain["marks"]:
                return chain, place
    return None


def _add(chains: list[dict[str, Any]], chain: dict[str, Any]) -> None:
    """Remember one more chain, instead of the one that matters least where there are many."""
    chains.append(chain)
    if len(chains) > MAX_CHAINS:
        rest = [other for other in chains[1:] if other is not chain]
        chains.remove(
            min(rest, key=lambda other: ("out" in other, "was" in other, int(other["ms"])))
        )


def _dump(state: dict[str, Any]) -> str:
    return json.dumps(state, separators=(",", ":"))
