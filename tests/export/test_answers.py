"""What ``eval`` and ``advise`` say first, and their tables and charts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge_mrl.codes.packing import Packing
from edge_mrl_export.quality.advice import Question, decide
from edge_mrl_export.quality.assessment import Assessment
from edge_mrl_export.quality.choices import Choice, measure_choices
from edge_mrl_export.quality.coding import Coding
from edge_mrl_export.quality.costs import cost
from edge_mrl_export.quality.evaluation import KINDS, WIDTHS, Evaluation, Row
from edge_mrl_export.quality.figures import columns, kept_panels, kept_share
from edge_mrl_export.quality.fitting import Candidate
from edge_mrl_export.quality.metrics import Interval
from edge_mrl_export.quality.subject import FullModel, Subject

MODEL = FullModel("fp32 source", "key", 64, lambda *_: iter(()))
BUNDLE = FullModel("bundle", "other", 64, lambda *_: iter(()), 32)
#: Share kept by the code alone, by dimensions and kind.
KEPT = {(16, "int8"): 0.9, (32, "int8"): 0.985, (64, "int8"): 1.0, (32, "int4"): 0.975}
QUERIES = 40


def row(dim: int, kind: str, stage: str, ratio: float) -> Row:
    size = {"int8": dim, "int4": dim // 2, "float32": 4 * dim}[kind]
    kept = Interval(ratio, round(ratio - 0.01, 4), round(ratio + 0.01, 4))
    return Row(dim, kind, stage, size, ratio / 2, 0.9, 0.8, 0.7, kept, np.full(QUERIES, ratio / 2))


def evaluation(documents: int = 20_000) -> Evaluation:
    rows = []
    for (dim, kind), ratio in KEPT.items():
        rows.append(row(dim, kind, "alone", ratio))
        rows.append(row(dim, kind, "funnel", ratio - 0.02))
        rows += [row(dim, kind, f"rerank {width}", 0.999) for width in WIDTHS]
    base = {"ndcg_at_10": 0.5, "recall_at_100": 0.9, "mrr_at_10": 0.6}
    return Evaluation(
        name="notes",
        asked="titles",
        judged_by="judgements",
        documents=documents,
        queries=QUERIES,
        base=base,
        base_by_query=np.full(QUERIES, 0.5),
        full=None,
        rows=rows,
    )


def subject(**changes: Any) -> Subject:
    return Subject(**{"name": "m", "model": MODEL, "base": MODEL, "command": "owner/m", **changes})


def test_eval_opens_with_what_the_bundles_own_code_keeps() -> None:
    own = subject(model=BUNDLE, dim=32, packing=Packing("int8"))
    text = Assessment(own, [evaluation()], []).text()
    first = text.splitlines()[2]
    assert "this bundle's code (32 int8, 32 bytes a passage) keeps 98.5% (97.5% to 99.5%)" in first
    assert "99.9% where full vectors rerank its best 50" in first
    assert text.index(first) < text.index("nDCG@10   R@100")
    page = Assessment(own, [evaluation()], []).html()
    assert page.index("this bundle&#x27;s code") < page.index("<svg")


def test_eval_of_a_model_opens_with_the_smallest_code_that_keeps_enough() -> None:
    (answer,) = Assessment(subject(), [evaluation()], []).answers()
    # 32 int4 is smaller, but its interval goes below 97 %.
    assert "the smallest code that keeps 97% (32 int8, 32 bytes a passage)" in answer


def test_eval_says_where_no_code_keeps_enough() -> None:
    weak = evaluation()
    weak.rows[:] = [row(16, "int8", "alone", 0.5), row(16, "int8", "rerank 50", 0.9)]
    (answer,) = Assessment(subject(), [weak], []).answers()
    assert (
        answer
        == "notes: no code that was measured keeps 97% of the fp32 source's nDCG@10 by itself."
    )


@pytest.mark.parametrize(
    ("dim", "said"), [(None, "the 64 int8 code 0.7000"), (32, "the 32 int8 code 0.6000")]
)
def test_eval_of_pairs_opens_with_the_codes_correlation(dim: int | None, said: str) -> None:
    rows = [
        {"dim": d, "kind": k, "spearman": d / 160 + 0.3 + (0.1 if d == 32 else 0)}
        for d in (32, 64)
        for k in KINDS
    ]
    pairs = {"name": "sts", "pairs": 9, "base": 0.8, "full": None, "rows": rows}
    (answer,) = Assessment(subject(dim=dim), [], [pairs]).answers()
    assert answer.startswith(
        "sts: Spearman's correlation with people's scores: full fp32 vectors 0.8000"
    )
    assert said in answer


def choices() -> list[Choice]:
    made = []
    for (dim, kind), ratio in KEPT.items():
        price = cost(dim, kind, width=64, documents=20_000, seconds_per_row=1e-9)
        for rerank, kept in ((0, ratio), (50, 0.999)):
            interval = Interval(kept, kept - 0.01, kept + 0.01)
            made.append(Choice(dim, kind, rerank, interval, interval, price))
    return sorted(made, key=lambda c: (c.cost.code_bytes, c.rerank, c.dim))


def test_advice_opens_with_the_code_and_its_command() -> None:
    question = Question(tolerance=0.03, documents=20_000)
    advice = decide(subject(), question, choices(), [evaluation()])
    assert advice.alone is not None
    assert (advice.alone.dim, advice.alone.kind) == (32, "int8")
    lines = advice.text().splitlines()
    assert lines[2].startswith(
        "by itself, without a server: 32 int8, prefix (32 bytes a passage) keeps 98.5%"
    )
    assert lines[3] == "  edge-mrl export owner/m --dim 32 --head prefix -o m-32-int8"
    assert lines[4].startswith(
        "with full vectors, from a server or kept on the device: 16 int8, rerank 50"
    )
    page = advice.html()
    assert page.index("by itself, without a server") < page.index("<svg")


def test_advice_that_finds_nothing_names_the_nearest_first() -> None:
    advice = decide(subject(), Question(tolerance=0.03, budget=1), choices(), [evaluation()])
    assert advice.found is None
    assert (
        advice.text()
        .splitlines()[2]
        .startswith("nothing that was measured is good enough and fits")
    )


def test_advice_takes_no_long_shortlist_from_a_small_set() -> None:
    question = Question(tolerance=0.03, documents=1_000_000)
    advice = decide(subject(), question, choices(), [evaluation(documents=1_000)])
    assert advice.reranked is None  # 50 of 1,000 say nothing about 50 of a million
    assert any("not recommended" in note for note in advice.notes)


def test_choices_are_all_codes_from_the_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_mrl_export.quality.choices.search_seconds", lambda *_: 1e-9)
    made = {(dim, kind): Candidate(dim, kind, "linear", Coding(None)) for dim, kind in KEPT}
    found = measure_choices([evaluation()], made, width=64, documents=20_000, quiet=True)
    assert {c.how for c in found} == {"linear head"}
    sizes = [choice.cost.code_bytes for choice in found]
    assert sizes == sorted(sizes)
    assert len(found) == len(KEPT) * (1 + len(WIDTHS))
    kept = {(c.dim, c.kind): c.confirmed.ratio for c in found if not c.rerank}
    assert kept == pytest.approx(KEPT)


def test_tables_have_columns_of_one_width() -> None:
    lines = columns(["code", "bytes"], [["128 int8", "128"], ["16 int8", "1,536"]])
    assert lines == ["code      bytes", "128 int8    128", "16 int8   1,536"]


def test_share_is_shown_with_its_interval() -> None:
    assert kept_share(Interval(0.978, 0.945, 1.013)) == "97.8% (94.5% to 101.3%)"


def test_charts_reach_below_the_least_and_above_the_most() -> None:
    alone, reranked = kept_panels(evaluation().rows)
    assert [line.name for line in alone.lines] == ["int8", "int4"]
    assert alone.lines[0].points == [(16.0, 90.0), (32.0, 98.5), (64.0, 100.0)]
    assert alone.y.ticks[0] <= 90
    assert alone.y.ticks[-1] >= 100
    assert reranked.title == "full vectors rerank 50"
