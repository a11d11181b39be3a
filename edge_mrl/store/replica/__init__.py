"""What makes a store one of several copies: enrollment, versions, queue, dead letters.

Used as a namespace: ``from edge_mrl.store import replica``, then ``replica.enroll(store, ...)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.store.replica.arrivals import Applied, apply_pulled, concerns_documents
    from edge_mrl.store.replica.dead_letters import (
        DAMAGED,
        DELETED_ELSEWHERE,
        NO_VECTORS,
        REPLACED_ELSEWHERE,
        DeadLetter,
        count_dead_letters,
        drop_dead_letters,
        list_dead_letters,
        replaced_texts,
        requeue_dead_letters,
    )
    from edge_mrl.store.replica.enrollment import (
        enroll,
        enrollment_of,
        ever_acknowledged,
        mark_success,
        resend,
        set_margin,
        set_server,
        set_with_text,
    )
    from edge_mrl.store.replica.foreign import foreign_problem, forget_received, note_foreign
    from edge_mrl.store.replica.marks import (
        Enrolling,
        begin_enrolling,
        draw_mark,
        draw_nonce,
        enrolling_of,
        keep_receipt,
        receipt_of,
    )
    from edge_mrl.store.replica.outbox import MAX_QUEUE_BYTES, Enrollment
    from edge_mrl.store.replica.queue import (
        Outgoing,
        Queue,
        Verdict,
        acknowledge,
        begin_push,
        newest_queued,
        outgoing,
        queue_of,
        settle_push,
    )
    from edge_mrl.store.replica.reconciling import Agreed, ServerPosition, reconcile
    from edge_mrl.store.replica.restamped import Restamp, take_restamp
    from edge_mrl.store.replica.settlement import (
        Settled,
        agreement_of,
        local_sums,
        note_agreed,
        note_difference,
        note_explained,
        settle_groups,
    )
    from edge_mrl.store.replica.withheld import UNREADABLE, Withheld, ask_for_unreadable

__all__ = [
    "DAMAGED",
    "DELETED_ELSEWHERE",
    "MAX_QUEUE_BYTES",
    "NO_VECTORS",
    "REPLACED_ELSEWHERE",
    "UNREADABLE",
    "Agreed",
    "Applied",
    "DeadLetter",
    "Enrolling",
    "Enrollment",
    "Outgoing",
    "Queue",
    "Restamp",
    "ServerPosition",
    "Settled",
    "Verdict",
    "Withheld",
    "acknowledge",
    "agreement_of",
    "apply_pulled",
    "ask_for_unreadable",
    "begin_enrolling",
    "begin_push",
    "concerns_documents",
    "count_dead_letters",
    "draw_mark",
    "draw_nonce",
    "drop_dead_letters",
    "enroll",
    "enrolling_of",
    "enrollment_of",
    "ever_acknowledged",
    "foreign_problem",
    "forget_received",
    "keep_receipt",
    "list_dead_letters",
    "local_sums",
    "mark_success",
    "newest_queued",
    "note_agreed",
    "note_difference",
    "note_explained",
    "note_foreign",
    "outgoing",
    "queue_of",
    "receipt_of",
    "reconcile",
    "replaced_texts",
    "requeue_dead_letters",
    "resend",
    "set_margin",
    "set_server",
    "set_with_text",
    "settle_groups",
    "settle_push",
    "take_restamp",
]

__getattr__ = lazily(
    __name__,
    {
        "arrivals": ("Applied", "apply_pulled", "concerns_documents"),
        "dead_letters": (
            "DELETED_ELSEWHERE",
            "DAMAGED",
            "NO_VECTORS",
            "REPLACED_ELSEWHERE",
            "DeadLetter",
            "count_dead_letters",
            "drop_dead_letters",
            "list_dead_letters",
            "replaced_texts",
            "requeue_dead_letters",
        ),
        "enrollment": (
            "enroll",
            "enrollment_of",
            "ever_acknowledged",
            "mark_success",
            "resend",
            "set_margin",
            "set_server",
            "set_with_text",
        ),
        "foreign": ("forget_received", "foreign_problem", "note_foreign"),
        "marks": (
            "Enrolling",
            "begin_enrolling",
            "draw_mark",
            "draw_nonce",
            "enrolling_of",
            "keep_receipt",
            "receipt_of",
        ),
        "outbox": ("MAX_QUEUE_BYTES", "Enrollment"),
        "queue": (
            "Outgoing",
            "Queue",
            "Verdict",
            "acknowledge",
            "begin_push",
            "newest_queued",
            "outgoing",
            "queue_of",
            "settle_push",
        ),
        "reconciling": ("Agreed", "ServerPosition", "reconcile"),
        "restamped": ("Restamp", "take_restamp"),
        "settlement": (
            "Settled",
            "agreement_of",
            "local_sums",
            "note_agreed",
            "note_difference",
            "note_explained",
            "settle_groups",
        ),
        "withheld": ("UNREADABLE", "Withheld", "ask_for_unreadable"),
    },
)
