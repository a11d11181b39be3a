"""Bundles that are installed as packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_mrl.bundle import installed_bundle, installed_names, locate_bundle
from edge_mrl.encode import Encoder
from edge_mrl.errors import BundleError, UsageError
from edge_mrl.index import Index
from tests.support.bundles import TINY, TINY_COARSE, copy_bundle, install_bundle


def test_the_only_one_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(install_bundle(tmp_path, "tiny", repr(str(TINY))))
    assert installed_names() == ["tiny"]
    assert installed_bundle() == installed_bundle("tiny") == TINY.resolve()
    with pytest.raises(UsageError, match="'other' is installed: expected one of tiny"):
        installed_bundle("other")


def test_none_and_several_are_errors_that_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="none is installed: install edge-mrl-minilm"):
        installed_bundle()
    with pytest.raises(UsageError, match="there is none at all"):
        installed_bundle("tiny")
    for name, bundle in (("tiny", TINY), ("coarse", TINY_COARSE)):
        monkeypatch.syspath_prepend(install_bundle(tmp_path, name, repr(str(bundle))))
    with pytest.raises(UsageError, match=r"several bundles are installed \(coarse, tiny\)"):
        installed_bundle()
    assert installed_bundle("coarse") == TINY_COARSE.resolve()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("3", "gives 3, expected its folder"),
        ("'/nowhere'", "gives '/nowhere', expected its folder"),
        ("1 / 0", "cannot be loaded: division by zero"),
    ],
)
def test_a_package_that_gives_none_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, why: str
) -> None:
    package = f"broken_{len(why)}"
    monkeypatch.syspath_prepend(install_bundle(tmp_path, "tiny", value, package=package))
    with pytest.raises(BundleError, match=why):
        installed_bundle()
    with pytest.raises(BundleError, match=why):
        locate_bundle(Path("tiny"))


def test_a_folder_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(install_bundle(tmp_path / "site", "tiny", repr(str(TINY))))
    monkeypatch.chdir(tmp_path)
    assert locate_bundle(Path("tiny")) == TINY.resolve()
    assert locate_bundle(Path("elsewhere/tiny")) == tmp_path / "elsewhere/tiny"
    Path("tiny").mkdir()
    assert locate_bundle(Path("tiny")) == tmp_path / "tiny"
    assert locate_bundle(Path("x" * 5000)) == tmp_path / ("x" * 5000)


@pytest.mark.test
def test_a_store_finds_its_bundle_in_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = copy_bundle(tmp_path / "first" / "tiny")
    with Index.open(tmp_path / "s.db", moved):
        pass
    moved.rename(tmp_path / "gone")
    with Index.open(tmp_path / "s.db") as index, pytest.raises(UsageError, match="any more"):
        index.search("a cat")
    # One of another space is not taken, and does not hide what is wrong.
    monkeypatch.syspath_prepend(install_bundle(tmp_path / "1", "coarse", repr(str(TINY_COARSE))))
    with Index.open(tmp_path / "s.db") as index, pytest.raises(UsageError, match="any more"):
        index.search("a cat")
    monkeypatch.syspath_prepend(install_bundle(tmp_path / "2", "tiny", repr(str(TINY))))
    with Index.open(tmp_path / "s.db") as index:
        assert len(index.search("a cat")) == 0
        assert index.encoder.path == TINY.resolve()


def test_an_encoder_is_opened_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(install_bundle(tmp_path, "tiny", repr(str(TINY))))
    with Encoder.open("tiny") as encoder:
        assert encoder.path == TINY.resolve()
