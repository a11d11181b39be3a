"""When a device may use the network, and how long it waits after failures."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["MAX_WAIT_S", "Backoff", "Conditions", "Policy"]

#: The longest wait after failures by default, and the longest after the first one, in seconds.
MAX_WAIT_S = 300.0
FIRST_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Conditions:
    """The state of a device's power and network, as its application knows it.

    Attributes:
        online: Whether there is a network at all.
        metered: Whether the connection is paid by volume.
        charging: Whether it is on external power.
        battery_low: Whether the battery is low.
    """

    online: bool = True
    metered: bool = False
    charging: bool = True
    battery_low: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """Under which conditions a device syncs. "Sync now" overrides everything but ``max_bytes``.

    Attributes:
        on_metered: Sync over a metered connection too.
        only_charging: Sync on external power only.
        on_low_battery: Sync when the battery is low too.
        max_bytes: Most bytes sent and received in one run; None for no limit. A run ends before a request
            that would exceed it, but it always makes one request.
    """

    on_metered: bool = False
    only_charging: bool = False
    on_low_battery: bool = False
    max_bytes: int | None = None

    def why_not(self, conditions: Conditions) -> str | None:
        """Why a device must wait, in plain words; None if it may sync."""
        if not conditions.online:
            return "there is no network"
        if conditions.metered and not self.on_metered:
            return "the connection is metered"
        if self.only_charging and not conditions.charging:
            return "the device is not charging"
        if conditions.battery_low and not conditions.charging and not self.on_low_battery:
            return "the battery is low"
        return None


class Backoff:
    """Waiting times after failures: random, doubling with each failure, up to a limit ("full jitter").

    After "Exponential Backoff And Jitter" (AWS architecture blog, 2015).

    Args:
        cap_s: The longest wait.
        first_s: The longest wait after the first failure.
        rng: The source of random numbers; None for a new one.
    """

    def __init__(
        self,
        *,
        cap_s: float = MAX_WAIT_S,
        first_s: float = FIRST_WAIT_S,
        rng: random.Random | None = None,
    ) -> None:
        self.failures = 0
        self._cap_s = cap_s
        self._first_s = first_s
        # Only to spread devices out: nobody gains from guessing it.
        self._rng = rng or random.Random()  # noqa: S311

    def succeeded(self) -> None:
        """Start over after a success."""
        self.failures = 0

    def failed(self, retry_after_s: float | None = None) -> float:
        """Count a failure.

        Args:
            retry_after_s: Seconds that the server asked to wait, if it did.

        Returns:
            Seconds to wait, at least what the server asked for.
        """
        # 2 ** 30 is beyond any cap; more would overflow a float one day.
        most = min(self._cap_s, self._first_s * 2 ** min(self.failures, 30))
        self.failures += 1
        wait_s = self._rng.uniform(0, most)
        if retry_after_s is not None:
            # At most a day: a server with a broken clock must not stop a device for ever.
            wait_s += min(retry_after_s, 86_400.0)
        return wait_s
