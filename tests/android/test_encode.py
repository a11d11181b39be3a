"""Vectors, verification and passages of the core in Kotlin are those of Python."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl.bundle import GRAPH, WEIGHTS
from edge_mrl.documents import PassageRule
from edge_mrl.encode import Encoder, cosines, passage_rule, split_passages, token_spans, verify
from edge_mrl.encode.verification import read_golden
from edge_mrl.errors import EdgeMrlError, UsageError
from tests.android.probe import KotlinError, Probe
from tests.bundle import test_hostile
from tests.support import onnxbytes as ob
from tests.support.bundles import (
    ROOT,
    TINY,
    TINY_COARSE,
    TINY_STATIC,
    copy_bundle,
    refresh_file,
    rewrite_manifest,
)

pytestmark = pytest.mark.test

BUNDLES = [TINY, TINY_COARSE, TINY_STATIC]
#: Pieces of texts in several scripts, with and without spaces between words.
PIECES = (
    *(
        "the quick brown fox ",
        "naïve café. ",
        "Привет, мир! ",
        "שלום עולם ",
        "你好世界。",
        "かな カナ ",
    ),
    *(
        "안녕하세요 ",
        "नमस्ते ",
        "\n\n",
        "\t",
        "a" * 60,
        "🙂👩‍👩‍👧 ",
        "[SEP] ",
        "word\u00a0word ",
        "e\u0301\u0323",
    ),
    *("1234567890 ", "...---... ", "\u2028", "ﬁnd ", "x\u200dy ", "\ud800"),
)


def long_text(seed: int, chars: int) -> str:
    rng, text = random.Random(seed), ""
    while len(text) < chars:
        text += rng.choice(PIECES) * rng.choice((1, 1, 1, 2, 30))
    return text


def compare(kotlin: Probe, folder: Path) -> None:
    """A bundle's vectors and ids in both runtimes, and how both verify it."""
    found = kotlin("encoder.verify", path=str(folder))
    expected = verify(folder, untried=True)
    assert found["failures"] == []
    assert (found["texts"], found["files"]) == (expected.texts, expected.files)
    for name in ("full_cosine_mean", "full_cosine_min", "source_cosine_mean", "source_cosine_min"):
        assert found[name] == pytest.approx(getattr(expected, name), abs=2e-3), name
    kotlin("encoder.open", path=str(folder))
    with Encoder.open(folder, untried=True) as encoder:
        for kind in ("document", "query"):
            texts = [g.text for g in read_golden(folder, encoder.manifest) if g.kind == kind]
            texts += ["", "a", long_text(1, 900), long_text(2, 3000)] * 12
            assert kotlin("encoder.ids", texts=texts, kind=kind) == encoder.tokenize(
                texts, kind=kind
            )
            got = kotlin("encoder.encode", texts=texts, kind=kind)
            made = encoder.encode(texts, kind=kind)
            # The limits of `verify`: rounding changes some codes.
            assert cosines(np.array(got["coarse"]), made.coarse).min() >= 0.99
            if made.full is None:
                assert got["full"] is None
            else:
                to_python = cosines(np.array(got["full"]), made.full)
                assert to_python.mean() >= 0.999
                assert to_python.min() >= 0.995


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda path: path.name)
def test_bundles_give_the_vectors_of_python(kotlin: Probe, folder: Path) -> None:
    compare(kotlin, folder)


def test_minilm_gives_the_vectors_of_python(kotlin: Probe, minilm_bundle: Path) -> None:
    compare(kotlin, minilm_bundle)


def test_batches_of_all_kinds_give_the_same_vectors(kotlin: Probe) -> None:
    texts = [long_text(seed, 20 * seed) for seed in range(40)]
    made = {}
    for threads, low in ((1, False), (3, False), (2, True)):
        kotlin("encoder.open", path=str(TINY), threads=threads, low_memory=low)
        made[threads, low] = np.array(kotlin("encoder.encode", texts=texts)["full"])
        alone = [kotlin("encoder.encode", texts=[text])["full"][0] for text in texts[:12]]
        assert cosines(np.array(alone), made[threads, low][:12]).min() >= 0.999
    for other in made.values():
        assert cosines(other, made[1, False]).min() >= 0.999
    assert kotlin("encoder.encode", texts=[])["coarse"] == []


def test_passages_are_those_of_python(kotlin: Probe) -> None:
    texts = [long_text(seed, 50 * 2 ** (seed % 7)) for seed in range(30)]
    texts += ["", " ", "\u200d", "你" * 21_000, "x" * 21_000, "a b " * 6_000, long_text(7, 45_000)]
    for folder in (TINY, TINY_STATIC):
        kotlin("encoder.open", path=str(folder))
        with Encoder.open(folder, untried=True) as encoder:
            for most, overlap in ((30, 7), (1, 0), (46, 45)):
                picked = texts if most == 30 else texts[:20]
                got = kotlin("encoder.passages", texts=picked, max_tokens=most, overlap=overlap)
                rule = PassageRule(most, overlap)
                for text, (split, spans) in zip(picked, got, strict=True):
                    assert split == [list(s) for s in split_passages(encoder, text, rule)]
                    expected = token_spans(encoder, text, max_tokens=most, overlap=overlap)
                    assert spans == [list(s) for s in expected]
            assert sum(len(split) for split, _ in got) > 500


@pytest.mark.parametrize(
    ("most", "overlap"), [(None, None), (10, None), (10, 9), (10, 10), (0, 0), (47, None), (46, -1)]
)
def test_rules_of_passages_are_those_of_python(
    kotlin: Probe, most: int | None, overlap: int | None
) -> None:
    kotlin("encoder.open", path=str(TINY))
    with Encoder.open(TINY, untried=True) as encoder:
        try:
            rule = passage_rule(encoder, max_tokens=most, overlap=overlap)
        except UsageError:
            with pytest.raises(KotlinError, match="UsageException"):
                kotlin("encoder.rule", max_tokens=most, overlap=overlap)
        else:
            found = kotlin("encoder.rule", max_tokens=most, overlap=overlap)
            assert found == [rule.max_tokens, rule.overlap]


def one_vector(value: float) -> bytes:
    weights = [ob.tensor("w", np.full((1, 32), value, np.float32)), *ob.numbers(16)]
    return ob.model(ob.graph(ob.row_of("w"), weights, dim=16, full=32))


def other_width(bundle: Path) -> None:
    rewrite_manifest(bundle, lambda data: data["dims"].update(coarse=12))


def other_outputs(bundle: Path) -> None:
    for name in (GRAPH, WEIGHTS):
        (bundle / name).write_bytes((TINY_COARSE / name).read_bytes())
        refresh_file(bundle, name)


def padding_beyond_the_table(bundle: Path) -> None:
    rewrite_manifest(bundle, lambda data: data["padding"].update(id=50_000))


def swapped_golden(bundle: Path) -> None:
    path = bundle / "golden.json"
    data = json.loads(path.read_bytes())
    for entry in data["texts"]:
        entry["ids"][-1] += 1
    path.write_text(json.dumps(data))
    refresh_file(bundle, "golden.json")


def wrong_codes(bundle: Path) -> None:
    path = bundle / "golden.json"
    data = json.loads(path.read_bytes())
    for entry in data["texts"]:
        code = np.frombuffer(base64.b64decode(entry["coarse"]), np.int8)
        entry["coarse"] = base64.b64encode((-code).tobytes()).decode()
    path.write_text(json.dumps(data))
    refresh_file(bundle, "golden.json")


@pytest.mark.parametrize(
    "change",
    [
        other_width,
        other_outputs,
        padding_beyond_the_table,
        swapped_golden,
        wrong_codes,
        *(
            pytest.param(lambda b, v=v: test_hostile.give_graph(b, one_vector(v)), id=str(v))
            for v in (np.nan, np.inf, 3e38, 0.5, 32**-0.5)
        ),
    ],
)
def test_bundle_that_fails_its_trial_is_refused_with_the_same_kind_of_error(
    kotlin: Probe, tmp_path: Path, change: Any
) -> None:
    bundle = copy_bundle(tmp_path / "bundle")
    change(bundle)
    with pytest.raises(EdgeMrlError) as expected:
        Encoder.open(bundle)
    kind = type(expected.value).__name__.removesuffix("Error")
    with pytest.raises(KotlinError) as caught:
        kotlin("encoder.open", path=str(bundle))
    assert caught.value.kind == f"{kind}Exception", caught.value


def test_text_that_cannot_be_encoded_is_an_error_at_each_text(
    kotlin: Probe, tmp_path: Path
) -> None:
    bundle = copy_bundle(tmp_path / "bundle")
    test_hostile.give_graph(bundle, one_vector(np.nan))
    kotlin("encoder.open", path=str(bundle), tried=False)
    with pytest.raises(KotlinError, match=r"EncoderException.*not finite or not of unit length"):
        kotlin("encoder.encode", texts=["a text"])
    kotlin("encoder.close")
    with pytest.raises(KotlinError, match=r"UsageException.*is closed"):
        kotlin("encoder.encode", texts=["a text"])


def test_onnx_runtime_is_touched_in_one_place_only() -> None:
    """Telemetry is switched off there, before its first class is loaded."""
    folder = ROOT / "android_demo" / "core" / "src" / "main"
    makers = [
        path.name
        for path in sorted(folder.rglob("*.kt"))
        if "OrtEnvironment.getEnvironment" in path.read_text("utf-8")
    ]
    assert makers == ["OrtRuntime.kt"]
