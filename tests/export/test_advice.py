"""``advise``: the right code where it is known by construction, and nothing that choosing has seen."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_mrl.codes.packing import INT8, normalize
from edge_mrl.errors import UsageError
from edge_mrl_export.quality import advice as advice_module
from edge_mrl_export.quality import candidates as candidates_module
from edge_mrl_export.quality.advice import Advice, Question, advise, decide
from edge_mrl_export.quality.cache import Cache
from edge_mrl_export.quality.candidates import Tried, best_candidates, try_candidates
from edge_mrl_export.quality.coding import Coding
from edge_mrl_export.quality.evaluation import SetVectors
from edge_mrl_export.quality.figures import front, frontier_panels
from edge_mrl_export.quality.fitting import Candidate, Text, make_candidates
from edge_mrl_export.quality.split import halves, hold_out
from edge_mrl_export.quality.subject import Encoded, FullModel, Subject
from edge_mrl_export.texts import Retrieval
from tests.support.bundles import TINY
from tests.support.processes import run

pytestmark = pytest.mark.test
Float = NDArray[np.float32]
WIDTH, STRONG, PASSAGES, QUESTIONS = 48, 16, 500, 120


def made_subject(width: int = WIDTH, head: Float | None = None) -> Subject:
    model = FullModel("made", "key", width, lambda *_: iter(()))
    dim = None if head is None else head.shape[1]
    folder = None if head is None else Path("made-16")
    return Subject("made", model, model, head, dim=dim, command="owner/made", folder=folder)


def made_set(strength: Float, *, seed: int = 1) -> tuple[Retrieval, SetVectors]:
    """Passages, and questions near some of them: in weak directions, only noise can be seen."""
    chance = np.random.default_rng(seed)
    width = len(strength)
    full = normalize(chance.standard_normal((PASSAGES, width), dtype=np.float32) * strength)
    near = chance.standard_normal((QUESTIONS, width), dtype=np.float32) * np.float32(0.8)
    questions = normalize(full[:QUESTIONS] * 6 + near)
    texts = [f"passage {row}" for row in range(PASSAGES)]
    judged: list[dict[int, float]] = [{row: 1.0} for row in range(QUESTIONS)]
    data = Retrieval("made", texts, texts[:QUESTIONS], judged, None, "made")
    return data, SetVectors(Encoded(full), Encoded(questions), Encoded(full), Encoded(questions))


def advised(
    monkeypatch: pytest.MonkeyPatch,
    subject: Subject,
    data: Retrieval,
    vectors: SetVectors,
    *,
    documents: int = PASSAGES,
    dims: tuple[int, ...] = (STRONG,),
) -> Advice:
    """The advice on vectors that are given; nothing is timed."""
    given(monkeypatch, vectors)
    monkeypatch.setattr("edge_mrl_export.quality.choices.search_seconds", lambda *_: 1e-9)
    question = Question(tolerance=0.1, documents=documents, corpus=(Path("notes"),))
    return advise(subject, question, [data], dims=dims, cache=Cache(None), quiet=True)


def given(monkeypatch: pytest.MonkeyPatch, vectors: SetVectors) -> None:
    monkeypatch.setattr(SetVectors, "of", classmethod(lambda *_: vectors))


def where_strong(*, first: bool) -> Float:
    """Strengths of directions: only STRONG of them say anything, the first or the last."""
    strength = np.full(WIDTH, 0.01, np.float32)
    strength[slice(None, STRONG) if first else slice(-STRONG, None)] = 1.0
    return strength


def try_all(subject: Subject, data: Retrieval, vectors: SetVectors, dim: int) -> list[Tried]:
    """Every way to make codes of so many dimensions, tried, without what follows in ``advise``."""
    text = Text(data.documents, vectors.documents.full, judged=True)
    fitted = make_candidates(subject, text, (dim,), cache=Cache(None), quiet=True)
    return try_candidates(subject, fitted.candidates, [(data, vectors)], quiet=True)


def ways(tried: list[Tried], kind: str) -> dict[str, Tried]:
    return {t.candidate.how: t for t in tried if t.candidate.kind == kind}


@pytest.fixture(scope="module")
def last_say_all() -> Iterator[Advice]:
    """The advice where only the last dimensions say anything."""
    with pytest.MonkeyPatch.context() as patch:
        yield advised(patch, made_subject(), *made_set(where_strong(first=False)))


def test_prefix_is_taken_where_the_first_dimensions_say_all() -> None:
    tried = try_all(made_subject(), *made_set(where_strong(first=True)), STRONG)
    assert best_candidates(tried)[STRONG, "int8"].head == "prefix"
    # The simplest does not win everywhere: the fixed rotation mixes in what says nothing.
    by_way = ways(tried, "int8")
    assert by_way["fixed rotation"].chosen < by_way["prefix"].chosen - 0.05


def test_fitted_head_is_taken_where_the_last_dimensions_say_all(last_say_all: Advice) -> None:
    found = last_say_all
    assert found.alone is not None
    assert (found.alone.dim, found.alone.head) == (STRONG, "linear")
    assert "--head linear --corpus notes" in found.command(found.alone)
    by_way = ways(found.tried, "int8")
    assert by_way["prefix"].chosen < 0.5 < 0.9 < by_way["linear head"].reported
    text = found.text()
    assert "linear head" in text
    assert f"({found.alone.cost.code_bytes} bytes a passage)" in text
    straight = replace(found.alone, kind="2bit", turned=False)
    assert found.command(straight).split(" -o ")[0].endswith("--no-turn")
    plain = replace(found.alone, head="prefix")
    assert "--head prefix -o" in found.command(plain)  # no text is needed


def test_bundles_head_is_taken_where_it_does_as_well_as_any(last_say_all: Advice) -> None:
    head = np.eye(WIDTH, dtype=np.float32)[:, -STRONG:]
    subject = made_subject(head=head)
    tried = try_all(subject, *made_set(where_strong(first=False)), STRONG)
    assert best_candidates(tried)[STRONG, "int8"].head == "bundle"
    found = replace(last_say_all, subject=subject)
    same = next(c for c in found.choices if (c.dim, c.kind, c.rerank) == (STRONG, "int8", 0))
    same = replace(same, head="bundle")
    assert found.command(same) == "edge-mrl inspect made-16"  # nothing is to be made
    assert "--head made-16/head.npy" in found.command(replace(same, kind="2bit"))


def test_turned_codes_are_taken_where_few_directions_hold_most(last_say_all: Advice) -> None:
    # Four directions hold most: a bit for each direction says little, a bit for each mixture more.
    strength = np.full(WIDTH, 0.15, np.float32)
    strength[:4] = 1.0
    tried = try_all(made_subject(), *made_set(strength), WIDTH)
    by_way = ways(tried, "1bit")
    assert by_way["prefix, turned"].chosen > by_way["prefix"].chosen + 0.1
    best = best_candidates(tried)[WIDTH, "1bit"]
    assert best.turned or best.head == "random"
    turned = replace(last_say_all.choices[0], kind="1bit", head="prefix", turned=True)
    assert "--head prefix --corpus notes -o" in last_say_all.command(turned)


def noise(monkeypatch: pytest.MonkeyPatch, ways_to_make: int = 150) -> tuple[float, float]:
    """Ways that differ by luck alone keep 90 %; what the chosen way keeps, as chosen and as reported."""
    data, vectors = made_set(np.ones(WIDTH, np.float32))
    chance = np.random.default_rng(7)
    luck = iter(chance.normal(0.9, 0.4, (ways_to_make, QUESTIONS)))
    monkeypatch.setattr(candidates_module, "ndcg_alone", lambda *_, **__: next(luck))
    monkeypatch.setattr(
        candidates_module, "best_kind", lambda scores, _: max(scores, key=scores.get)
    )
    many = [Candidate(16, "int8", f"luck {i}", Coding(None)) for i in range(ways_to_make)]
    tried = try_candidates(made_subject(), many, [(data, vectors)], quiet=True)
    best = best_candidates(tried)[16, "int8"]
    way = next(t for t in tried if t.candidate is best)
    return way.chosen, way.reported


def test_luck_in_the_choice_flatters_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, reported = noise(monkeypatch)
    error = 0.4 / np.sqrt(QUESTIONS / 2)
    assert chosen > 0.9 + 2 * error  # the best of many by luck
    assert abs(reported - 0.9) < 2 * error


def test_choosing_on_what_is_reported_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = np.arange(QUESTIONS)
    monkeypatch.setattr(candidates_module, "halves", lambda _: (everything, everything))
    _, reported = noise(monkeypatch)
    assert reported > 0.9 + 2 * 0.4 / np.sqrt(QUESTIONS)  # what the test above forbids


def test_halves_share_no_question_and_leave_none_out() -> None:
    chosen, reported = halves(101)
    assert sorted([*chosen, *reported]) == list(range(101))
    assert abs(len(chosen) - len(reported)) <= 1


def unseen(monkeypatch: pytest.MonkeyPatch, *, sabotaged: bool = False) -> tuple[float, float]:
    """On text without any structure: what a fitted head keeps, and what the fixed rotation keeps."""
    width, passages = 192, 330
    chance = np.random.default_rng(3)
    full = normalize(chance.standard_normal((passages, width), dtype=np.float32))
    texts = [f"passage {row}" for row in range(passages)]
    own = list(range(passages))
    data = Retrieval("own", texts, texts, None, own, "passages", own)
    if sabotaged:
        everything = np.arange(passages)
        monkeypatch.setattr(advice_module, "hold_out", lambda d: (hold_out(d)[0], everything))
    rows = hold_out(data)[0].own
    side = Encoded(full[rows])
    given(monkeypatch, SetVectors(Encoded(full), side, Encoded(full), side))
    subject = made_subject(width)
    sets, text = advice_module.measured_on(subject, [data], Cache(None))
    fitted = make_candidates(subject, text, (32,), cache=Cache(None), quiet=True)
    some = [made for made in fitted.candidates if made.kind == "int8"]
    by_way = ways(try_candidates(subject, some, sets, quiet=True), "int8")
    return by_way["rotation head"].reported, by_way["fixed rotation"].reported


def test_head_is_not_measured_on_passages_that_it_was_fitted_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fitted, fixed = unseen(monkeypatch)
    # There is nothing to learn: on passages that it has not seen, a fitted head is no better.
    assert fitted < fixed + 0.06


def test_measuring_on_fitted_passages_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted, fixed = unseen(monkeypatch, sabotaged=True)
    assert fitted > fixed + 0.1  # what the test above forbids


def test_no_question_comes_from_a_fitted_passage() -> None:
    texts = [f"passage {row}" for row in range(300)]
    own = list(range(0, 300, 2))
    data = Retrieval("own", texts, [texts[i] for i in own], None, own, "passages", own)
    kept, fitted = hold_out(data)
    assert len(kept.queries) == 100
    assert kept.queries == [texts[i] for i in kept.own or []]
    assert kept.own == kept.origins
    assert not set(kept.origins or []) & set(fitted.tolist())
    assert len(fitted) == 200
    judged = replace(data, origins=None, relevance=[{0: 1.0}] * 150)
    assert hold_out(judged)[0] is judged
    assert len(hold_out(judged)[1]) == 300


def decided(found: Advice, **changes: Any) -> Advice:
    question = replace(found.question, **changes)
    return decide(found.subject, question, found.choices, found.sets, tried=found.tried)


def test_too_little_text_chooses_nothing_and_says_what_to_take(
    last_say_all: Advice, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = decided(last_say_all, documents=1_000_000)
    assert many.found is not None  # 500 passages are enough to choose by
    monkeypatch.setattr(advice_module, "FEWEST_PASSAGES", PASSAGES + 1)
    found = decided(last_say_all, documents=1_000_000)
    assert found.found is None
    said = found.verdict()
    assert "made has 500 passages, which say nothing about 1,000,000 (at least 501)" in said[0]
    assert f"take the usual code, {WIDTH} int4 ({WIDTH // 2} bytes a passage)" in said[0]
    assert said[1] == f"  edge-mrl export owner/made --dim {WIDTH} --code int4 -o made-{WIDTH}-int4"
    assert found.as_json()["usual"] == said[1].strip()
    # A store that will never hold more is measured whole.
    assert decided(last_say_all, documents=PASSAGES).found is not None
    monkeypatch.setattr(advice_module, "FEWEST_QUERIES", QUESTIONS + 1)
    assert "made gives 120 questions" in decided(last_say_all, documents=9).verdict()[0]


@pytest.mark.parametrize(
    ("passages", "heads", "turned"),
    [(99, {"prefix", "random"}, False), (100, {"linear"}, False), (200, {"linear"}, True)],
)
def test_heads_are_fitted_and_turned_where_an_export_would(
    passages: int, heads: set[str], turned: bool
) -> None:
    full = normalize(np.random.default_rng(0).standard_normal((passages, 32), dtype=np.float32))
    text = Text([f"passage {row}" for row in range(passages)], full, judged=True)
    subject = made_subject(32)
    fitted = make_candidates(subject, text, (8,), cache=Cache(None), quiet=True)
    assert heads <= {made.head for made in fitted.candidates}
    assert ("linear" in {made.head for made in fitted.candidates}) == (passages >= 100)
    assert any(made.turned for made in fitted.candidates) == turned
    assert {made.kind for made in fitted.candidates} == {"int8", "int4", "2bit", "1bit"}
    assert (f"{passages} passages are too few" in fitted.note) == (passages < 100)


def tried(dim: int, kind: str, head: str, chosen: float, reported: float) -> Tried:
    return Tried(Candidate(dim, kind, head, Coding(None, INT8)), chosen, reported)


def test_frontier_is_drawn_by_bytes_with_what_is_reported() -> None:
    some = [
        tried(16, "int8", "prefix", 0.8, 0.79),
        tried(32, "int4", "prefix", 0.9, 0.91),
        tried(32, "int8", "prefix", 0.95, 0.93),
        tried(32, "int8", "linear", 0.97, 0.96),
        tried(64, "int8", "prefix", 0.96, 0.99),
    ]
    # Chosen by the questions that choose: 64 int8 keeps less there than 32 int8 in half of its bytes.
    assert [t.chosen for t in front(some)] == [0.9, 0.97]
    by_bits, by_head = frontier_panels(some, 0.05)
    lines = {line.name: list(line.points) for line in by_bits.lines}
    assert lines["int8"] == [(16.0, 79.0), (32.0, 96.0), (64.0, 99.0)]
    assert lines["int4"] == [(16.0, 91.0)]
    assert lines["the frontier"] == [(16.0, 91.0), (32.0, 96.0)]
    assert lines["95 %"] == [(16.0, 95.0), (64.0, 95.0)]
    assert {line.name for line in by_head.lines} == {"prefix", "linear head", "95 %"}
    assert all(len(panel.lines) <= 6 for panel in (by_bits, by_head))


def test_a_handful_of_texts_names_the_usual_code_too(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"passage {row}" for row in range(12)]
    data = Retrieval("few", texts, texts, None, list(range(12)), "passages", list(range(12)))
    with pytest.raises(UsageError, match=r"few gives 4 queries.*--dim 48 --code int4"):
        advised(monkeypatch, made_subject(), data, made_set(where_strong(first=True))[1])


def test_picture_is_an_svg_and_is_refused_before_anything_is_measured(
    last_say_all: Advice, tmp_path: Path
) -> None:
    tree = ET.fromstring(last_say_all.plot())
    words = "".join(tree.itertext())
    assert "bytes a passage" in words
    assert "the frontier" in words
    for name, message in (("x.png", "ends in .svg"), ("no/x.svg", "no folder")):
        refused = run("advise", TINY, "--corpus", tmp_path, "--picture", tmp_path / name)
        assert refused.returncode == 2
        assert message in refused.stderr.decode()


def test_dimensions_that_the_model_lacks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="expected 1 to 48"):
        advised(monkeypatch, made_subject(), *made_set(where_strong(first=True)), dims=(99,))
