"""The kinds of stored codes, and which values go with them."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from edge_mrl.codes.kinds import CODE_BITS, CODE_KINDS, CODE_MAX, kind_fits


def test_kinds_are_in_the_order_of_their_bits() -> None:
    assert CODE_KINDS == ("int8", "int4", "2bit", "1bit")
    assert [CODE_BITS[kind] for kind in CODE_KINDS] == [8, 4, 2, 1]
    assert CODE_MAX == 127


@pytest.mark.parametrize(
    ("kind", "step", "centre", "fits"),
    [
        ("int8", None, None, True),
        ("int8", 1.0, None, False),
        ("int8", None, [0, 0], False),
        ("int4", 9.5, None, True),
        ("int4", None, None, False),
        ("int4", 0.0, None, False),
        ("int4", -1.0, None, False),
        ("int4", math.inf, None, False),
        ("int4", math.nan, None, False),
        ("int4", 9.5, [0, 0], False),
        ("2bit", 4, None, True),
        ("2bit", 42.0, None, True),
        ("2bit", 43, None, False),  # a level beyond 127
        ("2bit", None, None, False),
        ("2bit", None, [0, 0], False),
        ("2bit", 2.5, None, False),  # a whole number
        ("2bit", 0, [0, 0], False),
        ("2bit", 9, [100, -100], True),
        ("2bit", 10, [100, 0], False),
        ("2bit", 9, [5], False),  # not one number for each dimension
        ("1bit", None, None, True),
        ("1bit", 1.0, None, False),  # a step belongs to a centre
        ("1bit", None, [0, 0], False),
        ("1bit", 3.0, [5, -7], True),
        ("1bit", 3, [5, -7], True),
        ("1bit", 2.5, [5, -7], False),  # a whole number
        ("1bit", 0.0, [5, -7], False),
        ("1bit", 128.0, [0, 0], False),
        ("1bit", 127.0, [0, 0], True),
        ("1bit", 27.0, [100, -100], True),
        ("1bit", 28.0, [100, 0], False),  # a level beyond 127
        ("1bit", 28.0, [0, -100], False),
        ("1bit", 3.0, [5], False),  # not one number for each dimension
        ("1bit", 3.0, [5, 5, 5], False),
        ("int2", None, None, False),
        ("", None, None, False),
    ],
)
def test_values_fit_a_kind(
    kind: str, step: float | None, centre: list[int] | None, fits: bool
) -> None:
    assert kind_fits(kind, step, centre, 2) == fits


def test_manifests_are_read_without_numpy() -> None:
    code = "import sys; from edge_mrl.codes import kind_fits; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
