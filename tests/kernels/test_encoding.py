"""Bundles in the native kernels: ONNX Runtime's vectors, and the same bits everywhere."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl import native
from edge_mrl.bundle import read_head
from edge_mrl.encode import Encoder, verify
from edge_mrl.encode.verification import cosines
from edge_mrl.errors import EncoderError, UsageError
from edge_mrl.heads.bundle import _write_golden
from tests.support.bundles import TINY, TINY_COARSE, TINY_STATIC, copy_bundle

pytestmark = pytest.mark.test

#: Least cosine of full vectors to ONNX Runtime's: both compute one graph, and round here and there
#: differently. With 32 dimensions and two layers no code of a token changes.
SAME_GRAPH = 0.99999
#: Share of equal codes: a value in the middle between two codes may become either.
SAME_CODES = 0.98
TEXTS = [
    "",
    "the cat",
    "a dog of the training sleeps under 12 trees, near water",
    " ".join(["the cat and a dog"] * 40),
    "Zürich",
    "a",
    *(" ".join(["water", "trees", "sleeps", "12"][: n % 5] * (n % 7)) for n in range(30)),
]


def encoded(bundle: Path, texts: list[str] = TEXTS) -> tuple[bytes, bytes]:
    with Encoder.open(bundle, threads=1) as encoder:
        encoding = encoder.encode(texts)
    return encoding.coarse.tobytes(), b"" if encoding.full is None else encoding.full.tobytes()


@pytest.mark.parametrize("bundle", [TINY, TINY_COARSE], ids=["full", "coarse"])
def test_kernels_give_the_vectors_of_onnx_runtime(
    bundle: Path, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Encoder.open(bundle) as encoder:
        assert encoder.engine == f"kernels {kernel}"
        found = encoder.encode(TEXTS)
    monkeypatch.setenv(native.KERNEL_VARIABLE, "off")
    with Encoder.open(bundle) as encoder:
        assert encoder.engine == "onnxruntime"
        expected = encoder.encode(TEXTS)
    apart = np.abs(found.coarse.astype(int) - expected.coarse)
    assert apart.max() <= 1
    assert (apart == 0).mean() > SAME_CODES
    assert (found.full is None) == (expected.full is None)
    if found.full is not None and expected.full is not None:
        assert cosines(found.full, expected.full).min() > SAME_GRAPH


def test_kernels_give_the_same_bits_as_plain_c(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = encoded(TINY)
    monkeypatch.setenv(native.KERNEL_VARIABLE, "plain")
    assert found == encoded(TINY)


def test_a_text_has_the_same_bits_alone_and_in_any_group(kernel: str) -> None:
    with Encoder.open(TINY, threads=2) as encoder:
        together = encoder.encode(TEXTS)
        order = random.Random(5).sample(range(len(TEXTS)), len(TEXTS))
        shuffled = encoder.encode([TEXTS[i] for i in order])
        alone = [encoder.encode([text]) for text in TEXTS]
    assert together.full is not None
    assert shuffled.full is not None
    for place, i in enumerate(order):
        assert alone[i].full is not None
        assert together.full[i].tobytes() == alone[i].full.tobytes()
        assert together.full[i].tobytes() == shuffled.full[place].tobytes()
        assert (together.coarse[i] == shuffled.coarse[place]).all()


def test_threads_share_a_model(kernel: str) -> None:
    expected = encoded(TINY)
    start = threading.Barrier(4)
    with Encoder.open(TINY, threads=2) as encoder, ThreadPoolExecutor(4) as pool:

        def work(_: int) -> bytes:
            start.wait()
            return b"".join(encoder.encode(TEXTS).coarse.tobytes() for _ in range(5))

        assert set(pool.map(work, range(4))) == {5 * expected[0]}


def test_a_text_without_tokens_gives_zeros(installed: Path) -> None:
    kernels = native.kernels()
    assert kernels is not None
    model = kernels.open(
        (TINY / "model.onnx").read_bytes(),
        {"model.onnx.data": (TINY / "model.onnx.data").read_bytes()},
    )
    coarse, full = model.encode([[], [3], []])
    assert not any(coarse[:16])
    assert not any(full[: 4 * 32])
    assert any(coarse[16:32])
    assert model.encode([]) == (b"", b"")


@pytest.mark.parametrize("ids", [[92], [-1], [2**31 - 1], [2**40], [3] * 49], ids=str)
def test_ids_that_no_table_has_are_refused(installed: Path, ids: list[int]) -> None:
    with Encoder.open(TINY) as encoder:
        before = encoder.encode(["the cat"])
        with pytest.raises(EncoderError, match="cannot read this text"):
            encoder._session.run([[3, 4], ids])
        assert (encoder.encode(["the cat"]).coarse == before.coarse).all()


def test_a_graph_that_the_kernels_do_not_know_runs_in_onnx_runtime(installed: Path) -> None:
    with Encoder.open(TINY_STATIC) as encoder:
        assert encoder.engine == "onnxruntime"
        assert encoder.encode(["the cat"]).coarse.any()


def test_verify_says_which_engine_ran(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify(TINY).passed
    assert verify(TINY).engine.startswith("kernels ")
    monkeypatch.setenv(native.KERNEL_VARIABLE, "off")
    assert verify(TINY).engine == "onnxruntime"


def test_unknown_kernels_are_an_error(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.KERNEL_VARIABLE, "fastest")
    with pytest.raises(UsageError, match="EDGE_MRL_KERNEL is 'fastest'"):
        Encoder.open(TINY)


def test_a_closed_encoder_says_so(installed: Path) -> None:
    encoder = Encoder.open(TINY)
    encoder.close()
    with pytest.raises(UsageError, match="closed"):
        encoder.encode(["the cat"])


@pytest.mark.parametrize(("variable", "loaded"), [("", False), ("off", True)])
def test_onnx_runtime_is_not_loaded_where_kernels_run(
    installed: Path, variable: str, loaded: bool
) -> None:
    encoded(TINY)  # a bundle that was never tried is tried first, in another process
    code = (
        "import sys; from edge_mrl.encode import Encoder\n"
        f"Encoder.open({str(TINY)!r}).encode(['the cat'])\n"
        "print('onnxruntime' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, native.KERNEL_VARIABLE: variable},
    )
    assert done.stdout.strip() == str(loaded), done.stderr


def test_wrong_weights_are_noticed(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the comparison with ONNX Runtime can fail."""
    kernels = native.kernels()
    assert kernels is not None
    graph, weights = ((TINY / name).read_bytes() for name in ("model.onnx", "model.onnx.data"))
    rows = [[0, 40 + n, 50, 2] for n in range(30)]
    sound = np.frombuffer(
        kernels.open(graph, {"model.onnx.data": weights}).encode(rows)[1], np.float32
    )
    middle = len(weights) // 2
    wrong = weights[:middle] + bytes(len(weights) - middle)
    other = np.frombuffer(
        kernels.open(graph, {"model.onnx.data": wrong}).encode(rows)[1], np.float32
    )
    assert cosines(sound.reshape(30, -1), other.reshape(30, -1)).min() < SAME_GRAPH


@pytest.mark.usefixtures("installed")
def test_vectors_for_all_machines_are_those_of_onnx_runtime() -> None:
    with Encoder.open(TINY) as encoder:
        assert encoder.engine.startswith("kernels ")
    with native.reference_engine(), Encoder.open(TINY) as encoder:
        assert encoder.engine == "onnxruntime"
    with Encoder.open(TINY) as encoder:
        assert encoder.engine.startswith("kernels ")


@pytest.mark.usefixtures("installed")
def test_golden_vectors_of_an_adapted_bundle_are_those_of_onnx_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    plain = Encoder.open.__func__

    def noting(kind: type[Encoder], *args: Any, **options: Any) -> Encoder:
        encoder: Encoder = plain(kind, *args, **options)
        opened.append(encoder.engine)
        return encoder

    monkeypatch.setattr(Encoder, "open", classmethod(noting))
    bundle = copy_bundle(tmp_path / "bundle")
    _write_golden(bundle, read_head(bundle))
    assert opened == ["onnxruntime"]
