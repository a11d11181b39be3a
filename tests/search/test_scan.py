"""The funnel and the exhaustive search against their slow and obvious twin."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_mrl.codes.packing import CODE_BITS, INT8, Packing
from edge_mrl.errors import UsageError
from edge_mrl.search import funnel as funnels
from edge_mrl.search import scan as search
from edge_mrl.search.funnel import Funnel
from edge_mrl.search.scan import Match, nearest
from edge_mrl.store.codefile.file import Layout
from edge_mrl.store.codefile.table import CodeBlock, CodeTable
from tests.support.stores import PACKINGS, levels, packing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Both sides divide the same whole numbers; only the order of rounding may differ.
SCORE_TOLERANCE = 1e-12
NAMES = dict(zip(range(10, 200, 10), "qwertyuiopasdfghjkl", strict=True))


def make_table(
    counts: Sequence[int],
    codes: NDArray[np.int8],
    dead: Sequence[int] = (),
    *,
    rows: int = 64,
    names: Any = NAMES,
    kept: Packing = INT8,
) -> CodeTable:
    """Documents 10, 20, ... of so many rows each, in parts of 64 rows."""
    layout = Layout(codes.shape[1], rows, kept)
    codes = kept.pack(codes)
    keys = np.repeat(np.arange(1, len(counts) + 1) * 10, counts).astype(np.uint32)
    starts = range(0, len(codes), rows)

    def load(first: int, after: int) -> Any:
        return layout.pack(codes[first:after], keys[first:after], first)

    parts = [
        CodeBlock(first, load(first, min(first + rows, len(codes))), checked=False)
        for first in starts
    ]
    gone = np.array(dead, np.int64)
    return CodeTable(layout, parts, gone, load=load, names=lambda some: {k: names[k] for k in some})


def by_hand(
    query: list[int], codes: list[list[int]], owners: list[int], allowed: set[int], k: int
) -> list[Match]:
    """Python integers throughout."""
    best: dict[int, tuple[float, int]] = {}
    for row, (code, key) in enumerate(zip(codes, owners, strict=True)):
        if row in allowed:
            score = cosine(query, code)
            if key not in best or score > best[key][0]:
                best[key] = (score, row)
    order = sorted(best, key=lambda key: (-best[key][0], NAMES[key]))
    return [Match(key, best[key][1], best[key][0]) for key in order[:k]]


def cosine(a: list[int], b: list[int]) -> float:
    norm = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / max(norm, 1.0)


@pytest.mark.test
@given(st.data(), st.sampled_from(PACKINGS))
def test_exhaustive_search_equals_the_obvious_one(data: st.DataObject, kind: str) -> None:
    counts = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=12))
    total = sum(counts)
    # Few values and dimensions, so that equal scores are common.
    values = st.lists(st.integers(-2, 2), min_size=3, max_size=3)
    codes = data.draw(st.lists(values, min_size=total, max_size=total))
    queries = data.draw(st.lists(values, min_size=0, max_size=3))
    dead = data.draw(st.sets(st.integers(0, total - 1)))
    keys = data.draw(st.none() | st.sets(st.integers(1, 13).map(lambda n: 10 * n)))
    kept = packing(kind, 3)
    table = make_table(counts, np.array(codes, np.int8), sorted(dead), rows=64, kept=kept)
    codes = levels(np.array(codes, np.int8), kept).tolist()
    k = data.draw(st.integers(1, len(counts) + 2))
    selected = None if keys is None else np.array(sorted(keys), np.int64)
    owners = [10 * (n + 1) for n, count in enumerate(counts) for _ in range(count)]
    allowed = {
        row for row in range(total) if row not in dead and (keys is None or owners[row] in keys)
    }
    found = nearest(
        np.array(queries, np.int8).reshape(-1, 3), table, k=k, exact=True, keys=selected
    )
    assert len(found) == len(queries)
    for query, matches in zip(queries, found, strict=True):
        expected = by_hand(query, codes, owners, allowed, k)
        assert [(m.key, m.row) for m in matches] == [(m.key, m.row) for m in expected]
        for match, wanted in zip(matches, expected, strict=True):
            assert abs(match.score - wanted.score) <= SCORE_TOLERANCE


@pytest.fixture(scope="module")
def clustered() -> NDArray[np.int8]:
    """int8[6000, 96]: 60 clusters."""
    rng = np.random.default_rng(3)
    centres = np.repeat(rng.normal(size=(60, 96)), 100, axis=0)
    vectors = centres + rng.normal(size=centres.shape) * 0.7
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.rint(vectors * 127).astype(np.int8)


def singles(codes: NDArray[np.int8], dead: Sequence[int] = (), kept: Packing = INT8) -> CodeTable:
    names = {10 * (n + 1): f"{n:06}" for n in range(len(codes))}
    return make_table([1] * len(codes), codes, dead, rows=1024, names=names, kept=kept)


def recall(found: list[list[Match]], exact: list[list[Match]]) -> float:
    pairs = zip(found, exact, strict=True)
    return float(np.mean([len({m.key for m in a} & {m.key for m in b}) / len(b) for a, b in pairs]))


@pytest.mark.parametrize("kind", PACKINGS)
def test_funnel_finds_more_the_wider_it_is_and_all_in_the_end(
    kind: str, clustered: NDArray[np.int8]
) -> None:
    table, queries = singles(clustered, kept=packing(kind, 96)), clustered[::300]
    exact = nearest(queries, table, k=10, exact=True)
    widths = [10, 30, 100, 300, 1000, 6000]
    recalls = [recall(nearest(queries, table, k=10, width=width), exact) for width in widths]
    assert recalls == sorted(recalls)
    assert recalls[0] < recalls[-1] == 1.0


def test_funnel_scores_are_those_of_the_exact_search(clustered: NDArray[np.int8]) -> None:
    table = singles(clustered)
    exact = {m.key: m.score for m in nearest(clustered[:1], table, k=6000, exact=True)[0]}
    for match in nearest(clustered[:1], table, k=20, width=500)[0]:
        assert match.score == exact[match.key]


def test_funnel_distance_is_the_hamming_distance_of_the_bits(clustered: NDArray[np.int8]) -> None:
    table = singles(clustered)
    bits = clustered > 0
    expected = (bits != bits[7]).sum(axis=1)
    assert (search._distances(clustered[7], table, 96) == expected).all()


@pytest.mark.parametrize("dim", [254, 255, 256])
def test_distances_in_bytes_are_exact_where_rows_are_near(dim: int) -> None:
    """All of them up to 254, unless more than 190 bits of the first three words differ."""
    codes = np.full((dim + 1, dim), 127, np.int8)
    for count in range(dim + 1):
        codes[count, dim - count :] = -127  # the last word's bits first
    found = search._distances(np.full((1, dim), 127, np.int8)[0], singles(codes), dim)
    assert found.dtype == np.uint8
    assert found.max() <= 254  # 255 stands for rows that do not count
    last = dim - 192
    exact = np.arange(dim + 1)
    wanted = np.minimum(np.maximum(exact - last, 0), 190) + np.minimum(exact, last)
    assert found.tolist() == (exact if dim == 254 else wanted).tolist()


def test_distances_beyond_a_byte_do_not_wrap() -> None:
    codes = np.ones((3, 300), np.int8)
    codes[1] = -1
    assert search._distances(codes[0], singles(codes), 300).tolist() == [0, 300, 0]


def test_funnel_leaves_deleted_and_filtered_rows_out(clustered: NDArray[np.int8]) -> None:
    dead = list(range(0, 6000, 2))
    keys = np.arange(1, 4001, dtype=np.int64) * 10
    found = nearest(clustered[:1], singles(clustered, dead), k=100, width=120, keys=keys)[0]
    assert len(found) == 100
    assert all(match.row % 2 == 1 and match.row < 4000 for match in found)


def test_filter_finds_as_many_as_match_however_far_away(clustered: NDArray[np.int8]) -> None:
    far = np.argsort(clustered.astype(int) @ clustered[0].astype(int))[:7]
    keys = np.sort(far + 1) * 10
    found = nearest(clustered[:1], singles(clustered), k=10, width=10, keys=keys)[0]
    assert sorted(match.key for match in found) == keys.tolist()


def test_funnel_widens_until_there_are_k_documents(clustered: NDArray[np.int8]) -> None:
    # The nearest 2,000 rows all belong to the first document.
    codes = np.concatenate([np.tile(clustered[:1], (2000, 1)), clustered[100:]])
    names = {10 * (n + 1): f"{n:06}" for n in range(len(codes))}
    table = make_table([2000] + [1] * (len(codes) - 2000), codes, rows=1024, names=names)
    found = nearest(clustered[:1], table, k=10, width=50)[0]
    assert len({match.key for match in found}) == 10
    assert found[0] == Match(10, 0, found[0].score)


def test_equal_codes_do_not_make_every_row_a_candidate() -> None:
    codes = np.tile(np.array([[5, -3, 2, 1]], np.int8), (4000, 1))
    table = singles(codes)
    rows = search._closest(search._distances(codes[0], table, 4), 4, 100)
    assert rows.tolist() == list(range(search.TIES * 100))
    found = nearest(codes[:1], table, k=3, width=100)[0]
    assert [match.row for match in found] == [0, 1, 2]


@pytest.mark.parametrize("dim", [1, 1040, 1041, 4096])
def test_cosines_are_exact_at_the_extremes(dim: int) -> None:
    codes = np.full((2, dim), 127, np.int8)
    codes[1] = -127
    table = make_table([1, 1], codes)
    found = nearest(codes[:1], table, k=2, exact=True)[0]
    assert [(match.key, match.score) for match in found] == [(10, 1.0), (20, -1.0)]


def test_chunks_change_nothing(
    clustered: NDArray[np.int8], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = singles(clustered[:500])
    whole = nearest(clustered[:20], table, k=7, exact=True)
    monkeypatch.setattr(search, "CHUNK_VALUES", 96 * 3)
    assert nearest(clustered[:20], table, k=7, exact=True) == whole


def test_code_of_zeros_scores_zero() -> None:
    table = make_table([1, 1], np.array([[0, 0], [3, 4]], np.int8))
    found = nearest(np.array([[3, 4], [0, 0]], np.int8), table, k=2)
    assert [[match.score for match in row] for row in found] == [[1.0, 0.0], [0.0, 0.0]]


def test_empty_store_gives_no_matches() -> None:
    table = CodeTable(Layout(2, 64), [], np.empty(0, np.int64), load=None, names=None)  # type: ignore[arg-type]
    assert nearest(np.ones((2, 2), np.int8), table, k=3) == [[], []]


@pytest.mark.parametrize("option", ["k", "width"])
def test_nothing_to_find_is_an_error(option: str) -> None:
    options: dict[str, Any] = {"k": 1, "width": 1, option: 0}
    with pytest.raises(UsageError, match=f"{option} is 0"):
        nearest(np.ones((1, 2), np.int8), make_table([1], np.ones((1, 2), np.int8)), **options)


def funnel(text: str, table: CodeTable) -> Funnel:
    """A funnel that ends with the codes of a table."""
    whole = CODE_BITS[table.layout.packing.kind]
    return Funnel.of(f"{text},{table.dim}x{whole}")


@pytest.mark.parametrize("kind", PACKINGS)
def test_stages_as_wide_as_the_store_find_what_the_exact_search_finds(
    kind: str, clustered: NDArray[np.int8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "EXACT_BELOW", 0)
    table = singles(clustered, range(0, 6000, 7), packing(kind, 96))
    exact = nearest(clustered[::500], table, k=10, exact=True)
    for stages in ("64x1:6000", "64x1:6000,96x1:6000", "64x1:9999,64x1:6000,96x1:5500"):
        assert nearest(clustered[::500], table, k=10, funnel=funnel(stages, table)) == exact


@pytest.mark.parametrize("kind", PACKINGS)
def test_wider_last_stage_never_finds_worse(kind: str, clustered: NDArray[np.int8]) -> None:
    table, queries = singles(clustered, kept=packing(kind, 96)), clustered[::300]
    exact = nearest(queries, table, k=10, exact=True)
    recalls = [
        recall(nearest(queries, table, k=10, funnel=funnel(f"64x1:800,96x1:{w}", table)), exact)
        for w in (10, 30, 100, 300, 800)
    ]
    assert recalls == sorted(recalls)
    assert recalls[0] < recalls[-1]


def test_stages_pass_on_what_an_obvious_sort_does(clustered: NDArray[np.int8]) -> None:
    table, query = singles(clustered), clustered[7]
    bits = clustered > 0
    far = [(bits[:, :d] != bits[7, :d]).sum(axis=1) for d in (64, 96)]
    first = set(np.flatnonzero(far[0] <= np.sort(far[0])[999]).tolist())
    limit = np.sort(far[1][sorted(first)])[199]
    second = sorted(row for row in first if far[1][row] <= limit)
    heads = clustered[second, :32].astype(float) @ query[:32].astype(float)
    heads /= np.linalg.norm(clustered[second, :32].astype(float), axis=1)
    third = {second[i] for i in np.argsort(-heads, kind="stable")[:50]}
    scores = [(cosine(query.tolist(), clustered[row].tolist()), row) for row in third]
    best = sorted(scores, key=lambda pair: (-pair[0], pair[1]))[:5]
    stages = Funnel.of("64x1:1000,96x1:200,32x8:50,96x8")
    found = nearest(query[None], table, k=5, funnel=stages)[0]
    assert [match.row for match in found] == [row for _, row in best]


def test_stages_widen_until_there_are_k_documents(clustered: NDArray[np.int8]) -> None:
    codes = np.concatenate([np.tile(clustered[:1], (2000, 1)), clustered[100:]])
    names = {10 * (n + 1): f"{n:06}" for n in range(len(codes))}
    table = make_table([2000] + [1] * (len(codes) - 2000), codes, rows=1024, names=names)
    found = nearest(clustered[:1], table, k=10, funnel=funnel("64x1:100,96x1:50", table))[0]
    assert len({match.key for match in found}) == 10


def test_funnel_of_whole_codes_alone_is_the_exact_search(clustered: NDArray[np.int8]) -> None:
    table = singles(clustered)
    exact = nearest(clustered[:3], table, k=4, exact=True)
    assert nearest(clustered[:3], table, k=4, funnel=Funnel.of("96x8")) == exact


def test_many_rows_of_long_codes_are_searched_by_half_of_their_bits_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = np.random.default_rng(5).integers(-127, 128, (3_000, 256)).astype(np.int8)
    table, queries = singles(drawn), drawn[:20] // 2 + drawn[20:40] // 2
    asked: dict[str, Any] = {"k": 5, "width": 100}
    whole = nearest(queries, table, k=5, funnel=funnel("256x1:100", table))
    halved = nearest(queries, table, k=5, funnel=funnel("128x1:400,256x1:100", table))
    assert whole != halved
    assert nearest(queries, table, **asked) == whole
    monkeypatch.setattr(funnels, "HALF_FIRST_ROWS", 3_000)
    assert nearest(queries, table, **asked) == halved
    monkeypatch.setattr(funnels, "HALF_FIRST_ROWS", 3_001)
    assert nearest(queries, table, **asked) == whole
