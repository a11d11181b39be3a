"""What an enrolled store keeps so that it is itself: marks, receipts, and an enrollment under way.

All of it stands in the table of settings, which is emptied when the store is bound to a bundle anew. That
does no harm: a chain of marks then begins again, as after a backup was put back.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edge_mrl.store.binding import read_setting, write_setting

if TYPE_CHECKING:
    import sqlite3

    from edge_mrl.store.store import Store

__all__ = [
    "Enrolling",
    "begin_enrolling",
    "draw_mark",
    "draw_nonce",
    "enrolling_of",
    "keep_receipt",
    "receipt_of",
]

#: Settings: the marks of this copy of the store, the server's last receipt, an enrollment and a renewal
#: of the token that are under way.
MARKS = "marks"
RECEIPT = "receipt"
ENROLLING = "enrolling"
RENEWING = "renewing"
#: Marks that are sent: a server that missed some, or was restored, finds one that it knows among them.
SENT_MARKS = 8
MARK_BYTES = 8
NONCE_BYTES = 16


@dataclass(frozen=True, slots=True)
class Enrolling:
    """An enrollment whose answer this store may not have.

    Attributes:
        invitation: SHA-256 of the invitation.
        nonce: What was drawn for the request: the same request again gives the same token.
        with_text: Whether text and metadata will be sent.
        max_queue: At most this many bytes of vectors will wait in the queue.
    """

    invitation: str
    nonce: str
    with_text: bool
    max_queue: int


def begin_enrolling(store: Store, invitation: str, *, with_text: bool, max_queue: int) -> Enrolling:
    """Note on disk that an enrollment is about to be asked for, since its answer may be lost.

    Args:
        store: The store.
        invitation: The secret; only its hash is kept.
        with_text: Whether text and metadata will be sent.
        max_queue: At most this many bytes of vectors will wait in the queue.
    """
    digest = hashlib.sha256(invitation.strip().encode("utf-8", "surrogatepass")).hexdigest()
    before = enrolling_of(store)
    same = before is not None and before.invitation == digest
    nonce = before.nonce if before is not None and same else secrets.token_hex(NONCE_BYTES)
    wanted = Enrolling(digest, nonce, with_text, max_queue)
    with store.writing(), store.locked() as (connection, _):
        write_setting(connection, ENROLLING, json.dumps(asdict(wanted)))
    return wanted


def enrolling_of(store: Store) -> Enrolling | None:
    """The enrollment that was asked for last, until the store is bound to its answer."""
    with store.locked() as (connection, _):
        text = read_setting(connection, ENROLLING)
    return None if text is None else Enrolling(**json.loads(text))


def draw_nonce(store: Store, token: str) -> str:
    """What to send with a request for a new token: the same until the present one is replaced.

    It is on disk when this returns. So all processes that renew a token get the same new one, and so does
    whoever goes on after a kill.

    Args:
        store: The store.
        token: The present token; only its hash is kept.
    """
    digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
    with store.writing(), store.locked() as (connection, _):
        text = read_setting(connection, RENEWING)
        value = {} if text is None else json.loads(text)
        if value.get("token") != digest:
            value = {"token": digest, "nonce": secrets.token_hex(NONCE_BYTES)}
            write_setting(connection, RENEWING, json.dumps(value))
        return str(value["nonce"])


def draw_mark(store: Store, *, known: str | None = None) -> tuple[str, ...]:
    """The marks to send with the next requests, newest first.

    The newest one is drawn and written before it is sent. It stays the newest until an answer came to a
    request that had it: so whatever is lost or killed, the marks of a store are one chain.

    Args:
        store: The store.
        known: A mark that the server has: the next one is drawn if this is the newest.
    """
    with store.writing(), store.locked() as (connection, _):
        marks, fresh = _read_marks(connection)
        if fresh is not None and fresh == known:
            marks, fresh = [fresh, *marks], None
        if fresh is None:
            fresh = secrets.token_hex(MARK_BYTES)
            _write_marks(connection, marks, fresh)
        return (fresh, *marks)[:SENT_MARKS]


def keep_receipt(store: Store, receipt: str | None, *, known: str | None) -> None:
    """Keep what a run learned: the server's last receipt, and a mark that the server has.

    Args:
        store: The store.
        receipt: The receipt; None if there was none.
        known: The mark; None if no answer came.
    """
    with store.writing(), store.locked() as (connection, _):
        marks, fresh = _read_marks(connection)
        if fresh is not None and fresh == known:
            _write_marks(connection, [fresh, *marks], None)
        if receipt is not None:
            write_setting(connection, RECEIPT, receipt)


def receipt_of(store: Store) -> str:
    """The server's last receipt; empty if it has given none."""
    with store.locked() as (connection, _):
        return read_setting(connection, RECEIPT) or ""


def _read_marks(connection: sqlite3.Connection) -> tuple[list[str], str | None]:
    """Marks that the server has, newest first; and one that it may have."""
    text = read_setting(connection, MARKS)
    value: dict[str, Any] = {"marks": [], "fresh": None} if text is None else json.loads(text)
    return value["marks"], value["fresh"]


def _write_marks(connection: sqlite3.Connection, marks: list[str], fresh: str | None) -> None:
    value = {"marks": marks[: SENT_MARKS - 1], "fresh": fresh}
    write_setting(connection, MARKS, json.dumps(value))
