"""When a device may use the network, and how long it waits after a failure."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["Backoff", "Conditions", "Policy"]

#: The longest a device waits by itself, in seconds.
MAX_WAIT_S = 300.0
FIRST_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Conditions:
    """How a device is placed just now, as its application knows.

    Attributes:
        online: Whether there is a network at all.
        metered: Whether the connection costs money.
        charging: Whether it is on external power.
        battery_low: Whether the battery is low.
    """

    online: bool = True
    metered: bool = False
    charging: bool = True
    battery_low: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """Under which conditions a device syncs. "Sync now" overrides all but the byte cap.

    Attributes:
        on_metered: Also over a connection that costs money.
        only_charging: Only on external power.
        on_low_battery: Also when the battery is low.
        max_bytes: Bytes sent and received in one run at most; None for no limit. A run stops before a
            request that would exceed it, but one request it always makes.
    """

    on_metered: bool = False
    only_charging: bool = False
    on_low_battery: bool = False
    max_bytes: int | None = None

    def why_not(self, conditions: Conditions) -> str | None:
        """Why a device is to wait, in plain words; None if it is not."""
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
    """Waiting times after failures: full jitter, doubling, capped.

    After "Exponential Backoff And Jitter" (AWS architecture blog, 2015).

    Args:
        cap_s: The longest wait.
        first_s: The longest wait after the first failure.
        rng: Where chance comes from.
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
        """Something went through: start over."""
        self.failures = 0

    def failed(self, retry_after_s: float | None = None) -> float:
        """Count a failure; returns the seconds to wait, at least what the server asked for."""
        # 2 ** 30 is beyond any cap; more would overflow a float one day.
        most = min(self._cap_s, self._first_s * 2 ** min(self.failures, 30))
        self.failures += 1
        wait_s = self._rng.uniform(0, most)
        if retry_after_s is not None:
            # A day at most: a server with a broken clock must not silence a device for ever.
            wait_s += min(retry_after_s, 86_400.0)
        return wait_s
