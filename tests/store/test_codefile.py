"""The code file: a cache that is right, made again, or not used; never wrong."""

from __future__ import annotations

import os
import shutil
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edge_mrl.search.scan import nearest
from edge_mrl.store import Binding, Store, check, compact, stats
from edge_mrl.store.codefile.column import CodeFileError
from edge_mrl.store.codefile.file import (
    MAGIC,
    CodeFile,
    ForeignFileError,
    Layout,
    code_path,
    row_checks,
)
from edge_mrl.store.codefile.state import read_state
from tests.support.stores import (
    PACKINGS,
    fill,
    levels,
    open_store,
    packing,
    run_python,
    small_segments,
    vectors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

DIM = 64
BINDING = Binding("space-1", "code-1", DIM, 1.0, "/bundles/one")
NUMBER = 700


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with small_segments(monkeypatch):
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a store.db"


@pytest.fixture
def codes() -> NDArray[np.int8]:
    return vectors(NUMBER, DIM)


def answers(store: Store, codes: NDArray[np.int8], **options: Any) -> list[list[tuple[str, float]]]:
    """Ids and scores by the funnel, narrow, so that its first stage matters."""
    with store.reading() as view:
        rows = nearest(codes[:: NUMBER // 9], view.codes, k=5, width=40, **options)
        names = store.ids([match.key for row in rows for match in row])
        return [[(names[match.key], match.score) for match in row] for row in rows]


def make(
    path: Path, codes: NDArray[np.int8], binding: Binding = BINDING
) -> list[list[tuple[str, float]]]:
    with open_store(path, binding) as store:
        fill(store, codes)
        return answers(store, codes)


def state(store: Store) -> Any:
    with store.locked() as (connection, _):
        return read_state(connection)


@pytest.fixture(params=PACKINGS)
def bound(request: pytest.FixtureRequest) -> Binding:
    """A binding of each kind of code."""
    kept = packing(request.param, DIM)
    return replace(BINDING, code_id=f"code {request.param}", packing=kept)


def test_rows_go_to_the_file_and_are_found_there(
    path: Path, codes: NDArray[np.int8], bound: Binding
) -> None:
    expected = make(path, codes, bound)
    assert code_path(path).exists()
    with Store.open(path) as store:
        assert state(store).filed > NUMBER - 500
        with store.reading() as view:
            assert all(part.checked for part in view.codes.parts[:4])
            everything = view.codes.gather_levels(np.arange(NUMBER))
        assert store.binding == bound
        assert (everything[0] == levels(codes, bound.packing)).all()
        assert everything[1].tolist() == list(range(1, NUMBER + 1))
        assert answers(store, codes) == expected
        assert check(store).sound


def test_few_rows_need_no_file(path: Path, codes: NDArray[np.int8]) -> None:
    with open_store(path, BINDING) as store:
        fill(store, codes[:60])
        assert not code_path(path).exists()
        assert stats(store).problem is None


def remove(file: Path) -> None:
    file.unlink()


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def empty(file: Path) -> None:
    os.truncate(file, 0)


def spoil_header(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[20] ^= 1
    file.write_bytes(data)


def other_version(file: Path) -> None:
    import struct
    import zlib

    data = bytearray(file.read_bytes())
    data[8:12] = struct.pack("<I", 2)
    data[36:40] = struct.pack("<I", zlib.crc32(data[:36]))
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [remove, cut, empty, spoil_header, other_version])
def test_unusable_file_is_made_again(damage: Any, path: Path, codes: NDArray[np.int8]) -> None:
    expected = make(path, codes)
    damage(code_path(path))
    with Store.open(path) as store:
        assert answers(store, codes) == expected
        assert stats(store).filed_passages == NUMBER
        assert check(store).sound


@pytest.mark.test
@pytest.mark.parametrize("column", range(4))
def test_flipped_bit_is_never_an_answer(
    column: int, path: Path, codes: NDArray[np.int8], bound: Binding
) -> None:
    layout, file = Layout(DIM, 128, bound.packing), code_path(path)
    bits = 8 * layout.planes * layout.words
    if column == 3 and not layout.stride and layout.planes == 1:
        pytest.skip("their bits are the only column of such codes")
    lower = column == 3 and not layout.stride  # the second plane
    expected = make(path, codes, bound)
    starts = np.cumsum([0, bits * 128, 4 * 128, 4 * 128])
    if lower:
        starts[3] = 8 * layout.words * 128
    data = bytearray(file.read_bytes())
    for segment in range(4):
        start = 65536 + segment * layout.segment_bytes + int(starts[column])
        width = [8, 4, 4, 8 if lower else layout.stride][column]
        for row in range(0, 100, 7):
            data[start + row * width + row % width] ^= 1 << (row % 8)
    file.write_bytes(data)
    with Store.open(path) as store:
        health = check(store)
        assert not health.sound
        assert "damaged" in health.problems[0]
    with Store.open(path) as store:
        assert answers(store, codes) == expected
        assert answers(store, codes) == expected  # and the file is made again
        assert check(store).sound


def test_check_repairs_the_file(path: Path, codes: NDArray[np.int8]) -> None:
    make(path, codes)
    data = bytearray(code_path(path).read_bytes())
    data[65536 + 8 * 128 * 2 + 40] ^= 4
    code_path(path).write_bytes(data)
    with Store.open(path) as store:
        health = check(store, repair=True)
        assert health.sound
        assert len(health.repaired) == 1
        assert check(store).repaired == ()


def test_row_check_notices_every_single_bit() -> None:
    codes = vectors(1, DIM).view(np.uint8)
    keys, rows = np.array([77], np.uint32), np.array([5], np.int64)
    good = row_checks(codes, keys, rows)[0]
    for bit in range(DIM * 8):
        flipped = codes.copy()
        flipped[0, bit // 8] ^= 1 << (bit % 8)
        assert row_checks(flipped, keys, rows)[0] != good
    for bit in range(32):
        assert row_checks(codes, keys ^ np.uint32(1 << bit), rows)[0] != good
        assert row_checks(codes, keys, rows ^ (1 << bit))[0] != good


def test_row_checks_are_those_of_the_format() -> None:
    codes = np.arange(16, dtype=np.uint8).reshape(2, 8)
    checks = row_checks(codes, np.array([1, 2], np.uint32), np.array([0, 1], np.int64))
    expected = []
    for row in range(2):
        words, total = [row + 1, row + 1, int.from_bytes(codes[row].tobytes(), "little")], 0
        for number, word in enumerate(words, start=1):
            z = number * 0x9E3779B97F4A7C15 % 2**64
            z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
            z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
            total += word * ((z ^ z >> 31) | 1)
        expected.append(total % 2**64 >> 32)
    assert checks.tolist() == expected


def test_flipped_bit_in_a_file_that_is_open_is_never_an_answer(
    path: Path, codes: NDArray[np.int8], bound: Binding
) -> None:
    """Columns are compared when a file is opened, what is scored once more when it is read."""
    make(path, codes, bound)
    layout, row = Layout(DIM, 128, bound.packing), 5
    start = 65536 + (8 + 8 if layout.stride else 0) * 128
    with Store.open(path) as store, store.reading() as view:
        table = view.codes
        with code_path(path).open("r+b") as file:
            file.seek(start + row * (layout.stride or 8))
            file.write(b"\x5a")
        rows = np.arange(10)
        assert (table.gather_levels(rows)[0] == levels(codes[rows], bound.packing)).all()
        if not layout.stride:  # planes are in memory since the file was opened
            assert table.repaired == 0
            table.parts[0].segment.bits[0][row] ^= np.uint64(1)
            found, _ = table.gather_levels(rows)
            assert (found == levels(codes[rows], bound.packing)).all()
        assert table.repaired == 1


def test_one_bit_store_takes_an_eighth(path: Path) -> None:
    sizes = {}
    for kind in ("int8", "int4", "1bit"):
        layout = Layout(384, packing=packing(kind, 384))
        sizes[kind] = layout.segment_bytes / layout.rows
    # Bits, a check, a key and the code; 1-bit codes are the bits.
    assert [round(size) for size in sizes.values()] == [48 + 8 + 384, 48 + 8 + 192, 48 + 8]


def test_file_of_another_program_is_left_alone(path: Path, codes: NDArray[np.int8]) -> None:
    file = code_path(path)
    file.write_bytes(b"somebody's notes")
    expected = make(path, codes)
    assert file.read_bytes() == b"somebody's notes"
    with Store.open(path) as store:
        assert answers(store, codes) == expected
        compact(store)
        assert "is not a code file" in stats(store).problem
    assert file.read_bytes() == b"somebody's notes"


def test_store_goes_on_when_the_file_cannot_be_written(
    path: Path, codes: NDArray[np.int8], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = make(path.with_name("twin.db"), codes)

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with open_store(path, BINDING) as store:
            fill(store, codes)
            assert answers(store, codes) == expected
            assert "No space left" in stats(store).problem
            assert store.count().passages == NUMBER
    assert sorted(file.name for file in path.parent.glob("a store*")) == ["a store.db"]
    with Store.open(path) as store:
        assert answers(store, codes) == expected
        assert stats(store).problem is None


def test_put_has_succeeded_though_the_file_could_not_be_committed(
    path: Path, codes: NDArray[np.int8], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with open_store(path, BINDING) as store, monkeypatch.context() as patch:
        patch.setattr("edge_mrl.store.codefile.cache.write_state", full)
        fill(store, codes)
        assert state(store).filed == 0
        assert store.count().documents == NUMBER
        assert answers(store, codes)
        assert "disk is full" in stats(store).problem
    with Store.open(path) as store:
        assert answers(store, codes)
        assert state(store).filed == NUMBER


def test_older_copy_of_the_store_beside_a_newer_file(path: Path, codes: NDArray[np.int8]) -> None:
    with open_store(path, BINDING) as store:
        fill(store, codes[:300])
    old = shutil.copy(path, path.with_name("backup.db"))
    with Store.open(path) as store:
        fill(store, codes[300:], start=300)
    shutil.copy(old, path)
    with Store.open(path) as store:  # goes another way than before
        fill(store, codes[500:], start=1000)
        assert check(store).sound
        with store.reading() as view:
            rows = view.codes.gather_levels(np.arange(500))[0]
        assert (rows == np.concatenate([codes[:300], codes[500:]])).all()


def test_file_of_another_store_is_not_taken(path: Path, codes: NDArray[np.int8]) -> None:
    make(path, codes)
    other = path.with_name("other.db")
    expected = make(other, codes[::-1].copy())
    shutil.copy(code_path(path), code_path(other))
    with Store.open(other) as store:
        assert answers(store, codes[::-1]) == expected


def test_replaced_and_deleted_rows_are_not_found(path: Path, codes: NDArray[np.int8]) -> None:
    with open_store(path, BINDING) as store:
        fill(store, codes)
        fill(store, codes[::-1][:300].copy())  # replaces the first 300
        store.delete([str(number) for number in range(300, 400)])
        expected = np.concatenate([codes[::-1][:300], codes[400:]])
        with store.reading() as view:
            for number in (0, 299, 400, 699):
                place = number if number < 300 else number - 100
                found = nearest(expected[place : place + 1], view.codes, k=700, exact=True)[0]
                assert len(found) == 600
                assert str(number) in {
                    name
                    for key, name in store.ids([m.key for m in found]).items()
                    if key in {m.key for m in found if m.score > 0.9999}
                }
        assert check(store).sound


@pytest.mark.test
def test_compacting_drops_rows_and_gives_space_back(
    path: Path, codes: NDArray[np.int8], bound: Binding
) -> None:
    many = vectors(4000, DIM, seed=2)
    with open_store(path, bound) as store:
        fill(store, many)
        before = answers(store, many[1::2])
        store.delete([str(number) for number in range(0, 4000, 2)])
        left = answers(store, many[1::2], exact=True)
        done = compact(store)
        assert done.rows_dropped == 2000
        assert done.after_bytes < 0.6 * done.before_bytes
        assert answers(store, many[1::2], exact=True) == left != before
        assert stats(store).deleted_passages == 0
        assert check(store).sound
        assert compact(store).rows_dropped == 0


@pytest.mark.test
def test_reader_sees_compaction_of_another_process(path: Path, codes: NDArray[np.int8]) -> None:
    make(path, codes)
    with Store.open(path) as store:
        store.delete([str(number) for number in range(350)])
        before = answers(store, codes[350:])
        run_python(
            "from edge_mrl.store import compact\n"
            "from edge_mrl.store.codefile import cache as codecache\n"
            "codecache.SEGMENT_ROWS, codecache.STAGE_ROWS = 128, 64\n"
            f"with Store.open({str(path)!r}) as store: compact(store)"
        )
        assert answers(store, codes[350:]) == before
        assert stats(store).deleted_passages == 0


@pytest.mark.test
def test_open_block_keeps_its_rows_while_another_process_compacts(
    path: Path, codes: NDArray[np.int8]
) -> None:
    make(path, codes)
    with Store.open(path) as store:
        store.delete([str(number) for number in range(350)])
        with store.reading() as view:
            expected = nearest(codes[:3], view.codes, k=5, width=40)
            run_python(
                "from edge_mrl.store import compact\n"
                "from edge_mrl.store.codefile import cache as codecache\n"
                "codecache.SEGMENT_ROWS, codecache.STAGE_ROWS = 128, 64\n"
                f"with Store.open({str(path)!r}) as store: compact(store)"
            )
            assert nearest(codes[:3], view.codes, k=5, width=40) == expected
        assert check(store).sound


@pytest.mark.test
def test_commits_cost_what_sqlite_costs(path: Path) -> None:
    """Filing adds two syncs for each so many rows, and nothing for a commit."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: the syncs of a commit are not counted")
    code = f"""
from edge_mrl.store.codefile.cache import STAGE_ROWS
with create({str(path)!r}) as store:
    for number in range(200):
        store.put([entry(str(number))])
"""
    import subprocess
    import sys

    from tests.support.stores import PRELUDE

    command = ["strace", "-f", "-e", "trace=fdatasync,fsync", sys.executable, "-c", PRELUDE + code]
    trace = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    syncs = trace.count("fdatasync(") + trace.count("fsync(") - trace.count("resumed")
    # One for each commit; SQLite's log is folded into the file every 1,000 pages, with two more.
    assert 200 <= syncs <= 230


@pytest.mark.parametrize("kind", PACKINGS)
def test_layout_fits_pages_of_any_size(kind: str) -> None:
    for dim in (1, 64, 65, 128, 384, 1024):
        layout = Layout(dim, packing=packing(kind, dim))
        used = layout.rows * (8 * layout.planes * layout.words + 8 + layout.stride)
        assert layout.segment_bytes % 65536 == 0
        assert used <= layout.segment_bytes < used + 65536
        assert layout.file_bytes(1) == 65536 + layout.segment_bytes


def test_opening_says_why_not(tmp_path: Path) -> None:
    layout = Layout(8, 64)
    with pytest.raises(CodeFileError, match="it is missing"):
        CodeFile.open(tmp_path / "x", layout, b"1" * 16)
    (tmp_path / "x").write_bytes(b"text")
    with pytest.raises(ForeignFileError):
        CodeFile.open(tmp_path / "x", layout, b"1" * 16)
    with pytest.raises(ForeignFileError):
        CodeFile.create(tmp_path / "x", layout, b"1" * 16)
    file = CodeFile.create(tmp_path / "y", layout, b"1" * 16)
    file.install(tmp_path / "y")
    file.close()
    assert (tmp_path / "y").read_bytes().startswith(MAGIC)
    with pytest.raises(CodeFileError, match="another state"):
        CodeFile.open(tmp_path / "y", layout, b"2" * 16)
    with pytest.raises(CodeFileError, match="another state"):
        CodeFile.open(tmp_path / "y", Layout(16, 64), b"1" * 16)
