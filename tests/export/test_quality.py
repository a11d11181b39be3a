"""Evaluation and advice: data, metrics, rankings, choices, pages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.quality.metrics import evaluate as second_opinion
from edge_mrl.codes.packing import Packing, normalize, quantize, similarity
from edge_mrl.documents import Document
from edge_mrl.encode.encoder import Encoder
from edge_mrl.errors import UsageError
from edge_mrl.index import Index
from edge_mrl_export.quality.advice import Advice, Question, advise, decide
from edge_mrl_export.quality.cache import Cache
from edge_mrl_export.quality.coding import levels
from edge_mrl_export.quality.costs import code_table, cost
from edge_mrl_export.quality.evaluation import SetVectors, evaluate
from edge_mrl_export.quality.metrics import judge
from edge_mrl_export.quality.similarity import evaluate_pairs
from edge_mrl_export.quality.subject import Encoded, FullModel, Subject, open_bundle
from edge_mrl_export.quality.tuning import tune, tuned_funnel
from edge_mrl_export.texts.datasets import Retrieval, Similarity, read_data, read_passages
from tests.support.bundles import TINY, TINY_COARSE, copy_bundle, keep_codes_as
from tests.support.pages import look
from tests.support.processes import good, run
from tests.support.stores import packing

pytestmark = pytest.mark.test
#: SetVectors with a few strong directions at the end: a cut keeps little, a rotation nearly all.
WIDTH, DOCUMENTS, QUERIES = 48, 900, 160


def write(folder: Path, **changes: str) -> Path:
    """A set in BEIR's layout, with some of its files otherwise."""
    parts = {
        "corpus": '{"_id": "a", "title": "Cats", "text": "sleep"}\n{"_id": "b", "text": "dogs bark"}\n',
        "queries": '{"_id": "1", "text": "who sleeps?"}\n{"_id": "2", "text": "who barks?"}\n',
        "qrels": "query-id\tcorpus-id\tscore\n1\ta\t2\n2\tb\t1\n2\ta\t0\n",
    }
    (folder / "qrels").mkdir(parents=True)
    names = {"corpus": "corpus.jsonl", "queries": "queries.jsonl", "qrels": "qrels/test.tsv"}
    for part, text in {**parts, **changes}.items():
        (folder / names[part]).write_text(text, "utf-8")
    return folder


def test_folder_in_beirs_layout_is_read(tmp_path: Path) -> None:
    found = read_data(write(tmp_path / "pets"))
    assert isinstance(found, Retrieval)
    assert found.name == "pets"
    assert found.documents == ["Cats sleep", "dogs bark"]
    assert found.queries == ["who sleeps?", "who barks?"]
    assert found.relevance == [{0: 2.0}, {1: 1.0}]


@pytest.mark.parametrize(
    ("part", "text", "message"),
    [
        ("corpus", "{", r"corpus\.jsonl:1: not valid JSON"),
        ("corpus", "[1]", r"corpus\.jsonl:1: list, expected an object"),
        ("corpus", '{"_id": "a"}', r'corpus\.jsonl:1: expected "_id", "text"'),
        ("corpus", '{"_id": "a", "text": ""}\n{"_id": "a", "text": ""}', "was used before"),
        ("corpus", "\n", r"corpus\.jsonl is empty"),
        ("qrels", "q\td\ts\n1\ta\n", r"test\.tsv:2: .*between tabs"),
        ("qrels", "q\td\ts\n1\ta\t0.5\n", "a whole number"),
        ("qrels", "q\td\ts\n9\ta\t1\n", "the query '9' is not in queries"),
        ("qrels", "q\td\ts\n1\tz\t1\n", "1 judgements name documents that are not in the corpus"),
    ],
)
def test_malformed_folders_are_refused_by_file_and_line(
    tmp_path: Path, part: str, text: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        read_data(write(tmp_path / "set", **{part: text}))


def test_missing_parts_and_bad_bytes_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    (folder / "queries.jsonl").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="is not UTF-8"):
        read_data(folder)
    (folder / "queries.jsonl").unlink()
    with pytest.raises(UsageError, match=r"has no queries\.jsonl"):
        read_data(folder)
    with pytest.raises(UsageError, match="no file or folder"):
        read_data(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "a.jsonl",
            '{"s1": "x, y", "s2": "z", "score": 1}\n{"s1": "u", "s2": "v", "score": 4.5}\n',
        ),
        ("a.csv", 'x_id,s1,s2,score\n1,"x, y",z,1\n2,u,v,4.5\n'),
        ("a.tsv", "x, y\tz\t1\nu\tv\t4.5\n"),
    ],
)
def test_scored_pairs_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    assert read_data(tmp_path / name) == Similarity("a", ["x, y", "u"], ["z", "v"], [1.0, 4.5])


def test_bad_pairs_are_refused(tmp_path: Path) -> None:
    for name, text, message in (
        ("a.csv", "s1,s2,score\nx,y,high\n", r"a\.csv:2: expected"),
        ("b.tsv", "x\ty\t1\nz\tu\t1\n", "different scores"),
        ("c.txt", "x", "expected a folder"),
    ):
        (tmp_path / name).write_text(text, "utf-8")
        with pytest.raises(UsageError, match=message):
            read_data(tmp_path / name)


def corpus(path: Path, text: str, count: int = 40, **more: str) -> Path:
    rows = [
        {"text": text.format(i), **{k: v.format(i) for k, v in more.items()}} for i in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return path


def test_queries_come_from_titles_then_sentences_then_passages(tmp_path: Path) -> None:
    both = "The first sentence of {0} is long. The second sentence of {0} is, too."
    titled = read_passages([corpus(tmp_path / "a.jsonl", both, title="Chapter {0}")])
    assert titled.queries[3] == "Chapter 3"
    assert titled.documents[3].startswith("The first")  # without what is asked for
    told = read_passages([corpus(tmp_path / "b.jsonl", both)])
    assert told.queries[3] == "The second sentence of 3 is, too."
    assert (told.own, told.relevance) == (None, None)
    short = read_passages([corpus(tmp_path / "c.jsonl", "Only words {0}")])
    assert short.queries == short.documents
    assert short.own == list(range(40))
    with pytest.raises(UsageError, match="has 3 different texts"):
        read_passages([corpus(tmp_path / "d.jsonl", "word {0}", count=3)])


def test_metrics_agree_with_a_second_implementation() -> None:
    chance = np.random.default_rng(0)
    scores = chance.standard_normal((30, 300)).astype(np.float32)
    relevance = [
        {int(d): float(chance.integers(1, 4)) for d in chance.choice(300, 5, replace=False)}
        for _ in scores
    ]
    found = np.argsort(-scores, axis=1, kind="stable")[:, :200]
    ours, theirs = judge(found, relevance), second_opinion(scores, relevance)
    for name in ("ndcg_at_10", "recall_at_100", "mrr_at_10"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), err_msg=name)
    nothing = judge(np.full((30, 200), -1), relevance)
    assert not nothing.ndcg_at_10.any()


@pytest.fixture(scope="module")
def made() -> tuple[Subject, Retrieval, SetVectors]:
    """A model whose last dimensions hold most, and queries near documents."""
    chance = np.random.default_rng(1)
    strength = np.linspace(0.2, 2.0, WIDTH, dtype=np.float32)
    full = normalize(chance.standard_normal((DOCUMENTS, WIDTH), dtype=np.float32) * strength)
    near = chance.standard_normal((QUERIES, WIDTH), dtype=np.float32) * strength
    queries = normalize(full[:QUERIES] * 6 + near)
    model = FullModel("made", "key", WIDTH, lambda *_: iter(()))
    subject = Subject("made", model, model, command="owner/made")
    relevance: list[dict[int, float]] = [{row: 1.0} for row in range(QUERIES)]
    texts = [f"text {row}" for row in range(DOCUMENTS)]
    data = Retrieval("made", texts, texts[:QUERIES], relevance, None, "made")
    documents, asked = Encoded(full), Encoded(queries)
    return subject, data, SetVectors(documents, asked, documents, asked)


def test_rows_are_what_exact_searches_give(made: tuple[Subject, Retrieval, SetVectors]) -> None:
    subject, data, vectors = made
    found = evaluate(subject, data, vectors, (16, WIDTH))
    rows = {(row.dim, row.kind, row.stage): row for row in found.rows}
    assert len(rows) == 2 * (5 * 4 + 4)  # the funnel is for codes alone
    assert found.full is None
    # By another way: the library's own similarity of int8 codes, and a stable sort of all.
    codes = [quantize(normalize(v.full[:, :16])) for v in (vectors.queries, vectors.documents)]
    expected = second_opinion(similarity(*codes), data.relevance or []).means()
    row = rows[16, "int8", "alone"]
    assert {name: getattr(row, name) for name in expected} == expected
    assert row.code_bytes == 16
    assert rows[16, "1bit", "alone"].code_bytes == 2
    whole = rows[WIDTH, "float32", "alone"]
    assert (whole.kept.ratio, whole.overlap_at_10) == (1.0, 1.0)
    by_stage = [rows[16, "1bit", s].ndcg_at_10 for s in ("alone", "rerank 50", "rerank 200")]
    assert by_stage == sorted(by_stage)
    assert rows[16, "int8", "funnel"].recall_at_100 <= row.recall_at_100
    for row in rows.values():
        assert row.kept.low <= row.kept.ratio <= row.kept.high


def test_full_model_judges_where_there_are_no_judgements(
    made: tuple[Subject, Retrieval, SetVectors],
) -> None:
    subject, data, vectors = made
    own = Retrieval("own", data.documents, data.documents[:QUERIES], None, list(range(QUERIES)), "")
    queries = Encoded(vectors.documents.full[:QUERIES])
    same = SetVectors(vectors.documents, queries, vectors.documents, queries)
    found = evaluate(subject, own, same, (16, WIDTH), kinds=("int8",))
    assert found.base["ndcg_at_10"] == 1.0
    assert found.judged_by == "the full model's own best 10"
    rows = {(row.dim, row.stage): row for row in found.rows}
    assert rows[WIDTH, "rerank 50"].overlap_at_10 == 1.0
    exact = queries.full @ vectors.documents.full.T
    np.fill_diagonal(exact, -1)  # a passage does not find itself
    codes = normalize(quantize(normalize(vectors.documents.full[:, :16])).astype(np.float32))
    scores = codes[:QUERIES] @ codes.T
    np.fill_diagonal(scores, -1)
    best = [set(row) for row in np.argsort(-exact, kind="stable")[:, :10]]
    again = [set(row) for row in np.argsort(-scores, kind="stable")[:, :10]]
    overlap = np.mean([len(a & b) / 10 for a, b in zip(best, again, strict=True)])
    assert rows[16, "alone"].overlap_at_10 == pytest.approx(overlap, abs=1e-3)


def test_levels_are_what_a_store_keeps() -> None:
    codes = np.array([[100, -3, 0, 9]], np.int8)
    np.testing.assert_allclose(levels(codes, Packing("1bit")), [[0.5, -0.5, -0.5, 0.5]])


def test_dimensions_out_of_range_are_refused(made: tuple[Subject, Retrieval, SetVectors]) -> None:
    subject, data, vectors = made
    with pytest.raises(UsageError, match="expected 1 to 48"):
        evaluate(subject, data, vectors, (WIDTH + 1,))


@pytest.fixture(scope="module")
def encoder() -> Any:
    with Encoder.open(TINY) as opened:
        yield opened


def test_bundle_without_its_source_is_compared_with_itself(encoder: Encoder) -> None:
    subject = open_bundle(encoder, None)
    assert "--source" in subject.notes[0]
    assert subject.base is subject.model
    pairs = Similarity("p", ["a cat", "the end", "one"], ["a cat", "10 dogs", "one two"], [5, 1, 3])
    found = evaluate_pairs(subject, pairs, Cache(None, quiet=True), (16, 32))
    assert found["full"] is None
    assert {row["dim"]: row["spearman"] for row in found["rows"] if row["kind"] == "float32"}[
        32
    ] == found["base"]
    with Encoder.open(TINY_COARSE) as coarse, pytest.raises(UsageError, match="coarse codes alone"):
        open_bundle(coarse, None)


def test_bundles_own_codes_are_those_of_its_graph(encoder: Encoder) -> None:
    texts = ["a cat", "the end of a day"]
    found = open_bundle(encoder, None).model.vectors(Cache(None, quiet=True), texts, "document")
    expected = encoder.encode(texts)
    assert expected.full is not None
    np.testing.assert_array_equal(found.codes, expected.coarse)
    np.testing.assert_array_equal(found.full, expected.full)


@pytest.mark.parametrize("name", ["int8", "int4", "2bit", "2bit around a centre", "1bit"])
def test_figures_of_a_bundles_own_code_are_what_its_store_finds(tmp_path: Path, name: str) -> None:
    chance = np.random.default_rng(3)
    words = [
        "a",
        "cat",
        "dog",
        "end",
        "of",
        "the",
        "day",
        "one",
        "two",
        "red",
        "sat",
        "on",
        "mat",
        "10",
    ]
    texts = sorted({" ".join(chance.choice(words, 5)) for _ in range(120)})
    asked = [text.rsplit(" ", 1)[0] for text in texts[:40]]
    bundle = keep_codes_as(copy_bundle(tmp_path / "bundle"), packing(name, 16))
    data = Retrieval("own", texts, asked, [{row: 1.0} for row in range(40)], None, "made")
    with Encoder.open(bundle) as encoder:
        subject = open_bundle(encoder, None)
        found = evaluate(
            subject, data, SetVectors.of(subject, data, Cache(None, quiet=True)), (16,)
        )
    kind = packing(name, 16).kind
    (row,) = [one for one in found.rows if (one.kind, one.stage) == (kind, "alone")]
    with Index.open(tmp_path / "s.db", bundle) as index:
        index.put([Document(f"{n:03}", text) for n, text in enumerate(texts)])
        best = [[int(hit.id) for hit in index.search(text, k=100, exact=True)] for text in asked]
    expected = judge(np.array([(ids + [-1] * 200)[:200] for ids in best]), data.relevance or [])
    assert row.mrr_at_10 == pytest.approx(expected.mrr_at_10.mean(), abs=1e-3)
    assert row.ndcg_at_10 == pytest.approx(expected.ndcg_at_10.mean(), abs=1e-3)
    assert row.code_bytes == packing(name, 16).bytes(16)


def test_vectors_are_kept_by_model_and_text(tmp_path: Path) -> None:
    asked: list[str] = []

    def encode(texts: list[str]) -> list[Any]:
        asked.extend(texts)
        return [np.array([[len(text), 1]], np.float32) for text in texts]

    cache = Cache(tmp_path, quiet=True)
    texts = ["one", "three", "one"]
    first = cache.vectors("m", 2, texts, encode, label="")
    assert first[:, 0].tolist() == [3, 5, 3]
    assert asked == ["one", "three"]
    again = cache.vectors("m", 2, [*texts, "seven"], encode, label="")
    assert again[:, 0].tolist() == [3, 5, 3, 5]
    assert asked == ["one", "three", "seven"]
    cache.vectors("another", 2, ["one"], encode, label="")
    assert asked[-1] == "one"
    (tmp_path / "vectors.db").write_bytes(b"no database" * 100)
    with pytest.raises(UsageError, match="--no-cache"):
        cache.vectors("m", 2, texts, encode, label="")


def test_advice_is_the_smallest_that_is_good_enough(
    made: tuple[Subject, Retrieval, SetVectors], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, data, vectors = made
    monkeypatch.setattr(SetVectors, "of", classmethod(lambda *_: vectors))
    question = Question(tolerance=0.1, documents=DOCUMENTS, corpus=(Path("notes"),))
    advice = advise(subject, question, [data], dims=(32, WIDTH), cache=Cache(None), quiet=True)

    def ask(**changes: Any) -> Advice:
        return decide(subject, replace(question, **changes), advice.choices, advice.sets)

    assert advice.alone is not None
    assert advice.alone.chosen.low >= 0.9
    assert advice.alone.confirmed.ratio >= 0.9
    smaller = [c for c in advice.choices if c.cost.code_bytes < advice.alone.cost.code_bytes]
    assert smaller
    assert not [c for c in smaller if not c.rerank and c.within(0.1)]
    command = advice.command(advice.alone)
    assert command.startswith("edge-mrl export owner/made --dim ")
    fitted = advice.alone.head not in ("prefix", "random")
    assert ("--corpus notes" in command) == fitted  # else no text is needed
    assert f"--head {advice.alone.head}" in command
    # A rotation brings the strong directions to the front, where a cut has only weak ones.
    cut = evaluate(subject, data, vectors, (32,), kinds=("int8",)).rows[0]
    fitted = next(
        r for r in advice.sets[0].rows if (r.dim, r.kind, r.stage) == (32, "int8", "alone")
    )
    assert fitted.ndcg_at_10 > cut.ndcg_at_10
    none = ask(budget=100)
    assert none.found is None
    assert none.nearest()
    assert "nothing that was measured" in none.text()
    # Nothing is said of a million documents by a shortlist that is a large part of these.
    many = ask(documents=1_000_000)
    assert many.reranked is None
    assert "nearly a search by full vectors" in many.text()


def test_costs_are_those_of_the_stores_layout() -> None:
    int8, bits = (
        cost(128, kind, width=384, documents=1_000_000, seconds_per_row=1e-9)
        for kind in ("int8", "1bit")
    )
    # In the database a code; in the file its bits, check and key, and beside int8's bits the code.
    assert int8.storage_bytes == pytest.approx(1e6 * (128 + 16 + 8 + 128), rel=0.01)
    assert bits.storage_bytes == pytest.approx(1e6 * (16 + 16 + 8), rel=0.02)
    assert int8.search_s == pytest.approx(0.001)
    assert int8.push_bytes > 2 * 384
    assert 128 < int8.pull_bytes < 256
    assert int8.pull_bytes - bits.pull_bytes == 128 - 16  # a server sends what a store keeps


def test_funnel_is_tuned_until_it_finds_what_an_exact_search_finds() -> None:
    chance = np.random.default_rng(2)
    centres = chance.standard_normal((60, 128), dtype=np.float32)
    vectors = centres[chance.integers(0, 60, 9_000)]
    vectors = vectors + chance.standard_normal(vectors.shape, dtype=np.float32)
    found = tuned_funnel(code_table(quantize(normalize(vectors))), quiet=True)
    assert found.funnel is not None
    assert found.recall >= 0.99
    assert found.funnel.shortlist < 9_000 / 4
    assert tuned_funnel(code_table(quantize(normalize(vectors[:500])))).funnel is None
    # Bits of codes without any structure find too little: then all codes are scored.
    chaos = quantize(normalize(chance.standard_normal((20_100, 64), dtype=np.float32)))
    assert str(tuned_funnel(code_table(chaos), quiet=True).funnel) == "64x8"


def test_store_remembers_its_tuned_funnel_or_that_it_needs_none(tmp_path: Path) -> None:
    corpus(tmp_path / "a.jsonl", "the cat of house {0}")
    store = tmp_path / "s.db"
    good("index", tmp_path / "a.jsonl", "--bundle", TINY, "--store", store, "--quiet")
    assert tune(store, quiet=True).as_json() == {
        "funnel": None,
        "recall": 1.0,
        "rows": 40,
        "queries": 0,
    }
    with pytest.raises(UsageError, match="no store"):
        tune(tmp_path / "nothing.db")


def test_commands_write_tables_json_plots_and_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Any
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = corpus(
        tmp_path / "a.jsonl",
        "a cat {0} sat on the mat and the dog. then {0} to the end of the day",
        240,
    )
    out = tmp_path / "out"
    done = json.loads(good("eval", TINY, "--corpus", text, "--json", "-o", out).stdout)
    assert done == json.loads((out / "eval.json").read_text("utf-8"))
    assert done["sets"][0]["documents"] == 240
    assert {row["dim"] for row in done["sets"][0]["rows"]} == {16, 32}
    assert (tmp_path / "cache" / "edge-mrl" / "vectors.db").is_file()
    advice = run(
        "advise", TINY, "--corpus", text, "--documents", 240, "--budget", "1B", "--json", "-o", out
    )
    assert advice.returncode == 1, advice.stderr.decode()
    assert json.loads(advice.stdout)["nearest"]
    assert (out / "advice.svg").read_text("utf-8").startswith("<svg ")
    for name in ("eval", "advice"):
        look(browser, out / f"{name}.html")
    shown = good("eval", TINY, "--corpus", text, "--dims", "16").stdout.decode()
    assert "16 int8" in shown
    assert "rerank 200" in shown


def test_commands_refuse_what_they_cannot_measure(tmp_path: Path) -> None:
    for arguments, message in (
        (("eval", TINY), "nothing to measure on"),
        (("advise", TINY), "nothing to measure on"),
        (("advise", TINY, "--corpus", "x", "--budget", "much"), "is not a size"),
        (("eval", TINY, "--data", tmp_path), "expected BEIR's layout"),
    ):
        refused = run(*arguments)
        assert refused.returncode == 2, refused.stderr
        assert message in refused.stderr.decode()
