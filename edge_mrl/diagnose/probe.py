"""Measuring steps, each in a process of its own: ``python -m edge_mrl.diagnose.probe STEP``.

So a step's memory and threads do not disturb the next one, and a crash in a step does not end the program
that started it. A step reads its job, a JSON object, from standard input, and writes its answer, another
one, to standard output. Most jobs have the keys "bundle" (a folder), "threads" and "low_memory" (as for
``Encoder.open``), "seconds" (time to measure), "queries" and "documents" (texts), and "store" (a file).
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

from edge_mrl.errors import EdgeMrlError, StepError, reason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_mrl.encode import Encoder
    from edge_mrl.index import Index
    from edge_mrl.store import Binding, Key, Store

__all__ = ["job_key", "run_step", "time_first_embedding"]

#: Calls before the clock starts: the first ones load pages and size the memory arenas.
WARM_UP = 3
#: Fewest samples, however short the time is: a 95th percentile needs some.
LEAST = 20
#: Documents in one put into a store of random codes, and the seed of these codes.
PUT, SEED = 4096, 1
#: Passage rule of such a store: tokens in a passage, and tokens that two passages share.
RULE = (128, 16)
#: Documents that a search returns.
K = 10


def run_step(step: str, job: dict[str, Any]) -> Any:
    """Run a step in a fresh process.

    Args:
        step: Its name, one of STEPS.
        job: What the step reads.

    Returns:
        What the step returned.

    Raises:
        EdgeMrlError: The step raised this error; the class is the same.
        StepError: The process ended in another way; the message says how.
    """
    command = [sys.executable, "-m", "edge_mrl.diagnose.probe", step]
    done = subprocess.run(  # noqa: S603 - this interpreter
        command, input=json.dumps(job), capture_output=True, text=True, check=False
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise StepError(_failure(step, done.returncode, done.stderr)) from None
    if "error" in answer:
        raise _error_class(answer["error"]["kind"])(answer["error"]["message"])
    return answer["answer"]


def time_first_embedding(bundle: Path, *, threads: int | None, low_memory: bool) -> float:
    """Milliseconds from the start of a fresh Python process to its first embedding.

    Raises:
        StepError: The process ended before its first embedding.
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
        seconds = time.perf_counter() - started  # the end of the process does not count
        _, message = process.communicate()
    if line != "done\n":
        raise StepError(_failure("first embedding", process.returncode, message))
    return seconds * 1000


def peak_rss() -> int | None:
    """Peak resident memory of this process in bytes, mapped files included; None if unknown."""
    try:
        # Unlike ru_maxrss, it does not count the memory of the process that started this one.
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
    """Encode queries one by one: {"ms": milliseconds of each, "peak_rss": bytes}."""
    with _encoder(job) as encoder:
        times = _timed(lambda text: encoder.encode([text], kind="query"), job)
        return {"ms": times, "peak_rss": peak_rss()}


def documents(job: dict[str, Any]) -> dict[str, Any]:
    """Encode all documents again and again: {"per_s": documents a second, "peak_rss": bytes}."""
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
    """Search for queries by a vector that is ready, and by text, which is encoded first.

    Returns:
        "vector_ms" and "text_ms", milliseconds of each search; "passages" of the store; "peak_rss".
    """
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
            "text_ms": _timed(lambda text: index.search(text, K), job),
            "passages": index.count().passages,
            "peak_rss": peak_rss(),
        }


def load(job: dict[str, Any]) -> str | None:
    """Import the package "name": the reason why it cannot be imported, or None."""
    import importlib

    try:
        importlib.import_module(job["name"])
    except ImportError as error:
        return reason(error)
    return None


def verify(job: dict[str, Any]) -> dict[str, Any]:
    """Verify a bundle: the fields of a ``Verification``."""
    import dataclasses

    from edge_mrl.encode import verify as verify_bundle

    return dataclasses.asdict(verify_bundle(job["bundle"], threads=job["threads"]))


def compare(job: dict[str, Any]) -> dict[str, Any]:
    """Cosines of the vectors of "bundle" and of the bundle "against", for the same texts.

    The vectors are full ones if both bundles give them, otherwise codes.

    Returns:
        "mean" and "min".
    """
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
    """Check a store, and whether the bundle of the job, or else its own, is there and belongs to it.

    Returns:
        The fields of a ``Health``; "bundle_problem", a sentence or None; "engines", the
        names of those that made the vectors, with commas between, or None.
    """
    import dataclasses

    from edge_mrl.bundle import read_manifest
    from edge_mrl.store import ENGINES, Store, binding_of, find_bundle
    from edge_mrl.store import check as check_store

    problem = None
    with Store.open(job["store"], key=_key(job)) as store:
        try:
            folder = find_bundle(store) if job["bundle"] is None else Path(job["bundle"]).resolve()
            _require(store, binding_of(read_manifest(folder), folder))
        except EdgeMrlError as error:
            problem = str(error)
        health = dataclasses.asdict(check_store(store))
        try:
            with store.reading() as view:
                engines = view.setting(ENGINES)
        except EdgeMrlError:  # the check has said what is damaged
            engines = None
        return {**health, "bundle_problem": problem, "engines": engines}


def fill(job: dict[str, Any]) -> dict[str, Any]:
    """Make a store of "rows" random codes, as documents are put: {"seconds": wall time}."""
    import numpy as np

    from edge_mrl.bundle import read_manifest
    from edge_mrl.documents import Document, PassageRule
    from edge_mrl.store import Entry, Store, binding_of

    folder = Path(job["bundle"]).resolve()
    binding = binding_of(read_manifest(folder), folder)
    rng = np.random.default_rng(SEED)
    started = time.perf_counter()
    with Store.create(job["store"], binding, PassageRule(*RULE)) as store:
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


def job_key(key: Key | None) -> dict[str, str]:
    """A key as part of a job, which goes through a pipe and is in no file or list of processes."""
    return {} if key is None else {"key": key().hex()}


def _key(job: dict[str, Any]) -> Key | None:
    data = job.get("key")
    return None if data is None else lambda: bytes.fromhex(data)


def _encoder(job: dict[str, Any]) -> Encoder:
    from edge_mrl.encode import Encoder

    return Encoder.open(job["bundle"], threads=job["threads"], low_memory=job["low_memory"])


def _index(job: dict[str, Any], encoder: Encoder) -> Index:
    """Open the store with this encoder; the path of its bundle that it keeps is not changed."""
    from edge_mrl.index import Index
    from edge_mrl.store import Store, binding_of

    store = Store.open(job["store"], key=_key(job))
    try:
        _require(store, binding_of(encoder.manifest, encoder.path))
    except BaseException:
        store.close()
        raise
    return Index(store, encoder)


def _require(store: Store, binding: Binding) -> None:
    """Raise BindingError if a bundle does not belong to a store; the store is not changed."""
    if binding.code != store.binding.code:
        store.require(binding)


def _timed(work: Callable[[str], Any], job: dict[str, Any]) -> list[float]:
    """Milliseconds of each call, with the job's queries in turn, until the job's time is over."""
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


def _error_class(name: str) -> type[EdgeMrlError]:
    """The class of errors with a name; EdgeMrlError if there is none."""
    classes = [EdgeMrlError]
    for known in classes:  # it grows as it is read: the whole tree
        classes += known.__subclasses__()
    return next((kind for kind in classes if kind.__name__ == name), EdgeMrlError)


def _failure(step: str, code: int, message: str) -> str:
    """The message about a process that ended without an answer."""
    lines = message.strip().splitlines()
    why = lines[-1] if lines else f"the process ended with code {code} and no message"
    if code < 0:
        import signal

        name = signal.Signals(-code).name
        hints = {
            "SIGKILL": "memory may have run out: try --low-memory",
            "SIGILL": "this CPU lacks an instruction that a package needs",
        }
        why = f"killed by {name}" + (f"; {hints[name]}" if name in hints else "")
    return f"the step {step!r} failed: {why}"


#: The steps by name, each a function of a job.
STEPS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "query": query,
    "documents": documents,
    "search": search,
    "fill": fill,
    "load": load,
    "verify": verify,
    "compare": compare,
    "check": check,
}


def main(arguments: Sequence[str]) -> int:
    """Run the step that is named first: read its job, and write its answer or its error."""
    job = json.load(sys.stdin)
    # What libraries print must not mix with the answer.
    answer_to = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        answer: dict[str, Any] = {"answer": STEPS[arguments[0]](job)}
    except EdgeMrlError as error:
        answer = {"error": {"kind": type(error).__name__, "message": str(error)}}
    with answer_to:
        json.dump(answer, answer_to)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
