"""What one run may use: bytes, and attempts for each request."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from edge_mrl.documents import Document
from edge_mrl.errors import NetworkError, ServerError
from edge_mrl.sync import budget as budget_module
from edge_mrl.sync.budget import ATTEMPT_WAIT_S, Budget, OverBudgetError
from tests.sync.conftest import NewDevice
from tests.sync.parts import Parts, Shelf, remote_of


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that are waited between attempts, without the waiting."""
    seconds: list[float] = []
    clock = SimpleNamespace(sleep=seconds.append, monotonic=time.monotonic)
    monkeypatch.setattr(budget_module, "time", clock)
    return seconds


class Failing:
    """A request that fails so many times, or always."""

    def __init__(self, error: NetworkError, times: int = 99) -> None:
        self.error, self.left, self.sent = error, times, 0

    def __call__(self) -> str:
        self.sent += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "answer"


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (NetworkError("cut"), 3),
        (ServerError("busy", status=503), 3),
        (ServerError("slow down", status=429), 3),
        (ServerError("damaged", status=400, code="digest"), 3),
        # A bit of the token may have been changed on the way: a refusal is asked for once more.
        (ServerError("no", status=401, code="token"), 2),
        # The run knows what to do about these.
        (ServerError("fenced", status=409, code="fenced"), 1),
        (ServerError("restored", status=409, code="restored"), 1),
        (ServerError("superseded", status=409, code="superseded"), 1),
        (ServerError("head", status=404, code="head_unknown"), 1),
        # Longer than a run waits: the next run is for that.
        (NetworkError("later", retry_after_s=60), 1),
    ],
    ids=lambda value: getattr(value, "code", str(value)),
)
def test_requests_are_repeated_where_that_may_help(
    error: NetworkError, sent: int, waits: list[float]
) -> None:
    request = Failing(error)
    with pytest.raises(type(error)) as caught:
        Budget(attempts=3).attempt(request)
    assert caught.value is error
    assert request.sent == sent
    assert all(0 <= wait <= ATTEMPT_WAIT_S for wait in waits)


def test_attempt_returns_the_first_answer(waits: list[float]) -> None:
    request = Failing(NetworkError("cut"), times=2)
    assert Budget(attempts=3).attempt(request) == "answer"
    assert (request.sent, len(waits)) == (3, 2)
    assert Budget().attempt(lambda: 7) == 7


def test_two_different_refusals_are_each_asked_for_again() -> None:
    errors = [ServerError(code, status=400, code=code) for code in ("a", "b", "b", "b")]

    def ask() -> None:
        raise errors.pop(0)

    with pytest.raises(ServerError, match="b"):
        Budget().attempt(ask)
    assert len(errors) == 1


def test_first_request_is_always_made_and_no_other_beyond_the_limit() -> None:
    shelf = Shelf()
    budget = Budget(max_bytes=100)
    budget.start(shelf)

    def use(size_bytes: int) -> None:
        shelf.traffic = (shelf.traffic[0] + size_bytes, 0)

    budget.require(1_000)  # nothing was sent yet
    budget.attempt(lambda: use(60))
    assert (budget.left_bytes, budget.traffic) == (40, (60, 0))
    budget.require(40)
    with pytest.raises(OverBudgetError, match="this run's 100 bytes are used up"):
        budget.require(41)
    budget.attempt(lambda: use(40))
    with pytest.raises(OverBudgetError):
        budget.attempt(lambda: use(1))
    assert budget.traffic == (100, 0)


def test_bytes_are_those_of_this_run_alone(new_device: NewDevice) -> None:
    device = new_device("one")
    device.index.put([Document("a", "the cat")])
    with remote_of(device.index.store) as remote:
        first = Parts(device.index, remote)
        first.pusher().push()
        sent, received = first.budget.traffic
        assert sent > 0
        assert received > 0
        assert (sent, received) == remote.traffic
        assert Parts(device.index, remote).budget.traffic == (0, 0)
        assert Budget().traffic == (0, 0)  # nothing was connected
        assert Budget().left_bytes is None
