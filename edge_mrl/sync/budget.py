"""What one run may use: attempts for each request, and bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from edge_mrl.errors import (
    IntermediaryError,
    NetworkError,
    OversizedAnswerError,
    ServerError,
)
from edge_mrl.sync.answers.intermediaries import LASTING
from edge_mrl.sync.policy import Backoff

if TYPE_CHECKING:
    from edge_mrl.sync.targets.target import PushTarget

__all__ = [
    "ATTEMPTS",
    "OUT_OF_STEP",
    "PREPARING",
    "Budget",
    "OverBudgetError",
    "attempt_backoff",
    "is_temporary",
]

T = TypeVar("T")

#: How often a request is sent in one run before the run gives up.
ATTEMPTS = 4
#: The longest wait between two attempts, in seconds.
ATTEMPT_WAIT_S = 4.0
#: HTTP statuses of temporary refusals, besides 5xx: time-outs, and too many requests.
_TEMPORARY = frozenset({408, 425, 429})
#: Error codes that a request may get because it was damaged or delayed on its way.
_DAMAGED = frozenset({"digest", "timeout"})
#: Error codes of a server that is ahead of this store, or behind it: see ``Run``.
OUT_OF_STEP = frozenset({"fenced", "restored", "superseded"})
#: The error code of a server that makes a snapshot, and asks to come again.
PREPARING = "preparing"
#: Seconds that a run waits for that. Then it ends; the next one asks again.
PREPARING_S = 120.0


class OverBudgetError(Exception):
    """The next request would exceed the run's bytes. The run ends; this is not a failure."""


class Budget:
    """Limits one run: how often each request is sent, and how many bytes are exchanged.

    Args:
        max_bytes: Most bytes sent and received; None for no limit. The first request is always made.
        attempts: How often each request is sent at most.
    """

    def __init__(self, *, max_bytes: int | None = None, attempts: int = ATTEMPTS) -> None:
        self._max_bytes = max_bytes
        self._attempts = attempts
        self._target: PushTarget | None = None
        self._start = (0, 0)
        self._first = True
        self._until: float | None = None

    def start(self, target: PushTarget) -> None:
        """Count the bytes that a connection sends and receives from now on."""
        self._target, self._start = target, target.traffic

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes sent and received in this run."""
        if self._target is None:
            return 0, 0
        sent, received = self._target.traffic
        return sent - self._start[0], received - self._start[1]

    @property
    def left_bytes(self) -> int | None:
        """Bytes that may still be used, 0 or less when none are left; None without a limit."""
        return None if self._max_bytes is None else self._max_bytes - sum(self.traffic)

    def require(self, size_bytes: int) -> None:
        """Make sure that a request of this size is within the limit.

        Raises:
            OverBudgetError: It is not, and it is not the run's first request.
        """
        left = self.left_bytes
        if left is not None and not self._first and left < max(size_bytes, 1):
            raise OverBudgetError(f"this run's {self._max_bytes:,} bytes are used up")

    def attempt(self, ask: Callable[[], T]) -> T:
        """Send a request, and send it again after failures that may pass.

        A refusal that would end the run is asked for once more: a bit of the token may have been changed
        on the way, and the server cannot know that. So is what a proxy answers for as long as nobody
        changes the proxy. An answer that is too large is not: the next one may cost as many bytes. Nor is
        "preparing", which is no failure (``wait_prepared``).

        Args:
            ask: Sends the request and returns its result.

        Raises:
            NetworkError: All attempts failed, or the server refused.
            OverBudgetError: No bytes are left.
        """
        backoff = attempt_backoff()
        refused: tuple[int, str] | None = None
        while True:
            self.require(0)
            self._first = False
            try:
                return ask()
            except OversizedAnswerError:
                raise
            except (ServerError, IntermediaryError) as error:
                code = error.code if isinstance(error, ServerError) else "intermediary"
                if code == PREPARING:
                    raise
                if is_temporary(error):
                    self._wait(backoff, error)
                    continue
                same = refused == (error.status, code)
                if same or code in OUT_OF_STEP or code == "head_unknown":
                    raise
                refused = (error.status, code)
            except NetworkError as error:
                self._wait(backoff, error)

    def _wait(self, backoff: Backoff, error: NetworkError) -> None:
        """Wait for the next attempt, or raise the error where there is none."""
        wait_s = backoff.failed(error.retry_after_s)
        if backoff.failures >= self._attempts or wait_s > 2 * ATTEMPT_WAIT_S:
            raise error
        time.sleep(wait_s)

    def wait_prepared(self, error: ServerError) -> None:
        """Wait as long as a server asks for that prepares something, and up to a second longer.

        A run that sends each request once does not wait: its thread does, and can be stopped.

        Raises:
            ServerError: This run has waited for long enough.
        """
        now = time.monotonic()
        if self._until is None:
            self._until = now + PREPARING_S
        wait_s = Backoff().failed(error.retry_after_s)
        if self._attempts == 1 or now + wait_s > self._until:
            raise error
        time.sleep(wait_s)

    @contextmanager
    def once(self) -> Iterator[None]:
        """Send each request of a block once, whatever comes back."""
        before, self._attempts = self._attempts, 1
        try:
            yield
        finally:
            self._attempts = before


def attempt_backoff() -> Backoff:
    """The waiting times between the attempts of one run."""
    return Backoff(cap_s=ATTEMPT_WAIT_S, first_s=0.25)


def is_temporary(error: ServerError | IntermediaryError) -> bool:
    """Whether a refusal may pass by itself: a time-out, a busy or broken server, a damaged request."""
    if isinstance(error, IntermediaryError):
        return error.status not in LASTING
    return error.status >= 500 or error.status in _TEMPORARY or error.code in _DAMAGED
