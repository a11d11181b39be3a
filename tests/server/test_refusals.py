"""What storage rejects, as devices hear it: the status and the word are part of the protocol."""

from __future__ import annotations

import pytest

from edge_mrl_server import errors
from edge_mrl_server.errors import RejectedError
from edge_mrl_server.http.refusals import refusal_of

TOLD = {
    "InvalidTokenError": (401, "token"),
    "InvalidInvitationError": (403, "forbidden"),
    "LimitReachedError": (403, "forbidden"),
    "InvalidHeadError": (400, "malformed"),
    "WrongDimensionsError": (400, "malformed"),
    "SpaceMismatchError": (409, "space"),
    "FencedError": (409, "fenced"),
    "RestoredError": (409, "restored"),
    "SupersededPushError": (409, "superseded"),
    "UnsureCopyError": (409, "copy_unsure"),
    "ClonedError": (409, "cloned"),
}


def make(kind: type[RejectedError]) -> RejectedError:
    if kind is errors.SpaceMismatchError:
        return kind("a" * 64, "b" * 64)
    if kind is errors.FencedError:
        return errors.FencedError("words", fence=7)
    if kind is errors.SupersededPushError:
        return errors.SupersededPushError(3, last=5)
    plain = (errors.RestoredError, errors.UnsureCopyError)
    return kind() if kind in plain else kind("words")


@pytest.mark.parametrize("kind", RejectedError.__subclasses__(), ids=lambda kind: kind.__name__)
def test_every_rejection_has_its_answer(kind: type[RejectedError]) -> None:
    error = make(kind)
    refusal = refusal_of(error)
    assert (refusal.status, refusal.code) == TOLD[kind.__name__]
    assert str(refusal) == str(error)
    assert refusal.extra == error.details
    assert refusal.retry_after_s is None


def test_details_are_those_that_a_device_needs() -> None:
    details = {kind.__name__: make(kind).details for kind in RejectedError.__subclasses__()}
    assert {name: found for name, found in details.items() if found} == {
        "SpaceMismatchError": {"space": "a" * 64},
        "FencedError": {"fence": 7},
        "SupersededPushError": {"push": 5},
        "ClonedError": {"device": "words"},
    }
    assert set(details) == set(TOLD)
