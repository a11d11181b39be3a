"""Names of bundles on a hub, the hub's cache without its package, cards, and copies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from edge_mrl.bundle import (
    has_own_place,
    hub_name,
    is_hub_name,
    locate_bundle,
    name_of_snapshot,
    read_manifest,
)
from edge_mrl.bundle.hub.card import is_made, make_card
from edge_mrl.bundle.hub.names import hub_name_of_path
from edge_mrl.encode import Encoder
from edge_mrl.errors import BundleError, UsageError
from tests.support.bundles import TINY, copy_bundle, rewrite_manifest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("maria/tiny", "hf://maria/tiny"),
        ("hf://maria/tiny", "hf://maria/tiny"),
        ("hf://maria/tiny@main", "hf://maria/tiny"),
        ("maria/Tiny_1.5-b@v2", "hf://maria/Tiny_1.5-b@v2"),
        ("maria/tiny@refs/pr/1", "hf://maria/tiny@refs/pr/1"),
        (f"hf://maria/tiny@{COMMIT}", f"hf://maria/tiny@{COMMIT}"),
    ],
)
def test_names(given: str, shown: str) -> None:
    assert str(hub_name(given)) == shown
    assert hub_name(given).is_pinned == (COMMIT in given)
    assert hub_name_of_path(Path(shown)) == hub_name(given)
    assert is_hub_name(Path(shown))


@pytest.mark.parametrize(
    "given",
    [
        *("", "tiny", "/maria/tiny", "maria/", "maria/tiny/x", "../tiny", "maria/..", "a b/c"),
        *("maria/ti--ny", "maria/tiny.git", "maria/tiny@", "maria/tiny@../x", "maria/tiny@a//b"),
        *("maria/tiny@-x", "maria/tiny@a.lock", "x" * 99 + "/tiny", "maria/tiny\n", "märia/tiny"),
        *("http://maria/tiny", "maria/tiny@" + "x" * 300),
    ],
)
def test_other_texts_are_no_names(given: str) -> None:
    with pytest.raises(UsageError):
        hub_name(given)
    with pytest.raises(UsageError):
        hub_name("maria/tiny", "../../x")
    with pytest.raises(UsageError, match="a revision of its own"):
        hub_name("maria/tiny@v1", "v2")


def in_cache(home: Path, commit: str = COMMIT) -> Path:
    """A snapshot as the hub's programs lay it down: links to blobs, and a branch."""
    top = home / "hub" / "models--maria--tiny"
    snapshot = top / "snapshots" / commit
    for folder in (snapshot, top / "blobs", top / "refs"):
        folder.mkdir(parents=True, exist_ok=True)
    for path in TINY.iterdir():
        (top / "blobs" / path.name).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(os.path.relpath(top / "blobs" / path.name, snapshot))
    (top / "refs" / "main").write_text(commit)
    return snapshot


def test_a_cache_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # not installed
    snapshot = in_cache(tmp_path)
    assert locate_bundle(Path("hf://maria/tiny")) == snapshot
    assert locate_bundle(Path(f"hf://maria/tiny@{COMMIT}")) == snapshot
    assert name_of_snapshot(snapshot) == hub_name(f"maria/tiny@{COMMIT}")
    assert not has_own_place(snapshot)
    with Encoder.open("hf://maria/tiny") as encoder:
        assert encoder.path == snapshot
    with Encoder.from_pretrained("maria/tiny", local_files_only=True) as encoder:
        assert encoder.encode_query("a cat").shape == (32,)
    with pytest.raises(Exception, match=r'pip install "edge-mrl\[hub\]"'):
        locate_bundle(Path("hf://maria/other"))


def test_a_cache_that_is_damaged_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    snapshot = in_cache(tmp_path)
    blob = tmp_path / "hub" / "models--maria--tiny" / "blobs" / "model.onnx.data"
    data = bytearray(blob.read_bytes())
    data[100] ^= 1
    blob.write_bytes(data)
    with pytest.raises(BundleError, match=r"model\.onnx\.data is damaged"):
        Encoder.open("hf://maria/tiny")
    (snapshot / "model.onnx.data").unlink()
    with pytest.raises(Exception, match="is not whole"):
        Encoder.from_pretrained("maria/tiny", local_files_only=True)


def test_what_is_here_comes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    copy_bundle(tmp_path / "maria" / "tiny")
    with Encoder.from_pretrained("maria/tiny") as encoder:
        assert encoder.path == tmp_path / "maria" / "tiny"
    with pytest.raises(UsageError, match="has no revision 'v2'"):
        Encoder.from_pretrained("maria/tiny", revision="v2")
    with pytest.raises(UsageError, match="no name on a hub"):
        Encoder.from_pretrained("nowhere")


def test_an_encoder_is_saved_as_a_folder_of_its_own(tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in TINY.iterdir():
        (linked / path.name).symlink_to(path)
    (linked / "notes.txt").write_text("private")
    with Encoder.open(linked) as encoder:
        encoder.save_pretrained(tmp_path / "saved")
        with pytest.raises(UsageError, match="there already"):
            encoder.save_pretrained(tmp_path / "saved")
        with pytest.raises(UsageError, match="there is no folder"):
            encoder.save_pretrained(tmp_path / "no" / "saved")
    saved = {path.name: path for path in (tmp_path / "saved").iterdir()}
    assert saved.keys() == {*(path.name for path in TINY.iterdir()), "README.md"}
    assert not any(path.is_symlink() for path in saved.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["linked", "saved"]
    with Encoder.open(tmp_path / "saved") as again:
        assert again.dim == 16


def test_a_damaged_bundle_is_not_saved(tmp_path: Path) -> None:
    bundle = copy_bundle(tmp_path / "bundle")
    with Encoder.open(bundle) as encoder:
        (bundle / "golden.json").write_text("{}")
        with pytest.raises(BundleError):
            encoder.save_pretrained(tmp_path / "saved")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_card_says_what_the_manifest_says(tmp_path: Path) -> None:
    bundle = copy_bundle(tmp_path / "bundle")

    def change(values: dict[str, object]) -> None:
        values["name"] = "a | b\n# [x](http://y) <script>"
        values["source"] = {
            "model": "sentence-transformers/all-MiniLM-L6-v2",
            "architecture": "BertModel",
            "licence": "Apache-2.0",
        }

    rewrite_manifest(bundle, change)
    card = make_card(read_manifest(bundle), name="maria/tiny")
    _, front, body = card.split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts["license"] == "apache-2.0"
    assert facts["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert facts["library_name"] == "edge-mrl"
    assert {"onnx", "matryoshka", "sentence-similarity", "16-dimensions"} <= set(facts["tags"])
    assert "# a \\| b \\# \\[x\\](http://y) \\<script\\>\n" in body
    assert "| 0.999959 |" in body
    assert "hf://maria/tiny" in body
    assert is_made(card)
    assert not is_made(card.replace("tiny", "mine"))
    assert not is_made("# mine\n")
    other = yaml.safe_load(make_card(read_manifest(bundle), licence="Our: 'own'").split("---\n")[1])
    assert (other["license"], other["license_name"]) == ("other", "Our: 'own'")
    assert "license" not in make_card(read_manifest(TINY))
    for path in ("/home/maria/models/tiny", "C:\\Users\\maria\\tiny\\"):
        rewrite_manifest(bundle, lambda values, path=path: values["source"].update(model=path))
        card = make_card(read_manifest(bundle), name="owner/tiny")
        assert "maria" not in card
        assert "| tiny (BertModel) |" in card


def test_a_search_loads_nothing_of_the_hub() -> None:
    code = f"""
import sys
from edge_mrl import Encoder
with Encoder.open({str(TINY)!r}) as encoder:
    encoder.encode(["a cat"])
print([one for one in sys.modules if "huggingface" in one or one.startswith("edge_mrl.bundle.hub.pu")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
