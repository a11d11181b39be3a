"""The plugin as llm finds it: by its entry point, in Python and on the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import llm
import numpy as np
import pytest
import sqlite_utils
from click.testing import CliRunner
from llm.cli import cli

from edge_mrl import Encoder

BUNDLE = os.environ["EDGE_MRL_BUNDLE"]
TEXTS = ["The ferry leaves at dawn.", "A cat and a dog.", "ä 日本"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    return tmp_path


def test_llm_finds_both_models() -> None:
    names = {one.model.model_id for one in llm.get_embedding_models_with_aliases()}
    assert {"edge-mrl/document", "edge-mrl/query"} <= names
    assert llm.get_embedding_model("edge-mrl").model_id == "edge-mrl/document"


@pytest.mark.parametrize("kind", ["document", "query"])
def test_vectors_are_those_of_the_encoder(kind: str) -> None:
    model = llm.get_embedding_model(f"edge-mrl/{kind}")
    with Encoder.open(BUNDLE) as encoder:
        encode = encoder.encode_query if kind == "query" else encoder.encode_document
        assert list(model.embed_multi(TEXTS)) == encode(TEXTS).tolist()
        assert model.embed(TEXTS[0]) == encode(TEXTS[0]).tolist()
        many = [f"cat {n}" for n in range(300)]  # more than one window, from a generator
        found = list(model.embed_multi(text for text in many))
        assert np.allclose(found, encode(many), atol=1e-5)
    assert list(model.embed_multi([])) == []
    with pytest.raises(ValueError, match="binary"):
        model.embed(b"bytes")


def test_a_collection_answers() -> None:
    notes = llm.Collection(
        "notes", sqlite_utils.Database(memory=True), model_id="edge-mrl/document"
    )
    notes.embed_multi(zip("abc", TEXTS, strict=True), store=True)
    (best, *_) = notes.similar(TEXTS[0], number=2)
    assert (best.id, best.content, round(best.score, 4)) == ("a", TEXTS[0], 1.0)


def test_the_command_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["embed", "-m", "edge-mrl/query", "-c", "a cat"])
    assert done.exit_code == 0, done.output
    with Encoder.open(BUNDLE) as encoder:
        assert json.loads(done.output) == pytest.approx(encoder.encode_query("a cat"), abs=1e-6)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text(TEXTS[0])
    files = ["--files", str(tmp_path / "notes"), "*.md", "-m", "edge-mrl/document", "--store"]
    done = CliRunner().invoke(cli, ["embed-multi", "notes", *files])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(cli, ["similar", "notes", "-c", "ferry"])
    assert json.loads(done.output)["content"] == TEXTS[0]
