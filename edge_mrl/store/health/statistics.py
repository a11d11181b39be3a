"""What a store holds, in figures."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edge_mrl.documents import clean
from edge_mrl.store import reindex
from edge_mrl.store.binding import ENGINES, SEARCH_STAGES, read_setting
from edge_mrl.store.codefile.state import read_dead, read_state
from edge_mrl.store.engine.sizes import stored_bytes
from edge_mrl.store.replica.outbox import read_enrollment
from edge_mrl.store.roots import read_roots

if TYPE_CHECKING:
    from edge_mrl.store.store import Store

__all__ = ["Stats", "stats"]


@dataclass(frozen=True, slots=True)
class Stats:
    """What a store holds and how much space it takes.

    Attributes:
        path: The store's file.
        writable: Whether this process can write the store.
        obstacle: Why it cannot, in words; None if it can.
        encrypted: Whether the store is encrypted.
        bundle: The folder of the bundle that made its codes, when it was last used.
        space_id: The embedding space.
        code_id: Projection head, dimensions and scale of its codes.
        dim: Dimensions of a code.
        code: How a code is stored, for example "int8" or "1-bit".
        code_bytes: Bytes of a stored code, one for each passage.
        stages: The stages that searches of this store use; None for the default ones.
        max_tokens: Most tokens in a passage.
        overlap: Tokens that a passage shares with the one before it.
        splitter: "markdown" if Markdown is split by structure, "markdown+headings" if the headings
            above a passage are embedded with it too, "tokens" if all is split by tokens.
        keep_full: What is kept of full vectors: "until-synced", "fp16" or "int8"; None for nothing.
        documents: Documents in the store.
        passages: Passages in the store.
        deleted_passages: Passages that are deleted and still take space; ``compact`` drops them.
        filed_passages: Passages in the code file, deleted ones included.
        waiting_passages: Passages that wait in the database until they are written to the code file.
        bytes: Bytes on disk: "database", "log" and "codes", where there is such a file.
        problem: Why the code file is not in use, in words; None if it is.
        server: The server that the store is synced with; None if it is not enrolled.
        queued: Documents that wait to be sent.
        roots: Folders that are indexed, by the names that begin their documents' ids.
        reindexing: The bundle to which an interrupted reindexing was changing the store; None if no
            reindexing was interrupted.
    """

    path: str
    writable: bool
    obstacle: str | None
    encrypted: bool
    bundle: str
    space_id: str
    code_id: str
    dim: int
    code: str
    code_bytes: int
    stages: str | None
    max_tokens: int
    overlap: int
    splitter: str
    keep_full: str | None
    documents: int
    passages: int
    deleted_passages: int
    filed_passages: int
    waiting_passages: int
    bytes: Mapping[str, int]
    problem: str | None
    server: str | None
    queued: int
    roots: Mapping[str, str]
    reindexing: str | None
    engines: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The figures by name, as ``edge-mrl stats --json`` prints them."""
        return asdict(self)

    def __getitem__(self, name: str) -> Any:
        """A figure by its name, as when these were a dictionary; goes with the next minor version."""
        text = f"stats()[{name!r}] is deprecated: use stats().{name}"
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        return self.as_dict()[name]


def stats(store: Store) -> Stats:
    """Count what a store holds, and measure the space it takes.

    Raises:
        DamagedError: Something that is counted is not what was written.
    """
    counts, going = store.count(), reindex.interrupted(store)
    with store.locked() as (connection, cache):
        state = read_state(connection)
        deleted = len(read_dead(connection))
        problem = cache.inspect(state)
        enrollment = read_enrollment(connection)
        (queued,) = connection.execute("SELECT count(*) FROM outbox").fetchone()
        stages = read_setting(connection, SEARCH_STAGES)
        engines = read_setting(connection, ENGINES)
    binding = store.binding
    return Stats(
        path=str(store.path),
        writable=store.writable,
        obstacle=store.obstacle,
        encrypted=store.encrypted,
        bundle=binding.bundle,
        space_id=binding.space_id,
        code_id=binding.code_id,
        dim=binding.dim,
        code=binding.packing.kind,
        code_bytes=binding.packing.bytes(binding.dim),
        stages=stages,
        max_tokens=store.rule.max_tokens,
        overlap=store.rule.overlap,
        splitter=store.rule.splitter,
        keep_full=store.keep_full,
        documents=counts.documents,
        passages=counts.passages,
        deleted_passages=deleted,
        filed_passages=state.filed,
        waiting_passages=state.next_row - state.filed,
        bytes=stored_bytes(store.path),
        problem=problem,
        server=None if enrollment is None else enrollment.server,
        queued=queued,
        roots={root.name: clean(root.path) for root in read_roots(store)},
        reindexing=None if going is None else going.binding.bundle,
        engines=() if engines is None else tuple(engines.split(",")),
    )
