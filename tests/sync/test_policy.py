"""When a device may use the network, and how long it waits after failures."""

from __future__ import annotations

import itertools
import random

import pytest

from edge_mrl.sync.policy import Backoff, Conditions, Policy


@pytest.mark.parametrize(
    ("policy", "conditions", "reason"),
    [
        (Policy(), Conditions(), None),
        (Policy(), Conditions(online=False), "there is no network"),
        (Policy(on_metered=True), Conditions(online=False), "there is no network"),
        (Policy(), Conditions(metered=True), "the connection is metered"),
        (Policy(on_metered=True), Conditions(metered=True), None),
        (Policy(), Conditions(charging=False), None),
        (Policy(only_charging=True), Conditions(charging=False), "the device is not charging"),
        (Policy(only_charging=True), Conditions(), None),
        (Policy(), Conditions(charging=False, battery_low=True), "the battery is low"),
        (Policy(on_low_battery=True), Conditions(charging=False, battery_low=True), None),
        (Policy(), Conditions(charging=True, battery_low=True), None),
    ],
)
def test_policy_says_why_a_device_must_wait(
    policy: Policy, conditions: Conditions, reason: str | None
) -> None:
    assert policy.why_not(conditions) == reason


def test_waiting_is_jittered_capped_and_at_least_what_was_asked() -> None:
    backoff = Backoff(cap_s=8, rng=random.Random(1))
    waits = [backoff.failed() for _ in range(200)]
    assert max(waits) <= 8
    assert len(set(waits)) == 200
    assert max(waits[:2]) <= 2
    assert backoff.failed(100) >= 100
    backoff.succeeded()
    assert backoff.failed() <= 1


def test_waiting_grows_with_failures_and_no_server_can_silence_a_device() -> None:
    means = []
    for failures in range(4):
        waits = []
        for seed in range(200):
            backoff = Backoff(cap_s=1_000, rng=random.Random(seed))
            for _ in range(failures):
                backoff.failed()
            waits.append(backoff.failed())
        means.append(sum(waits) / len(waits))
    assert all(later > 1.5 * earlier for earlier, later in itertools.pairwise(means))
    assert Backoff().failed(1e12) <= 86_400 + 1
