"""Quality that codes keep, for the report."""

from __future__ import annotations

import numpy as np
import pytest

from edge_mrl.bundle.head import derive_codes
from edge_mrl.codes.packing import INT8, Packing, int4_step, normalize
from edge_mrl_export.codes.curve import curve_of_texts, kept_by_stored_codes

WIDTH, TEXTS = 32, 120


@pytest.fixture(scope="module")
def full() -> np.ndarray:
    """Vectors whose first dimensions hold most."""
    chance = np.random.default_rng(0)
    strength = np.linspace(2, 0.1, WIDTH)
    return normalize((chance.normal(size=(TEXTS, WIDTH)) * strength).astype(np.float32))


def test_shorter_prefixes_keep_less(full: np.ndarray) -> None:
    curve = curve_of_texts(full, "prefix", None, dim=WIDTH, layer_norm=False)
    assert curve["dims"] == [8, 16, 32]
    kept = curve["kept"]["prefix"]
    assert kept == sorted(kept)
    assert kept[0] < 0.8 < 0.95 < kept[-1] <= 1
    assert f"{TEXTS} texts" in curve["measured"]


def test_head_has_a_line_of_its_own(full: np.ndarray) -> None:
    last = np.eye(WIDTH, dtype=np.float32)[:, ::-1].copy()  # the weakest dimensions first
    curve = curve_of_texts(full, "rotation", last, dim=WIDTH, layer_norm=False)
    assert curve["kept"]["rotation"][0] < curve["kept"]["prefix"][0]
    assert curve["kept"]["rotation"][-1] == curve["kept"]["prefix"][-1]


def test_coarser_codes_of_a_store_keep_less(full: np.ndarray) -> None:
    codes = derive_codes(full, None, dim=WIDTH)
    packings = (INT8, Packing("int4", int4_step(WIDTH)), Packing("1bit"))
    shares = [kept_by_stored_codes(full, codes, packing)[0] for packing in packings]
    assert None not in shares
    assert shares == sorted(shares, reverse=True)  # type: ignore[type-var]
    assert shares[0] != shares[-1]
    assert "stored 1bit codes" in kept_by_stored_codes(full, codes, packings[2])[1]


def test_share_is_what_counting_gives(full: np.ndarray) -> None:
    codes = derive_codes(full, None, dim=8)
    share, measured = kept_by_stored_codes(full, codes, INT8)
    unit = normalize(codes.astype(np.float32))
    found = []
    for row in range(TEXTS):
        others = [other for other in range(TEXTS) if other != row]  # a text does not find itself
        tops = [set(sorted(others, key=lambda o: -float(v[row] @ v[o]))[:10]) for v in (full, unit)]
        found.append(len(tops[0] & tops[1]) / 10)
    assert share == pytest.approx(
        np.mean(found), abs=2e-3
    )  # equal cosines may be ordered otherwise
    assert "10 nearest" in measured


def test_single_text_has_no_share() -> None:
    one = np.ones((1, 4), np.float32) / 2
    assert kept_by_stored_codes(one, derive_codes(one, None, dim=4), INT8)[0] is None
