"""Copies of a store: judged by their marks, in every order of requests that a network makes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence

import pytest

from edge_mrl_server.storage import marks

DAY_MS = 86_400_000
Judge = Callable[..., tuple[str, str]]


class Side:
    """The server's side of one device, with a clock."""

    def __init__(self, judge: Judge = marks.judge) -> None:
        self.text, self.now, self.verdicts = "", 0, list[str]()
        self._judge = judge

    def hear(self, said: Sequence[str]) -> str:
        self.now += 60_000
        self.text, verdict = self._judge(self.text, said, now=self.now)
        self.verdicts.append(verdict)
        return verdict


class Store:
    """What a store does with its marks (``edge_mrl/store/replica/marks.py``)."""

    _numbers = itertools.count(1)

    def __init__(self, known: Sequence[str] = (), fresh: str | None = None) -> None:
        self.known, self.fresh = list(known), fresh

    def copy(self) -> Store:
        return Store(self.known, self.fresh)

    def draw(self) -> tuple[str, ...]:
        if self.fresh is None:
            self.fresh = f"{next(self._numbers):016x}"
        return (self.fresh, *self.known)[:8]

    def answered(self, mark: str) -> None:
        if mark == self.fresh:
            self.known, self.fresh = [mark, *self.known][:7], None

    def run(self, side: Side, *, requests: int = 2) -> str:
        """A sync; returns how it ended."""
        verdict = ""
        for _ in range(requests):
            for _ in range(3):
                said = self.draw()
                verdict = side.hear(said)
                if verdict != "unsure":
                    break
                self.answered(said[0])
            if verdict == "cloned":
                return verdict
        self.answered(self.draw()[0])
        return verdict


def test_one_store_is_never_a_copy_of_itself() -> None:
    side, store = Side(), Store()
    for _ in range(50):
        assert store.run(side) in ("moved", "known")
    assert len(side.text) < 1_000


@pytest.mark.parametrize("rounds", [1, 3])
def test_two_that_take_turns_are_copies_and_one_of_them_goes_on(rounds: int) -> None:
    side, first = Side(), Store()
    first.run(side)
    second = first.copy()
    said = []
    for _ in range(4):
        for store in (first, second):
            said += [store.run(side) for _ in range(rounds)]
    assert "cloned" in said[: 4 * rounds]  # X, Y, X, Y: the second turn of the second one
    assert first.run(side) != "cloned"
    assert second.run(side) == "cloned"
    assert second.copy().run(side) == "cloned"


def test_copies_that_were_made_while_a_mark_was_under_way_are_seen() -> None:
    side, first = Side(), Store()
    first.run(side)
    first.draw()
    second = first.copy()
    said = [store.run(side) for _ in range(4) for store in (first, second)]
    assert "cloned" in said


def test_each_of_many_copies_but_one_is_refused() -> None:
    side, gold = Side(), Store()
    gold.run(side)
    stores = [gold.copy() for _ in range(4)]
    for _ in range(12):
        for store in stores:
            store.run(side)
    assert [store.run(side) == "cloned" for store in stores].count(False) == 1


def test_backup_that_was_put_back_is_no_copy_however_often() -> None:
    side, store = Side(), Store()
    backups = []
    for number in range(12):
        store.run(side)
        backups.append(store.copy())
        if number % 3 == 2:
            store = backups[number - 2].copy()  # and the one that was there is gone
    assert "cloned" not in side.verdicts


def test_backup_put_back_behind_a_server_that_was_put_back_too_is_no_copy() -> None:
    side, store = Side(), Store()
    for _ in range(5):
        store.run(side)
    before, backup = side.text, store.copy()
    for _ in range(20):
        store.run(side)
    side.text = before
    store.run(side)
    backup.run(side)
    for _ in range(5):
        assert backup.run(side) != "cloned"


def test_turns_that_are_long_ago_do_not_count() -> None:
    side, first = Side(), Store()
    first.run(side)
    second = first.copy()
    for store in (first, second, first):
        store.run(side)
    side.now += marks.WINDOW_MS
    assert second.run(side) != "cloned"


def one_device(seed: int, judge: Judge) -> list[str]:
    """One device with everything that networks, processes and one restore do; what it was answered."""
    rng = random.Random(seed)
    side, store = Side(judge), Store()
    late: list[tuple[str, ...]] = []
    backup, restores = store.copy(), 0
    for _ in range(rng.randint(20, 60)):
        for process in range(rng.choice((1, 1, 2))):  # a second process on the same store
            said = store.draw()
            chance = rng.random()
            if chance < 0.15:  # lost on the way, or delivered later
                late += [said] * rng.choice((0, 1, 2))
                continue
            for _ in range(rng.choice((1, 1, 2))):  # doubled
                verdict = side.hear(said)
            if chance < 0.3:  # the answer is lost, or the process killed before it is written down
                continue
            store.answered(said[0])
            if verdict == "unsure" or process:
                said = store.draw()
                side.hear(said)
                store.answered(said[0])
        while late and rng.random() < 0.3:
            side.hear(late.pop(rng.randrange(len(late))))
        if rng.random() < 0.1:
            backup = store.copy()
        if not restores and rng.random() < 0.05:
            store, restores = backup.copy(), 1
    return side.verdicts


@pytest.mark.test
def test_restarts_processes_late_and_doubled_requests_and_a_restore_are_no_copies() -> None:
    for seed in range(300):
        assert "cloned" not in one_device(seed, marks.judge), seed


def test_without_asking_for_another_mark_a_late_request_would_make_copies_of_one_device() -> None:
    """The campaign above can fail: a judge that believes late requests calls one device two."""

    def credulous(text: str, said: Sequence[str], *, now: int) -> tuple[str, str]:
        after, verdict = marks.judge(text, said, now=now)
        if verdict == "unsure":  # take it as if the next mark had come
            after, verdict = marks.judge(after, ("f" * 16, *said), now=now)
            after = after.replace('"' + "f" * 16 + '",', "")
        return after, verdict

    assert any("cloned" in one_device(seed, credulous) for seed in range(300))


@pytest.mark.parametrize("header", [None, "", "x", "0" * 15, f"{'0' * 16}-", f"{'G' * 16}"])
def test_marks_that_cannot_be_read_say_nothing(header: str | None) -> None:
    assert marks.parse(header) == ()


def test_marks_are_read_newest_first() -> None:
    assert marks.parse(f"{'1' * 16}-{'2' * 16}") == ("1" * 16, "2" * 16)
