"""The schedules take every kind of code, and their comparison sees codes of another text."""

from __future__ import annotations

import numpy as np
import pytest

from tests.faults.answer import compare_levels
from tests.faults.plan import CODES, make_plan
from tests.support.stores import packing, vectors


def test_schedules_have_all_kinds_of_codes() -> None:
    plans = [make_plan(seed, database_dies=False) for seed in range(20)]
    assert {one.code for plan in plans for one in plan.devices} == set(CODES)


@pytest.mark.parametrize("code", sorted(set(CODES)))
def test_codes_of_another_text_are_seen(code: str) -> None:
    kept, codes = packing(code, 16), vectors(40, 16)
    levels = kept.unpack(kept.pack(codes), 16)
    close = np.clip(codes.astype(int) + np.tile([1, -1], 8), -127, 127).astype(np.int8)
    assert compare_levels("a", levels, codes, kept) == []
    assert compare_levels("a", kept.unpack(kept.pack(close), 16), codes, kept) == []
    assert compare_levels("a", levels[::-1], codes, kept) != []
    assert compare_levels("a", levels[:1], codes, kept) != []
