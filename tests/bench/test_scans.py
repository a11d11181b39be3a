"""The measurement of searches by code: what it searches, and that its codes are those of the vectors."""

from __future__ import annotations

import numpy as np

from bench.search.scans import coded, measure, shortened
from edge_mrl.codes import similarity


def test_each_code_is_searched_whole_and_by_its_first_bits() -> None:
    found = measure(400)
    assert [(row["code"], row["bytes"], row["stages"]) for row in found] == [
        ("128 int8", 128, "exact"),
        ("128 int8", 128, "128x1:5000,128x8"),
        ("256 int4", 128, "exact"),
        ("256 int4", 128, "256x1:5000,256x4"),
        ("256 int4", 128, "128x1:20000,256x1:5000,256x4"),
        ("256 int4", 128, "128x1:5000,256x4"),
        ("256 2bit", 64, "exact"),
        ("256 2bit", 64, "256x1:5000,256x2"),
        ("256 2bit", 64, "128x1:20000,256x1:5000,256x2"),
        ("256 2bit", 64, "128x1:5000,256x2"),
    ]
    assert {row["recall_at_10"] for row in found} == {1.0}  # so few rows are all scored
    assert all(row["ms"] > 0 for row in found)


def test_shorter_codes_are_prefixes_of_unit_length() -> None:
    codes = coded(50, 256, first=0)
    assert (codes == coded(50, 256, first=0)).all()
    assert (codes != coded(50, 256, first=1)).any()
    short = shortened(codes, 128)
    assert np.allclose(np.linalg.norm(short.astype(float), axis=1), 127, atol=3)
    cosines = np.diagonal(similarity(short, codes[:, :128]))
    assert cosines.min() > 0.995
