from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_mrl.codes.packing import normalize, quantize
from edge_mrl.encode.encoder import BATCH_TOKENS, LEAST_BATCH_TOKENS, Encoder, _batches
from edge_mrl.encode.graph_session import GraphSession
from edge_mrl.errors import UsageError
from tests.support.bundles import TINY, TINY_COARSE

WORDS = [
    "the",
    "cat",
    "and",
    "a",
    "dog",
    "of",
    "to",
    "in",
    "training",
    "12",
    "sleeps",
    "under",
    "trees,",
    "near",
    "water",
]
#: Float sums in another order.
ORDER = 1e-5


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    with Encoder.open(TINY, threads=1) as opened:
        yield opened


def mixed_texts(count: int) -> list[str]:
    return [
        " ".join(itertools.islice(itertools.cycle(WORDS), i % 37)) + f" {i}" for i in range(count)
    ]


def test_encode_gives_codes_and_unit_vectors(encoder: Encoder) -> None:
    encoding = encoder.encode(["the cat", "a dog"])
    assert encoding.full is not None
    assert encoding.coarse.shape == (2, 16)
    assert encoding.coarse.dtype == np.int8
    assert encoding.full.shape == (2, 32)
    assert encoding.full.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(encoding.full, axis=1), 1, atol=1e-6)


def test_codes_in_the_graph_equal_their_twin_in_numpy(encoder: Encoder) -> None:
    encoding = encoder.encode(mixed_texts(200))
    assert encoding.full is not None
    expected = quantize(normalize(encoding.full[:, :16]))
    steps = normalize(encoding.full[:, :16]) * 127
    near_edge = np.abs(np.abs(steps - np.rint(steps)) - 0.5) < 1e-3
    assert ((encoding.coarse == expected) | near_edge).all()


def test_order_is_kept_whatever_the_lengths(encoder: Encoder) -> None:
    texts = mixed_texts(700)
    together = encoder.encode(texts)
    assert together.full is not None
    for index in (0, 1, 36, 350, 511, 512, 513, 699):
        alone = encoder.encode([texts[index]])
        np.testing.assert_allclose(together.full[index], alone.full[0], atol=ORDER)


def test_no_texts_give_empty_arrays(encoder: Encoder) -> None:
    encoding = encoder.encode([])
    assert encoding.full is not None
    assert (encoding.coarse.shape, encoding.full.shape) == ((0, 16), (0, 32))
    assert (encoding.coarse.dtype, encoding.full.dtype) == (np.int8, np.float32)
    assert len(encoding) == 0


def test_single_string_is_a_type_error(encoder: Encoder) -> None:
    with pytest.raises(TypeError, match="single string"):
        encoder.encode("text")
    with pytest.raises(TypeError, match="single string"):
        encoder.stream(b"text")  # type: ignore[arg-type]


def test_something_else_than_strings_is_a_type_error(encoder: Encoder) -> None:
    with pytest.raises(TypeError, match="NoneType"):
        encoder.encode(["text", None])  # type: ignore[list-item]


def test_unknown_kind_is_a_usage_error(encoder: Encoder) -> None:
    with pytest.raises(UsageError, match="passage"):
        encoder.encode(["text"], kind="passage")


def test_prompt_is_put_before_queries_alone(encoder: Encoder) -> None:
    query = encoder.encode(["cats"], kind="query")
    spelled = encoder.encode(["search: cats"], kind="document")
    assert (query.coarse == spelled.coarse).all()
    assert (query.coarse != encoder.encode(["cats"]).coarse).any()


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\n",
        "\0",
        "a\0b",
        "\ud800",
        "x\udfff y",
        "👩‍🚀🚀",
        "\u200b",
        "\ufeff",
        "猫" * 500,
        ".",
    ],
)
def test_odd_text_gives_a_finite_vector(encoder: Encoder, text: str) -> None:
    encoding = encoder.encode([text, "the cat"])
    assert encoding.full is not None
    assert np.isfinite(encoding.full).all()
    # What stands beside it is not changed by it.
    np.testing.assert_allclose(encoding.full[1], encoder.encode(["the cat"]).full[0], atol=ORDER)


def test_lone_surrogate_reads_as_replacement_character(encoder: Encoder) -> None:
    assert encoder.tokenize(["a\ud800b"]) == encoder.tokenize(["a\ufffdb"])


@pytest.mark.test
def test_megabyte_text_is_cut(encoder: Encoder) -> None:
    long = "the cat " * 131_072
    assert len(long) == 1 << 20
    assert len(encoder.tokenize([long])[0]) == encoder.manifest.max_tokens
    short = "the cat " * encoder.manifest.max_tokens
    assert (encoder.encode([long]).coarse == encoder.encode([short]).coarse).all()


@pytest.mark.test
def test_stream_reads_its_input_as_it_goes(encoder: Encoder) -> None:
    taken = 0

    def texts() -> Iterator[str]:
        nonlocal taken
        for text in mixed_texts(5000):
            taken += 1
            yield text

    chunks = encoder.stream(texts())
    first = next(chunks)
    assert taken <= len(first) + 1 < 1000
    assert len(first) + sum(len(chunk) for chunk in chunks) == 5000


def test_stream_refuses_wrong_arguments_at_once(encoder: Encoder) -> None:
    with pytest.raises(UsageError):
        encoder.stream(iter(["a"]), kind="neither")


def test_batches_cover_all_and_keep_the_budget() -> None:
    lengths = [len(text) for text in mixed_texts(333)]
    batches = list(_batches(lengths, 200))
    assert sorted(itertools.chain(*batches)) == list(range(333))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 200
    padding = sum(len(b) * max(lengths[i] for i in b) for b in batches) / sum(lengths)
    assert padding < 1.1  # sorted by length, so that little is padded


def test_threads_share_an_encoder(encoder: Encoder) -> None:
    texts = mixed_texts(60)
    expected = encoder.encode(texts).coarse
    results: list[np.ndarray | None] = [None] * 6

    def work(slot: int) -> None:
        results[slot] = encoder.encode(texts).coarse

    workers = [threading.Thread(target=work, args=(slot,)) for slot in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for result in results:
        assert result is not None
        assert (result == expected).all()


@pytest.mark.parametrize("count", [1, 2, 3, 700])
def test_number_of_threads_does_not_change_vectors(encoder: Encoder, count: int) -> None:
    texts = mixed_texts(count)
    with Encoder.open(TINY, threads=3) as wide:
        got = wide.encode(texts)
    np.testing.assert_allclose(got.full, encoder.encode(texts).full, atol=ORDER)


def test_few_texts_are_shared_out_between_threads() -> None:
    lengths = [LEAST_BATCH_TOKENS] * 4
    for threads, batches in ((1, 1), (2, 2), (4, 4), (16, 4)):
        with Encoder.open(TINY, threads=threads) as opened:
            assert len(opened._batches(lengths)) == batches
            assert len(opened._batches([3] * 4)) == 1


def test_lone_long_text_is_split_between_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_mrl.encode.graph_session.WIDE_TOKENS", 20)
    text = " ".join(WORDS * 3)
    opened_with: list[int] = []
    open_session = GraphSession._open

    def spy(self: GraphSession, threads: int) -> object:
        opened_with.append(threads)
        return open_session(self, threads)

    monkeypatch.setattr(GraphSession, "_open", spy)
    with Encoder.open(TINY, threads=2) as opened:
        short = opened.encode(["the cat"])
        assert opened_with == [1]
        long = opened.encode([text])
        opened.encode([text])
        assert opened_with == [1, 2]
    with Encoder.open(TINY, threads=1) as single:
        np.testing.assert_allclose(single.encode([text]).full, long.full, atol=ORDER)
        np.testing.assert_array_equal(single.encode(["the cat"]).coarse, short.coarse)
    assert opened_with == [1, 2, 1]


def test_low_memory_gives_the_same_vectors(encoder: Encoder) -> None:
    texts = mixed_texts(50)
    with Encoder.open(TINY, threads=1, low_memory=True) as small:
        np.testing.assert_allclose(small.encode(texts).full, encoder.encode(texts).full, atol=ORDER)


def test_coarse_only_bundle_has_no_full_vectors() -> None:
    with Encoder.open(TINY_COARSE) as opened:
        encoding = opened.encode(["the cat", "a dog"])
        assert encoding.full is None
        assert encoding.coarse.shape == (2, 8)
        assert opened.encode([]).full is None


@pytest.mark.parametrize("threads", [0, -1])
def test_open_refuses_too_few_threads(threads: int) -> None:
    with pytest.raises(UsageError, match="threads"):
        Encoder.open(TINY, threads=threads)


def test_closed_encoder_says_so() -> None:
    opened = Encoder.open(TINY)
    opened.close()
    with pytest.raises(UsageError, match="closed"):
        opened.encode(["text"])


_GROWTH = """
import resource, sys
from edge_mrl import Encoder
def rss(): return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
def texts(n):
    for i in range(n):
        yield "the cat and a dog of to in training water " * (i % 6) + str(i)
with Encoder.open(sys.argv[1], threads=1) as encoder:
    for _ in encoder.stream(texts(5_000)): pass
    before = rss()
    for _ in encoder.stream(texts(int(sys.argv[2]))): pass
    print(rss() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads RSS from /proc")
@pytest.mark.parametrize(
    ("texts", "limit_mb"),
    [
        pytest.param(30_000, 3, marks=pytest.mark.test),
        pytest.param(100_000, 8, marks=pytest.mark.nightly),
    ],
)
def test_memory_stays_bounded_however_many_the_texts(texts: int, limit_mb: float) -> None:
    command = [sys.executable, "-c", _GROWTH, str(TINY), str(texts)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    # The vectors alone would take (32 x 4 + 16) B a text, 4.3 MB and 14 MB; the tokens three times that.
    assert float(run.stdout) < limit_mb


def test_budget_leaves_room_for_the_longest_text(encoder: Encoder) -> None:
    assert encoder.manifest.max_tokens <= BATCH_TOKENS
