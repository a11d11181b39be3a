"""The measurements of bench/encode/compare.py: cold starts, rounds over all engines in turn, memory.

One process works at a time. A round goes over the engines in an order shuffled by a fixed seed, so that a
slow minute of the machine meets all of them.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.encode.engines import ENGINES, Engine
from bench.encode.models import CACHE, OFFLINE
from bench.support.children import Child, ChildError, module
from bench.support.environments import Environment
from bench.support.texts import Texts

__all__ = ["Job", "Lab", "RoundResult"]

#: Without an answer for so long, a process has hung: a round takes the slowest engine half a minute.
TIMEOUT_S = 900.0
#: The same where a hundred thousand documents are one request.
LONG_S = 24 * 3600.0
SEED = 7
#: Documents that each batch size is tried with before the rounds with the best, and how often: in turn,
#: the quickest counts, as a slow moment would hide the best.
TRIED, TRIALS = 48, 2
#: Documents that are also encoded each alone.
ALONE = 100
#: Rounds with the best batch size use this share of a round's documents.
BEST_SHARE = 0.5
#: Texts that are encoded before anything is timed.
WARM_UP = 8
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
)
#: Seconds of the integer product in each round.
PEAK_S = 0.5
FIRST_TEXT = "how do I back up my photos"


@dataclass(frozen=True, slots=True)
class RoundResult:
    """One engine in one round.

    Attributes:
        numbers: The documents encoded.
        seconds: For all of them.
        cpu_per_wall: CPU seconds for each second of clock.
        queries: Of the round, by number; [] where none were asked.
        latencies_ms: Of each of these queries.
    """

    numbers: Sequence[int]
    seconds: float
    cpu_per_wall: float
    queries: Sequence[int] = ()
    latencies_ms: Sequence[float] = ()


@dataclass(slots=True)
class Job:
    """An engine, where it runs, and what was found, as it comes in.

    Attributes:
        name: A key of ENGINES.
        environment: Where it runs.
        path: What it opens.
        starts: Cold starts: seconds by part, and of the whole process.
        default: Rounds in the engine's own way.
        best: Rounds with its best batch size.
        tried: Documents a second by batch size.
        best_batch: The quickest of these; None if it takes none.
        memory: Most MB after queries alone, and after the documents too.
        problem: Why it has no results, or not all.
    """

    name: str
    environment: Environment
    path: Path
    starts: list[dict[str, float]] = field(default_factory=list)
    default: list[RoundResult] = field(default_factory=list)
    best: list[RoundResult] = field(default_factory=list)
    tried: dict[int, float] = field(default_factory=dict)
    best_batch: int | None = None
    memory: dict[str, float] = field(default_factory=dict)
    problem: str | None = None

    @property
    def engine(self) -> type[Engine]:
        """Its class."""
        return ENGINES[self.name]

    def vectors(self, number: int) -> Path:
        """File of a default round's vectors."""
        return self._folder / f"round-{number}.npy"

    @property
    def log(self) -> Path:
        """File of what its processes print."""
        return self._folder / "log.txt"

    @property
    def alone(self) -> Path:
        """File of the vectors of documents encoded each alone."""
        return self._folder / "alone.npy"

    @property
    def _folder(self) -> Path:
        folder = CACHE / "engines" / self.name.replace(" ", "-").replace(",", "")
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class Lab:
    """Measures jobs on the same texts.

    Args:
        texts: All that is encoded.
        rounds: How often each measurement is taken.
        threads: For each process.
        product: Interpreter and file of the integer product (bench/encode/peak.py); None leaves it out.

    Attributes:
        peaks: Billions of integer MAC a second, by round.
    """

    def __init__(
        self, texts: Texts, *, rounds: int, threads: int, product: tuple[Path, Path] | None
    ) -> None:
        self._texts, self._rounds, self._threads = texts, rounds, threads
        self._product = product
        self.peaks: list[float] = []

    def cold_starts(self, jobs: Sequence[Job]) -> None:
        """Fresh processes to the first vector; one before them brings the files into the page cache."""
        for number in range(-1, self._rounds):
            _say(f"cold starts, {number + 1} of {self._rounds}" if number >= 0 else "first starts")
            for job in _shuffled(jobs, number):
                with _reporting(job):
                    found = self._cold_start(job)
                    if number >= 0:
                        job.starts.append(found)

    def default_rounds(self, jobs: Sequence[Job]) -> None:
        """Queries one at a time, and documents in the engine's own way; memory after each of the two."""
        with self._children(jobs) as children:
            for number in range(self._rounds):
                _say(f"round {number + 1} of {self._rounds}")
                self._measure_peak()
                for job in _shuffled(jobs, number):
                    with _reporting(job):
                        self._default_round(job, children[job.name], number)
            for job in _able(jobs):
                with _reporting(job):
                    child = children[job.name]
                    job.memory["bulk_mb"] = child.ask("memory")["peak_mb"]
                    numbers = self._documents(0)[:ALONE]
                    child.ask("alone", numbers=numbers, save=str(job.alone))

    def best_rounds(self, jobs: Sequence[Job]) -> None:
        """Documents in batches of the size that was quickest in a trial; the engine's own, without."""
        for job in _able(jobs):
            with _reporting(job):
                self._choose_batch(job)
        with self._children(jobs) as children:
            for number in range(self._rounds):
                _say(f"round {number + 1} of {self._rounds}, best batch sizes")
                self._measure_peak()
                numbers = self._documents(number)
                numbers = numbers[: max(1, round(len(numbers) * BEST_SHARE))]
                for job in _shuffled(jobs, self._rounds + number):
                    with _reporting(job):
                        child, batch = children[job.name], job.best_batch
                        found = child.ask("documents", numbers=numbers, batch=batch)
                        job.best.append(RoundResult(numbers, **found))

    def ratchet(self, job: Job, counts: Sequence[int]) -> list[dict[str, float]]:
        """Memory after so many documents in one process, and documents a second on the way there.

        Raises:
            ChildError: The engine failed.
        """
        points, done = [], 0
        with self._started(job, timeout_s=LONG_S) as child:
            for count in counts:
                _say(f"{job.name}: {count:,} documents")
                found = child.ask("many", count=count - done)
                rate = (count - done) / found.pop("seconds")
                points.append({"documents": count, "documents_per_s": rate, **found})
                done = count
        return points

    def vectors(self, job: Job) -> Path:
        """File of float32[n, D]: an engine's vectors of all documents; it need not be measured."""
        numbers = list(range(len(self._texts.documents)))
        with self._started(job) as child:
            child.ask("documents", numbers=numbers, save=str(job.alone))
        return job.alone

    def _cold_start(self, job: Job) -> dict[str, float]:
        start = time.perf_counter()
        with self._open(job) as child:
            inside: dict[str, float] = child.ask("start", text=FIRST_TEXT)
            answered = time.perf_counter() - start
        return {**inside, "answered_s": answered, "process_s": time.perf_counter() - start}

    def _default_round(self, job: Job, child: Child, number: int) -> None:
        queries = _part(len(self._texts.queries), number, self._rounds)
        asked = child.ask("queries", numbers=queries)
        if number == 0:
            job.memory["queries_mb"] = child.ask("memory")["peak_mb"]
        numbers = self._documents(number)
        found = child.ask("documents", numbers=numbers, save=str(job.vectors(number)))
        latencies = asked["latencies_ms"]
        job.default.append(RoundResult(numbers, **found, queries=queries, latencies_ms=latencies))

    def _choose_batch(self, job: Job) -> None:
        """Try each size on some documents of all lengths."""
        if not job.engine.batches:
            return
        _say(f"batch sizes of {job.name}")
        numbers = list(range(min(TRIED, len(self._texts.documents))))
        with self._started(job) as child:
            child.ask("documents", numbers=numbers[:WARM_UP])
            for size in job.engine.batches * TRIALS:
                seconds = child.ask("documents", numbers=numbers, batch=size)["seconds"]
                job.tried[size] = max(job.tried.get(size, 0.0), len(numbers) / seconds)
        job.best_batch = max(job.tried, key=job.tried.__getitem__)

    def _documents(self, number: int) -> list[int]:
        return _part(len(self._texts.documents), number, self._rounds)

    @contextmanager
    def _children(self, jobs: Sequence[Job]) -> Iterator[dict[str, Child]]:
        """Open and warm processes of the engines that work, by name."""
        with ExitStack() as stack:
            children = {}
            for job in _able(jobs):
                with _reporting(job):
                    children[job.name] = stack.enter_context(self._started(job))
            yield children

    @contextmanager
    def _started(self, job: Job, *, timeout_s: float = TIMEOUT_S) -> Iterator[Child]:
        """A process that has its texts and has answered some queries."""
        with self._open(job, timeout_s=timeout_s) as child:
            child.ask("start", text=FIRST_TEXT)
            texts = self._texts
            child.ask("texts", documents=texts.documents, queries=texts.queries)
            child.ask("queries", numbers=list(range(min(WARM_UP, len(texts.queries)))))
            yield child

    def _open(self, job: Job, *, timeout_s: float = TIMEOUT_S) -> Child:
        if job.environment.problem is not None:
            raise ChildError(job.environment.problem)
        arguments = [job.name, str(job.path), str(self._threads)]
        return Child(
            [str(job.environment.python), *module("bench.encode.worker"), *arguments],
            job.log,
            timeout_s=timeout_s,
            environment=_variables(self._threads),
        )

    def _measure_peak(self) -> None:
        if self._product is None:
            return
        python, model = self._product
        command = [str(python), *module("bench.encode.peak"), str(model), str(self._threads)]
        log, variables = CACHE / "peak.log", _variables(self._threads)
        with Child(command, log, timeout_s=TIMEOUT_S, environment=variables) as child:
            self.peaks.append(child.ask("measure", seconds=PEAK_S))


@contextmanager
def _reporting(job: Job) -> Iterator[None]:
    """Note an engine's failure, and go on with the others."""
    try:
        yield
    except ChildError as error:
        job.problem = str(error)
        _say(f"  {job.name} failed: {error}")


def _able(jobs: Sequence[Job]) -> list[Job]:
    return [job for job in jobs if job.problem is None]


def _shuffled(jobs: Sequence[Job], number: int) -> list[Job]:
    """Those that work, in an order that depends on the round alone."""
    order = _able(jobs)
    random.Random(SEED + number).shuffle(order)
    return order


def _part(count: int, number: int, parts: int) -> list[int]:
    """The numbers below ``count`` that a round gets: all rounds together get each once."""
    return list(range(count * number // parts, count * (number + 1) // parts))


def _variables(threads: int) -> dict[str, str]:
    """Threads of every library, no network, and nothing imported but what is installed."""
    return {**OFFLINE, **dict.fromkeys(THREAD_VARIABLES, str(threads)), "PYTHONPATH": ""}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
