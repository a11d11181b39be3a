"""Stores and bundles that commands are not told: options, environment, settings, packages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_mrl.bundle import read_manifest
from edge_mrl.cli import main
from edge_mrl.index import Index
from tests.support.bundles import TINY, TINY_COARSE, TINY_STATIC, install_bundle

VARIABLES = ("EDGE_MRL_STORE", "EDGE_MRL_BUNDLE", "EDGE_MRL_CONFIG", "XDG_CONFIG_HOME", "APPDATA")


@pytest.fixture(autouse=True)
def nothing_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without settings, in an empty folder with a note."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    Path("a.txt").write_text("the cat and the dog", "utf-8")


def settings(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "home" / ".config" / "edge-mrl" / "config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")
    return file


def space_of(store: str | Path) -> str:
    with Index.open(store) as index:
        return index.binding.space_id


def failed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 2
    return capsys.readouterr().err


@pytest.mark.test
def test_a_package_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(install_bundle(tmp_path / "site", "tiny", repr(str(TINY))))
    assert main(["index", "a.txt", "--store", "s.db"]) == 0
    monkeypatch.setenv("EDGE_MRL_STORE", "s.db")
    capsys.readouterr()
    assert main(["search", "a cat", "--json"]) == 0
    assert [hit["text"] for hit in json.loads(capsys.readouterr().out)["hits"]] == [
        "the cat and the dog"
    ]
    for command in (["verify"], ["verify", "tiny"], ["inspect"], ["embed", "a.txt"], ["stats"]):
        assert main(command) == 0, command


@pytest.mark.test
def test_options_come_before_the_environment_before_settings_before_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    static, coarse, tiny = (read_manifest(one) for one in (TINY_STATIC, TINY_COARSE, TINY))
    monkeypatch.syspath_prepend(install_bundle(tmp_path / "site", "one", repr(str(TINY_STATIC))))
    assert main(["index", "a.txt", "--store", "1.db"]) == 0
    assert space_of("1.db") == static.space_id
    settings(tmp_path, f'store = "2.db"\nbundle = "{TINY_COARSE.as_posix()}"\n')
    assert main(["index", "a.txt"]) == 0
    assert space_of(tmp_path / "home/.config/edge-mrl/2.db") == coarse.space_id
    monkeypatch.setenv("EDGE_MRL_BUNDLE", str(TINY))
    monkeypatch.setenv("EDGE_MRL_STORE", "3.db")
    assert main(["index", "a.txt"]) == 0
    assert space_of("3.db") == tiny.space_id
    assert main(["index", "a.txt", "--store", "4.db", "--bundle", "one"]) == 0
    assert space_of("4.db") == static.space_id
    # A store that is there has its own bundle, whatever is set.
    assert main(["index", "a.txt", "--store", "1.db"]) == 0


def test_settings_may_name_an_installed_bundle_and_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, bundle in (("tiny", TINY), ("coarse", TINY_COARSE)):
        monkeypatch.syspath_prepend(
            install_bundle(tmp_path / f"site-{name}", name, repr(str(bundle)))
        )
    said = failed(capsys, "inspect")
    assert "several bundles are installed (coarse, tiny)" in said
    assert "no store at s.db, and a new one needs a bundle: several" in failed(
        capsys, "index", "a.txt", "--store", "s.db"
    )
    settings(tmp_path, 'store = "~/n.db"\nbundle = "coarse"\n')
    assert main(["inspect", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["space_id"] == read_manifest(TINY_COARSE).space_id
    assert str(tmp_path / "home" / "n.db") in failed(capsys, "stats")
    monkeypatch.setenv("EDGE_MRL_CONFIG", str(tmp_path / "own.toml"))
    assert "own.toml, which EDGE_MRL_CONFIG names" in failed(capsys, "stats")
    (tmp_path / "own.toml").write_text('bundle = "tiny"\n')
    assert main(["inspect", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["space_id"] == read_manifest(TINY).space_id


def test_without_any_the_error_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = failed(capsys, "search", "a cat")
    assert "no store was named: name its file with --store FILE" in said
    assert str(tmp_path / "home" / ".config" / "edge-mrl" / "config.toml") in said
    said = failed(capsys, "index", "a.txt", "--store", "s.db")
    assert "no store at s.db, and a new one needs a bundle: no bundle was named" in said
    assert not Path("s.db").exists()
    assert "no bundle was named, and none is installed" in failed(capsys, "embed", "a.txt")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("store = ", "is not valid TOML"),
        ("stroe = 's.db'", "sets 'stroe', expected store or bundle"),
        ("store = 3", "store is 3, expected text"),
        ("store = ''", "store is '', expected text"),
        ("#" * 70_000, "has more than 65,536 bytes"),
        ("a = " + "[" * 20_000, "is not valid TOML"),
    ],
)
def test_wrong_settings_are_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, why: str
) -> None:
    file = settings(tmp_path, text)
    said = failed(capsys, "stats")
    assert why in said
    assert str(file) in said


def test_settings_are_not_read_where_options_name_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings(tmp_path, "nonsense")
    assert main(["inspect", str(TINY)]) == 0
    assert "no store at" in failed(capsys, "stats", "--store", "s.db")
