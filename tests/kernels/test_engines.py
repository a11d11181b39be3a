"""Two engines for one bundle: `verify` runs both, and a store says which have made its vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl import native
from edge_mrl.diagnose.checks.store import check_store
from edge_mrl.documents import Document
from edge_mrl.encode import Encoder, verify
from edge_mrl.index import Index
from tests.support.bundles import TINY, TINY_COARSE, TINY_STATIC

pytestmark = pytest.mark.test


@pytest.mark.parametrize("bundle", [TINY, TINY_COARSE], ids=["full", "coarse"])
def test_verify_runs_both_engines(installed: Path, bundle: Path) -> None:
    result = verify(bundle)
    assert result.passed
    assert result.engine.startswith("kernels ")
    assert result.other_engine == "onnxruntime"
    assert result.engines_cosine_mean is not None
    assert result.engines_cosine_min is not None
    assert 0.999 < result.engines_cosine_min <= result.engines_cosine_mean < 1.0001
    assert not any("differ here" in text for text in result.warnings)


def test_verify_runs_one_engine_where_there_is_one(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verify(TINY_STATIC).other_engine is None
    monkeypatch.setenv(native.KERNEL_VARIABLE, "off")
    assert verify(TINY).other_engine is None


def test_engines_that_differ_are_named(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Encoder.encode

    def turned(encoder: Encoder, *args: Any, **options: Any) -> Any:
        encoding = plain(encoder, *args, **options)
        if encoder.engine == "onnxruntime":
            assert encoding.full is not None
            encoding.full[:] = np.roll(encoding.full, 1, axis=1)
        return encoding

    monkeypatch.setattr(Encoder, "encode", turned)
    result = verify(TINY, untried=True)
    assert result.passed  # what runs here is as the exporter's
    assert any(text.startswith("in ONNX Runtime: vectors differ") for text in result.warnings)
    assert any(
        "the native kernels and ONNX Runtime differ here" in text for text in result.warnings
    )


def test_a_store_says_which_engines_made_its_vectors(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"

    def put(name: str) -> tuple[str, ...]:
        with Index.open(path, bundle=TINY) as index:
            index.put([Document(name, f"the cat {name}")])
            return index.stats().engines

    with Index.open(path, bundle=TINY) as index:
        assert index.stats().engines == ()
    assert put("a") == put("b") == ("kernels",)
    monkeypatch.setenv(native.KERNEL_VARIABLE, "off")
    assert put("c") == ("kernels", "onnxruntime")
    assert put("c") == ("kernels", "onnxruntime")


def test_doctor_says_that_two_engines_made_a_store(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    found = []
    for variable in ("", "off"):
        monkeypatch.setenv(native.KERNEL_VARIABLE, variable)
        with Index.open(path, bundle=TINY) as index:
            index.put([Document(f"a{variable}", f"the cat {variable}")])
        found.append([finding.text for finding in check_store(path, TINY)])
    one, two = found
    assert not any("made by" in text for text in one)
    assert any("made by kernels and onnxruntime" in text for text in two)


def test_engines_stay_when_the_bundle_changes(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    with Index.open(path, bundle=TINY) as index:
        index.put([Document("a", "the cat")])
    monkeypatch.setenv(native.KERNEL_VARIABLE, "off")
    with Index.open(path) as index:
        index.reindex(TINY_COARSE)
        assert index.stats().engines == ("kernels", "onnxruntime")
