"""Benchmarks of a bundle and a store on this machine, with the spread of each figure.

Every round starts fresh processes, and in a round each step runs once. So a slow moment of the machine
shows as spread in all figures, and not as a change in one of them.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mrl.bundle import check_files, read_manifest
from edge_mrl.diagnose import probe
from edge_mrl.diagnose.samples import Sample
from edge_mrl.errors import FormatError, UsageError
from edge_mrl.machine import facts
from edge_mrl.native import kernel_version

if TYPE_CHECKING:
    from edge_mrl.store import Key

__all__ = [
    "ROUNDS",
    "STEPS",
    "Change",
    "Figure",
    "Report",
    "Setup",
    "compare",
    "differences",
    "measure",
    "parse_report",
]

FORMAT = "edge-mrl-measurements"
VERSION = 1
#: Fresh processes for each figure: the fewest whose least and greatest value are meaningful.
ROUNDS = 5
#: Steps of each round (``edge_mrl.diagnose.probe``), in this order, after one timed start.
STEPS = ("query", "documents", "search")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What to measure.

    Attributes:
        bundle: The bundle's folder.
        store: A store to search; None for a temporary store of random codes.
        rows: Passages of the temporary store.
        threads: Threads for embedding; None for one per core.
        seconds: Time for each step, over all rounds. Every round measures at least once.
        low_memory: Embed with the smallest memory.
        key: Gives the key of ``store``, if that is encrypted.
    """

    bundle: Path
    store: Path | None = None
    rows: int = 100_000
    threads: int | None = None
    seconds: float = 10.0
    low_memory: bool = False
    key: Key | None = None

    def __post_init__(self) -> None:
        least = {"rows": (self.rows, 1), "threads": (self.threads, 1), "seconds": (self.seconds, 0)}
        for name, (value, lowest) in least.items():
            if value is not None and not (value >= lowest and math.isfinite(value)):
                raise UsageError(f"{name} is {value}, expected at least {lowest}")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity. Each round gives one value.

    Attributes:
        unit: "ms", "documents/s" or "MB" (1,000,000 bytes).
        value: The median of the rounds.
        low: The least of the rounds.
        high: The greatest of the rounds.
        samples: Number of single measurements in all rounds.
    """

    unit: str
    value: float
    low: float
    high: float
    samples: int

    @property
    def more_is_better(self) -> bool:
        """Whether a greater value is better."""
        return self.unit.endswith("/s")


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a benchmark, which can be kept in a file.

    Attributes:
        machine: See ``edge_mrl.machine.facts.describe``; with "load", the load at the start.
        bundle: Name, space, code, precision and size of the bundle.
        settings: The settings, and the texts that were used.
        figures: The figures by name.
    """

    machine: dict[str, Any]
    bundle: dict[str, Any]
    settings: dict[str, Any]
    figures: dict[str, Figure]

    def as_json(self) -> dict[str, Any]:
        """The report as a JSON object, which ``parse_report`` reads."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Change:
    """A figure of two reports.

    Attributes:
        name: The figure's name.
        unit: Its unit.
        before: Its value in the earlier report.
        now: Its value in the later report.
        ratio: now / before; None if before is 0.
        verdict: "better" or "worse" if the ranges of the rounds do not overlap, otherwise "same".
        loss_percent: How much worse it is, in percent of the earlier value; 0 unless "worse".
    """

    name: str
    unit: str
    before: float
    now: float
    ratio: float | None
    verdict: str
    loss_percent: float


def measure(
    setup: Setup, sample: Sample, *, advance: Callable[[str], None] = lambda _: None
) -> Report:
    """Measure a bundle, and searches in a store.

    Args:
        setup: What to measure.
        sample: The texts to measure with.
        advance: Called before each step with its name.

    Raises:
        UsageError: The bundle or the store does not exist.
        BundleError: The bundle is damaged, or cannot be opened.
        StoreError: The store cannot be used; BindingError if it belongs to another bundle.
        StepError: A measuring process died.
    """
    folder = setup.bundle.resolve()
    manifest = read_manifest(folder)
    check_files(folder, manifest, hashes=False)
    machine = _machine()
    with ExitStack() as stack:
        store = setup.store
        if store is None:
            advance(f"making a store of {setup.rows:,} random codes")
            store = stack.enter_context(_temporary_store(folder, setup.rows))
        rounds, passages = _run_rounds(setup, sample, store, advance)
    return Report(
        machine=machine,
        bundle={
            "name": manifest.name,
            "space_id": manifest.space_id,
            "code_id": manifest.code_id,
            "dim": manifest.dim,
            "full_dim": manifest.full_dim,
            "weights": manifest.precision.weights,
            "size_bytes": manifest.size_bytes,
        },
        settings={
            "threads": setup.threads,
            "low_memory": setup.low_memory,
            "seconds": setup.seconds,
            "rounds": ROUNDS,
            "texts": sample.name,
            "texts_id": sample.digest,
            "documents": len(sample.documents),
            "document_words": round(sample.document_words, 1),
            "queries": len(sample.queries),
            "query_words": round(sample.query_words, 1),
            "store": "random codes" if setup.store is None else setup.store.name,
            "passages": passages,
        },
        figures={name: _figure(name, values) for name, values in rounds.items() if values},
    )


def _machine() -> dict[str, Any]:
    machine = {**facts.describe(), "load": facts.load()}
    if (kernels := kernel_version()) is not None:
        machine["versions"] = {**machine["versions"], "kernels": kernels}
    return machine


def _run_rounds(
    setup: Setup,
    sample: Sample,
    store: Path,
    advance: Callable[[str], None],
) -> tuple[dict[str, list[list[float]]], int]:
    """Run all rounds.

    Returns:
        For each figure, the samples of each round; and the number of passages in the store.
    """
    job = {
        "bundle": str(setup.bundle.resolve()),
        "store": str(store.resolve()),
        "threads": setup.threads,
        "low_memory": setup.low_memory,
        "seconds": setup.seconds / ROUNDS,
        "queries": sample.queries,
        "documents": sample.documents,
        **probe.job_key(setup.key),
    }

    def start() -> float:
        return probe.time_first_embedding(
            setup.bundle.resolve(), threads=setup.threads, low_memory=setup.low_memory
        )

    advance("starting once, so that the files are in the page cache")
    start()
    rounds: dict[str, list[list[float]]] = {}
    passages = 0
    for number in range(1, ROUNDS + 1):
        note = f"round {number} of {ROUNDS}"
        advance(f"{note}: start")
        rounds.setdefault("start", []).append([start()])
        for step in STEPS:
            advance(f"{note}: {step}")
            answer = probe.run_step(step, job)
            passages = answer.get("passages", passages)
            for name, values in _values(step, answer):
                rounds.setdefault(name, []).append(values)
    return rounds, passages


def _values(step: str, answer: dict[str, Any]) -> Iterator[tuple[str, list[float]]]:
    """Names and samples of the figures that one process measured."""
    if step == "documents":
        yield "documents", answer["per_s"]
    elif step == "query":
        yield "query_p50", answer["ms"]
        yield "query_p95", answer["ms"]
    else:
        for kind, times in (("vector", answer["vector_ms"]), ("words", answer["text_ms"])):
            yield f"search_{kind}_p50", times
            yield f"search_{kind}_p95", times
    if answer["peak_rss"] is not None:
        yield f"memory_{step}", [answer["peak_rss"] / 1e6]


def _figure(name: str, rounds: Sequence[Sequence[float]]) -> Figure:
    unit = "documents/s" if name == "documents" else "MB" if name.startswith("memory") else "ms"
    share = 0.95 if name.endswith("p95") else 0.5
    values = [_percentile(values, share) for values in rounds]
    number = sum(map(len, rounds))
    return Figure(
        unit, _short(statistics.median(values)), _short(min(values)), _short(max(values)), number
    )


def _short(value: float) -> float:
    """The value with five digits; more would be noise."""
    return float(f"{value:.5g}")


def _percentile(values: Sequence[float], share: float) -> float:
    """The least value that is not below this share of the values; for 0.5, the usual median."""
    if share == 0.5:
        return statistics.median(values)
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@contextmanager
def _temporary_store(bundle: Path, rows: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="edge-mrl-bench-") as folder:
        store = Path(folder) / "random.db"
        probe.run_step("fill", {"bundle": str(bundle), "store": str(store), "rows": rows})
        yield store


def parse_report(data: bytes, name: str) -> Report:
    """Read a report that was kept in a file.

    Args:
        data: The file's bytes.
        name: The file's name, for messages.

    Raises:
        FormatError: The bytes are not a report, or the report has another version.
    """
    try:
        parsed = json.loads(data)
        if (parsed["format"], parsed["version"]) != (FORMAT, VERSION):
            raise FormatError(
                f"{name}: format {parsed['format']!r}, version {parsed['version']!r}; expected "
                f"{FORMAT!r}, version {VERSION}: measure again"
            )
        figures = {key: _parse_figure(value) for key, value in parsed["figures"].items()}
        machine_, bundle, settings = (
            dict(parsed[key].items()) for key in ("machine", "bundle", "settings")
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(
            f"{name} is not a result of `edge-mrl bench --output` ({error!r})"
        ) from error
    return Report(machine_, bundle, settings, figures)


def _parse_figure(value: dict[str, Any]) -> Figure:
    middle, low, high = (float(value[key]) for key in ("value", "low", "high"))
    if not all(map(math.isfinite, (middle, low, high))):
        raise ValueError("a figure is not a finite number")
    return Figure(str(value["unit"]), middle, low, high, int(value["samples"]))


def compare(before: Report, now: Report) -> list[Change]:
    """Compare the figures that both reports have, in the order of the later one."""
    return [
        _change(name, before.figures[name], figure)
        for name, figure in now.figures.items()
        if name in before.figures and before.figures[name].unit == figure.unit
    ]


def _change(name: str, before: Figure, now: Figure) -> Change:
    higher, lower = now.low > before.high, now.high < before.low
    better = higher if now.more_is_better else lower
    worse = lower if now.more_is_better else higher
    ratio = now.value / before.value if before.value else None
    loss = abs(ratio - 1) * 100 if worse and ratio is not None else 0.0
    verdict = "better" if better else "worse" if worse else "same"
    return Change(name, now.unit, before.value, now.value, ratio, verdict, loss)


def differences(before: Report, now: Report) -> list[str]:
    """What else differs between two reports and may explain a change, one sentence each."""
    watched = (
        ("CPU", before.machine, now.machine, "cpu"),
        ("cores", before.machine, now.machine, "cores"),
        ("Python", before.machine, now.machine, "python"),
        ("versions", before.machine, now.machine, "versions"),
        ("embedding space", before.bundle, now.bundle, "space_id"),
        ("code", before.bundle, now.bundle, "code_id"),
        ("weights", before.bundle, now.bundle, "weights"),
        ("threads", before.settings, now.settings, "threads"),
        ("low memory", before.settings, now.settings, "low_memory"),
        ("texts", before.settings, now.settings, "texts_id"),
        ("passages in the store", before.settings, now.settings, "passages"),
    )
    return [
        f"{what}: {_shown(old.get(key))} before, {_shown(new.get(key))} now"
        for what, old, new, key in watched
        if old.get(key) != new.get(key)
    ]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    if isinstance(value, str) and len(value) == 64:
        return value[:12]
    return "the default" if value is None else str(value)
