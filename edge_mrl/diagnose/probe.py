"""Steps that measure, each in a process of its own: ``python -m edge_mrl.diagnose.probe STEP``.

One step's memory and threads are not the next one's, and what kills a step does not kill who asked.
A job is a JSON object on standard input, the answer one on standard output.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mrl import errors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_mrl.encode import Encoder
    from edge_mrl.index import Index
    from edge_mrl.store import Binding, Store

__all__ = ["call", "first_embedding", "peak_rss"]

#: Calls before the clock starts: the first ones fault pages in and size the arenas.
WARM_UP = 3
#: Least number of samples, however short the time: a 95th percentile needs some.
LEAST = 20
#: Documents in one put of a store made to be searched, and the seed of its codes.
PUT, SEED = 4096, 1
K = 10


def call(step: str, job: dict[str, Any]) -> Any:
    """Run a step in a fresh process.

    Raises:
        EdgeMrlError: What the step raised, as the same class.
        StepError: The process ended in another way; the message says how.
    """
    command = [sys.executable, "-m", "edge_mrl.diagnose.probe", step]
    done = subprocess.run(  # noqa: S603 - this interpreter
        command, input=json.dumps(job), capture_output=True, text=True, check=False
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise errors.StepError(_ending(step, done.returncode, done.stderr)) from None
    if "error" in answer:
        kind = getattr(errors, answer["error"]["kind"], errors.EdgeMrlError)
        raise kind(answer["error"]["message"])
    return answer["answer"]


def first_embedding(bundle: Path, *, threads: int | None, low_memory: bool) -> float:
    """Milliseconds from the start of a fresh Python process to its first embedding.

    Raises:
        StepError: The process did not get that far.
    """
    code = (
        "from edge_mrl import Encoder\n"
        f"Encoder.open({str(bundle)!r}, threads={threads}, low_memory={low_memory})"
        ".encode(['how do I back up my photos?'], kind='query')\n"
        "print('done', flush=True)"
    )
    started = time.perf_counter()
    with subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        line = "" if process.stdout is None else process.stdout.readline()
        seconds = time.perf_counter() - started  # leaving the process is not part of it
        _, message = process.communicate()
    if line != "done\n":
        raise errors.StepError(_ending("first embedding", process.returncode, message))
    return seconds * 1000


def peak_rss() -> int | None:
    """Bytes of memory that this process has had at most, mapped files included; None if unknown."""
    try:
        # Unlike ru_maxrss, it does not count what the process that started this one had.
        for line in Path("/proc/self/status").read_text("ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def query(job: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of one query after the other; peak memory."""
    with _encoder(job) as encoder:
        times = _timed(lambda text: encoder.encode([text], kind="query"), job)
        return {"ms": times, "peak_rss": peak_rss()}


def documents(job: dict[str, Any]) -> dict[str, Any]:
    """Documents a second in passes over the same texts; peak memory."""
    texts = job["documents"]
    with _encoder(job) as encoder:
        encoder.encode(texts[:1])
        rates: list[float] = []
        deadline = time.perf_counter() + job["seconds"]
        while not rates or time.perf_counter() < deadline:
            started = time.perf_counter()
            encoder.encode(texts)
            rates.append(len(texts) / (time.perf_counter() - started))
        return {"per_s": rates, "peak_rss": peak_rss()}


def search(job: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of searches by a ready vector, and from the words; peak memory."""
    from edge_mrl.search import QueryVectors, SearchOptions, answer

    options = SearchOptions(K)
    with _encoder(job) as encoder, _index(job, encoder) as index:
        encoded = encoder.encode(job["queries"], kind="query")
        by_text = dict(zip(job["queries"], QueryVectors.of(encoded), strict=True))

        def ready(text: str) -> None:
            with index.store.reading() as view:
                answer(view, [text], [by_text[text]], options)

        return {
            "vector_ms": _timed(ready, job),
            "words_ms": _timed(lambda text: index.search(text, K), job),
            "passages": index.count().passages,
            "peak_rss": peak_rss(),
        }


def load(job: dict[str, Any]) -> str | None:
    """Import a package; why it cannot be, or None."""
    import importlib

    try:
        importlib.import_module(job["name"])
    except ImportError as error:
        return errors.reason(error)
    return None


def verify(job: dict[str, Any]) -> dict[str, Any]:
    """Verify a bundle."""
    import dataclasses

    from edge_mrl.encode import verification as verifying

    return dataclasses.asdict(verifying.verify(job["bundle"], threads=job["threads"]))


def agree(job: dict[str, Any]) -> dict[str, Any]:
    """Cosines between two bundles' vectors of the same texts: full ones where both give them."""
    from edge_mrl.encode import cosines

    kinds = (("document", job["documents"]), ("query", job["queries"]))
    found: list[list[Any]] = []
    for bundle in (job["bundle"], job["against"]):  # one after the other: memory may be small
        with _encoder({**job, "bundle": bundle}) as encoder:
            found.append([encoder.encode(texts, kind=kind) for kind, texts in kinds])
    values: list[float] = []
    for one, other in zip(*found, strict=True):
        whole = one.full is not None and other.full is not None
        pair = (one.full, other.full) if whole else (one.coarse, other.coarse)
        values += cosines(*pair).tolist()
    return {"mean": sum(values) / len(values), "min": min(values)}


def check(job: dict[str, Any]) -> dict[str, Any]:
    """Check a store, and whether its bundle, or the one named, is there and belongs to it."""
    import dataclasses

    from edge_mrl.bundle import read_manifest
    from edge_mrl.store import Store, binding_of, find_bundle
    from edge_mrl.store import check as check_store

    problem = None
    with Store.open(job["store"]) as store:
        try:
            folder = find_bundle(store) if job["bundle"] is None else Path(job["bundle"]).resolve()
            _require(store, binding_of(read_manifest(folder), folder))
        except errors.EdgeMrlError as error:
            problem = str(error)
        return {**dataclasses.asdict(check_store(store)), "bundle_problem": problem}


def fill(job: dict[str, Any]) -> dict[str, Any]:
    """Make a store of random codes by the store's own way; how long it took."""
    import numpy as np

    from edge_mrl.bundle import read_manifest
    from edge_mrl.documents import Document, PassageRule
    from edge_mrl.store import Entry, Store, binding_of

    folder = Path(job["bundle"]).resolve()
    binding = binding_of(read_manifest(folder), folder)
    rng = np.random.default_rng(SEED)
    started = time.perf_counter()
    with Store.open(job["store"], create=lambda: (binding, PassageRule(128, 16))) as store:
        for first in range(0, job["rows"], PUT):
            codes = _random_codes(rng, min(PUT, job["rows"] - first), binding)
            store.put(
                [
                    Entry(Document(str(first + i), f"passage {first + i}"), [(0, 8)], row[None])
                    for i, row in enumerate(codes)
                ]
            )
    return {"seconds": time.perf_counter() - started}


def _random_codes(rng: np.random.Generator, rows: int, binding: Binding) -> NDArray[np.int8]:
    from edge_mrl.codes import normalize, quantize

    vectors = rng.standard_normal((rows, binding.dim), dtype="float32")
    return quantize(normalize(vectors), scale=binding.scale)


def _encoder(job: dict[str, Any]) -> Encoder:
    from edge_mrl.encode import Encoder

    return Encoder.open(job["bundle"], threads=job["threads"], low_memory=job["low_memory"])


def _index(job: dict[str, Any], encoder: Encoder) -> Index:
    """The store with this encoder. Its note of where its bundle lies stays as it is."""
    from edge_mrl.index import Index
    from edge_mrl.store import Store, binding_of

    store = Store.open(job["store"])
    try:
        _require(store, binding_of(encoder.manifest, encoder.path))
    except BaseException:
        store.close()
        raise
    return Index(store, encoder, open_encoder=lambda _: encoder)


def _require(store: Store, binding: Binding) -> None:
    """Raise BindingError if a bundle does not belong to a store; the store is left as it is."""
    if binding.code != store.binding.code:
        store.require(binding)


def _timed(work: Callable[[str], Any], job: dict[str, Any]) -> list[float]:
    """Milliseconds of each call, on the job's queries in turn, until its time is up."""
    texts = itertools.cycle(job["queries"])
    for text in itertools.islice(texts, WARM_UP):
        work(text)
    times: list[float] = []
    deadline = time.perf_counter() + job["seconds"]
    for text in texts:
        started = time.perf_counter()
        work(text)
        ended = time.perf_counter()
        times.append((ended - started) * 1000)
        if ended > deadline and len(times) >= LEAST:
            break
    return times


def _ending(step: str, code: int, message: str) -> str:
    """How a process ended, in words."""
    lines = message.strip().splitlines()
    why = lines[-1] if lines else "without a word"
    if code < 0:
        import signal

        name = signal.Signals(-code).name
        hints = {
            "SIGKILL": "perhaps memory ran out: try --low-memory",
            "SIGILL": "this CPU lacks an instruction that a package was built for",
        }
        why = f"killed by {name}" + (f"; {hints[name]}" if name in hints else "")
    return f"measuring ({step}) failed: {why}"


STEPS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "query": query,
    "documents": documents,
    "search": search,
    "fill": fill,
    "load": load,
    "verify": verify,
    "agree": agree,
    "check": check,
}


def main(arguments: Sequence[str]) -> int:
    """Run one step: job in, answer out."""
    job = json.load(sys.stdin)
    # What libraries print must not get into the answer.
    answer_to = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        answer: dict[str, Any] = {"answer": STEPS[arguments[0]](job)}
    except errors.EdgeMrlError as error:
        answer = {"error": {"kind": type(error).__name__, "message": str(error)}}
    with answer_to:
        json.dump(answer, answer_to)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
