"""A bundle as one .zip: opened as its folder is, and refused where it is none."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_mrl.bundle import bundle_folder, has_own_place, pack_bundle, read_manifest
from edge_mrl.cli import main
from edge_mrl.documents import Document
from edge_mrl.encode import Encoder, verify
from edge_mrl.errors import BundleError, EdgeMrlError, FormatError, HashError, UsageError
from edge_mrl.index import Index
from tests.support.bundles import TINY, copy_bundle

Change = Callable[[zipfile.ZipFile], None]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_MRL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    pack_bundle(TINY, tmp_path / "tiny.zip")
    return tmp_path / "tiny.zip"


def test_it_is_opened_and_unpacked_once(packed: Path, cache: Path) -> None:
    folder = bundle_folder(packed)
    assert folder.parent == cache / "bundles"
    names = {"edge_mrl.json", *read_manifest(TINY).files}
    assert {path.name for path in folder.iterdir()} == names
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    with Encoder.open(packed) as encoder, Encoder.open(TINY) as plain:
        assert encoder.path == folder
        texts = ["a cat", "a dog and a bird"]
        assert (encoder.encode(texts).coarse == plain.encode(texts).coarse).all()
    assert {path.name: path.stat().st_ino for path in folder.iterdir()} == before
    assert not has_own_place(folder)
    assert has_own_place(TINY)
    if os.name == "posix":
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_cache_that_lacks_something_is_filled_again(packed: Path) -> None:
    folder = bundle_folder(packed)
    (folder / "model.onnx").write_bytes(b"")
    (folder / "golden.json").unlink()
    assert bundle_folder(packed) == folder
    assert (folder / "model.onnx").read_bytes() == (TINY / "model.onnx").read_bytes()
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.skipif(os.name != "posix", reason="has modes")
def test_a_cache_that_others_may_write_is_refused(packed: Path) -> None:
    folder = bundle_folder(packed)
    folder.chmod(0o777)
    with pytest.raises(BundleError, match="others may write there"):
        bundle_folder(packed)


def test_the_same_bundle_gives_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    copied = copy_bundle(tmp_path / "copied")
    for path in copied.iterdir():
        os.utime(path, (1, 1))
    pack_bundle(copied, tmp_path / "other.zip")
    assert (tmp_path / "other.zip").read_bytes() == packed.read_bytes()


def test_a_damaged_bundle_is_not_packed(tmp_path: Path) -> None:
    bundle = copy_bundle(tmp_path / "bundle")
    data = (bundle / "tokenizer.json").read_bytes()
    (bundle / "tokenizer.json").write_bytes(data[:-2] + b" }")
    with pytest.raises(EdgeMrlError):
        pack_bundle(bundle, tmp_path / "b.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    with pytest.raises(UsageError, match="there is no folder"):
        pack_bundle(TINY, tmp_path / "none" / "b.zip")


def test_one_made_by_other_programs_is_opened(tmp_path: Path) -> None:
    """With the folder around the files, entries for folders, a README, and what macOS adds."""
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.mkdir("tiny")
        for path in TINY.iterdir():
            archive.write(path, f"tiny/{path.name}")
        archive.writestr("tiny/README.md", "a model")
        archive.writestr("__MACOSX/tiny/._edge_mrl.json", "x")
    folder = bundle_folder(other)
    assert (folder / "README.md").read_text() == "a model"
    assert verify(other).passed


def test_changed_bytes_are_noticed(packed: Path, tmp_path: Path) -> None:
    """By the archive's own sums; and where those fit the changed bytes, by the manifest's hashes."""
    data = bytearray(packed.read_bytes())
    data[data.index(b"model.onnx.data", 100) + 40] ^= 1
    (tmp_path / "flipped.zip").write_bytes(data)
    with pytest.raises(FormatError, match=r"flipped\.zip cannot be unpacked: .*CRC"):
        bundle_folder(tmp_path / "flipped.zip")
    changed = rewritten(
        tmp_path / "changed.zip", {"model.onnx.data": b"\0" * sizes()["model.onnx.data"]}
    )
    with pytest.raises(HashError, match=r"model\.onnx\.data is damaged"):
        Encoder.open(changed)
    with Encoder.open(packed):  # is another one in the cache
        pass


def sizes() -> dict[str, int]:
    return {path.name: path.stat().st_size for path in TINY.iterdir()}


def rewritten(target: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in TINY.iterdir():
            archive.writestr(path.name, files.get(path.name, path.read_bytes()))
    return target


def add(
    name: str, *, mode: int = stat.S_IFREG | 0o644, packing: int = zipfile.ZIP_STORED
) -> Change:
    def change(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        info.compress_type = packing
        archive.writestr(info, b"/etc/passwd" * 10)

    return change


def add_many(archive: zipfile.ZipFile) -> None:
    for number in range(300):
        archive.writestr(f"f{number}", b"")


def large_manifest(archive: zipfile.ZipFile) -> None:
    archive.writestr("other/edge_mrl.sig", b"x" * 20_000)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (add("../evil"), "leads out of the bundle's folder"),
        (add("/etc/evil"), "leads out of the bundle's folder"),
        (add("a/../../evil"), "leads out of the bundle's folder"),
        (add("a\\..\\evil"), "leads out of the bundle's folder"),
        (add("C:evil"), "leads out of the bundle's folder"),
        (add("a//b"), "leads out of the bundle's folder"),
        (add("./model.onnx"), "leads out of the bundle's folder"),
        (add("evil", mode=stat.S_IFLNK | 0o777), "is a link or a device"),
        (add("evil", mode=stat.S_IFIFO | 0o777), "is a link or a device"),
        (add("report.txt", packing=zipfile.ZIP_DEFLATED), "is compressed"),
        (add("report.txt", packing=zipfile.ZIP_LZMA), "is compressed"),
        (add("Model.ONNX"), "'Model.ONNX' twice"),
        (add("sub/edge_mrl.json"), "has 2 files edge_mrl.json, expected one"),
        (add_many, "entries, expected at most 256"),
        (large_manifest, "has 20,000 bytes, expected at most 16,384"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_entries_that_no_bundle_has_are_refused(
    packed: Path, cache: Path, tmp_path: Path, change: Change, why: str
) -> None:
    with zipfile.ZipFile(packed, "a") as archive:
        change(archive)
    with pytest.raises(FormatError, match=why):
        bundle_folder(packed)
    assert not cache.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.zip"]


def test_a_name_that_is_there_twice_is_refused(packed: Path, cache: Path) -> None:
    with zipfile.ZipFile(packed, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("model.onnx", b"other")
    with pytest.raises(FormatError, match=r"'model\.onnx' twice"):
        bundle_folder(packed)
    assert not cache.exists()


def central(data: bytearray, name: bytes) -> int:
    """Where the table of contents has an entry."""
    at = data.rindex(name) - 46
    assert data[at : at + 4] == b"PK\x01\x02"
    return at


def test_entries_that_share_bytes_are_refused(packed: Path, cache: Path) -> None:
    """A bomb of stored entries, which are all the same bytes."""
    data = bytearray(packed.read_bytes())
    one, other = central(data, b"report.html"), central(data, b"report.json")
    data[other + 42 : other + 46] = data[one + 42 : one + 46]
    packed.write_bytes(data)
    with pytest.raises(FormatError, match="share their bytes"):
        bundle_folder(packed)
    assert not cache.exists()


def test_sizes_that_are_not_true_are_refused(packed: Path, cache: Path) -> None:
    data = bytearray(packed.read_bytes())
    at = central(data, b"report.html")
    data[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    packed.write_bytes(data)
    with pytest.raises(FormatError):
        bundle_folder(packed)
    assert not list(cache.rglob("*.html"))


def test_a_large_table_is_not_read(packed: Path) -> None:
    data = bytearray(packed.read_bytes())
    at = data.rindex(b"PK\x05\x06")
    data[at + 12 : at + 16] = struct.pack("<I", 400_000_000)
    packed.write_bytes(data)
    with pytest.raises(FormatError, match="table of contents of 400,000,000 bytes"):
        bundle_folder(packed)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"PK\x05\x06", b"PK\x05\x06" + bytes(18), bytes(70_000)]
)
def test_what_is_no_zip_of_a_bundle_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "b.zip").write_bytes(data)
    with pytest.raises(FormatError):
        bundle_folder(tmp_path / "b.zip")


@pytest.mark.test
def test_every_cut_and_many_flips_are_errors_or_the_bundle(packed: Path, tmp_path: Path) -> None:
    """Whatever is damaged: an EdgeMrlError, or the same files."""
    data = packed.read_bytes()
    table = data.index(b"PK\x01\x02")
    places = [*range(table, len(data), 3), *range(60)]
    opened = 0
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 0x41
        (tmp_path / "d.zip").write_bytes(changed)
        try:
            folder = bundle_folder(tmp_path / "d.zip")
            read_manifest(folder)
        except EdgeMrlError:
            continue
        opened += 1
    assert 0 < opened < len(places)
    for length in range(table, len(data), 7):
        (tmp_path / "d.zip").write_bytes(data[:length])
        with pytest.raises(EdgeMrlError):
            bundle_folder(tmp_path / "d.zip")


@pytest.mark.test
def test_a_store_remembers_the_file(packed: Path, tmp_path: Path, cache: Path) -> None:
    with Index.open(tmp_path / "s.db", packed) as index:
        index.put([Document("1", "the cat")])
        assert index.binding.bundle == str(packed.resolve())
    with Index.open(tmp_path / "s.db") as index:
        assert [hit.id for hit in index.search("a cat")] == ["1"]
    for path in (cache / "bundles").iterdir():
        path.rename(tmp_path / "gone")
    with Index.open(tmp_path / "s.db") as index:
        assert [hit.id for hit in index.search("a cat")] == ["1"]


@pytest.mark.test
def test_commands_take_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["pack", str(TINY), "-o", "b.zip"]) == 0
    assert main(["pack", str(TINY), "-o", "b.txt"]) == 2
    Path("a.txt").write_text("the cat and the dog", "utf-8")
    for command in (
        ["verify", "b.zip"],
        ["inspect", "b.zip"],
        ["embed", "a.txt", "--bundle", "b.zip", "-o", "a.npy"],
        ["index", "a.txt", "--store", "s.db", "--bundle", "b.zip"],
        ["search", "a cat", "--store", "s.db"],
        ["reindex", "--store", "s.db", "--bundle", "b.zip"],
    ):
        assert main(command) == 0, capsys.readouterr()


def test_opening_a_folder_loads_no_zip() -> None:
    code = f"""
import sys
from edge_mrl.bundle import bundle_folder
from pathlib import Path
before = set(sys.modules)
bundle_folder(Path({str(TINY)!r}))
print(sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
