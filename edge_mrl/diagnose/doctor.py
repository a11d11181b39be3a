"""What may be wrong with this machine for a bundle and a store, and what to do about it.

Whatever loads other people's native code runs in processes of its own (``edge_mrl.diagnose.probe``),
so that a crash there is a finding, not an end. Each check says what it saw, or that it cannot know.
"""

from __future__ import annotations

import mmap
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_mrl.bundle import WEIGHTS, Manifest, check_files, read_manifest
from edge_mrl.diagnose import probe, samples
from edge_mrl.errors import BundleError, EdgeMrlError, StoreError, UsageError, reason
from edge_mrl.machine import Cpu, FileSystem, Memory, Requirement
from edge_mrl.machine import facts as machine

__all__ = [
    "LEVELS",
    "Diagnosis",
    "Finding",
    "Subjects",
    "diagnose",
    "judge_cpu",
    "judge_memory",
    "judge_packages",
    "judge_place",
    "judge_python",
    "judge_speed",
]

#: From best to worst; the last one alone means that something does not work.
LEVELS = ("good", "note", "unknown", "warning", "problem")
#: SQLite's log needs memory that all processes share: one machine (sqlite.org/wal.html, "Overview").
NETWORK = (
    "9p",
    "afs",
    "ceph",
    "cifs",
    "davfs",
    "fuse.sshfs",
    "ncpfs",
    "nfs",
    "nfs4",
    "smb3",
    "smbfs",
)
#: File systems that are gone with the power.
VOLATILE = ("ramfs", "tmpfs")
#: Free space below which a store cannot be written for long, and below which it is getting tight.
LEAST_FREE_BYTES, FEW_FREE_BYTES = 20_000_000, 200_000_000
#: Memory that should stay free beside the bundle, as a share of what it takes.
SPARE = 0.5
#: Code files map segments that start at multiples of this.
LARGEST_PAGE_BYTES = 65_536
#: Rounds in which two bundles take turns, and seconds of each.
ROUNDS, ROUND_S = 3, 1.0
#: Texts that memory is measured with.
MEMORY_TEXTS = 32
#: int8 to fp32 on this machine, mean and least, below which something is wrong. An int8 network is
#: at 0.999 in the mean, the saturating x86 kernels at 0.994.
AGREE_MEAN, AGREE_MIN = 0.99, 0.95


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What, in a word or two.
        level: One of LEVELS.
        text: What was seen.
        advice: What to do; empty where nothing need be done.
    """

    subject: str
    level: str
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, in the order of the checks, and the figures behind them.

    Attributes:
        findings: See Finding.
        figures: Measured values by name, with their units in the names.
    """

    findings: tuple[Finding, ...]
    figures: dict[str, float]

    @property
    def healthy(self) -> bool:
        """Whether there is no problem; warnings are none."""
        return all(finding.level != "problem" for finding in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """What to look at beside the machine.

    Attributes:
        bundle: A bundle to verify and time; None leaves that out.
        against: A bundle of the same model to compare it with, such as one in fp32.
        store: A store to check.
        threads: Threads for embedding; None is one per core.
        low_memory: Embed with the smallest memory.
    """

    bundle: Path | None = None
    against: Path | None = None
    store: Path | None = None
    threads: int | None = None
    low_memory: bool = False

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads is {self.threads}, expected at least 1")


@dataclass(slots=True)
class _Findings:
    """Findings so far, and whether packages are there that the next checks need."""

    found: list[Finding] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def add(self, findings: Iterable[Finding]) -> None:
        self.found += findings

    @property
    def can_embed(self) -> bool:
        return not any(f.subject == "packages" and f.level == "problem" for f in self.found)


def diagnose(subjects: Subjects, *, advance: Callable[[str], None] = lambda _: None) -> Diagnosis:
    """Look at this machine, and at a bundle and a store if any are named.

    Args:
        subjects: What to look at.
        advance: Called before each longer step with what it is.

    Raises:
        UsageError: A bundle or a store is not there, or the two bundles cannot be compared.
    """
    if subjects.store is not None and not subjects.store.is_file():
        raise UsageError(f"no store at {subjects.store}")
    all_ = _Findings()
    manifest, broken = _manifest(subjects.bundle)
    if subjects.against is not None:
        _require_comparable(subjects, manifest)
    advance("machine")
    if (board := machine.board()) is not None:
        all_.add([Finding("board", "good", board)])
    all_.add(judge_cpu(machine.cpu(), manifest))
    all_.add(_judge_load())
    all_.add(judge_python(machine.pointer_bits(), machine.page_bytes()))
    advance("packages")
    all_.add(judge_packages(machine.requirements(), imports()))
    all_.add(_judge_sqlite())
    all_.add(_judge_reports())
    for name, path in (("bundle", subjects.bundle), ("store", subjects.store)):
        if path is not None:
            all_.add(_judge_disk(name, path))
    if subjects.bundle is None and subjects.store is None:
        all_.add(_judge_disk("folder", Path.cwd()))
    all_.add(broken)
    if manifest is None:
        all_.add(judge_memory(machine.memory(), None))
    else:
        _judge_bundle(subjects, manifest, all_, advance)
    if subjects.store is not None:
        advance("store")
        all_.add(_judge_store(subjects, can_embed=all_.can_embed))
    return Diagnosis(tuple(all_.found), all_.figures)


def judge_cpu(cpu: Cpu, manifest: Manifest | None = None) -> Iterator[Finding]:
    """What the CPU does to 8-bit products; the bundle's kind of weights decides what matters."""
    name = cpu.name or "of unknown name"
    weights = "int8" if manifest is None else manifest.precision.weights
    products = manifest is None or manifest.precision.integer_products > 0
    if cpu.features is None:
        yield Finding("CPU", "unknown", f"{name}; its instructions are not known here")
        return
    flags = ", ".join(cpu.features) or "no vector instructions of note"
    text = f"{name}: {flags}"
    if not products:
        yield Finding("CPU", "good", f"{text}; the bundle has no 8-bit products")
    elif cpu.kind == "arm" and "asimddp" not in cpu.features:
        yield Finding(
            "CPU",
            "note",
            f"{text}; no dot-product instructions (asimddp): 8-bit products take about twice the work",
            "expect half the speed of a core that has them; results are the same",
        )
    elif cpu.kind == "arm" and weights == "uint8":
        yield Finding(
            "CPU",
            "warning",
            f"{text}; the bundle's weights are stored for x86 CPUs, which is slow here",
            "use a bundle exported with --target arm64, the default",
        )
    elif machine.saturates(cpu) and weights == "int8":
        yield Finding(
            "CPU",
            "warning",
            f"{text}; no VNNI: 8-bit products saturate (cosine to fp32 about 0.994, not 0.999)",
            "where that matters, use a bundle exported with --target x86-64",
        )
    else:
        yield Finding("CPU", "good", text)


def _judge_load() -> Iterator[Finding]:
    load, cores = machine.load(), machine.cores()
    shown = "an unknown number of cores" if cores is None else f"{cores} cores"
    if load is None:
        yield Finding("load", "unknown", f"not known here; {shown}")
    elif machine.busy(load, cores):
        text = f"{load:.1f} on {shown}: other programs are running"
        yield Finding("load", "note", text, "times below are longer than on an idle machine")
    else:
        yield Finding("load", "good", f"{load:.1f} on {shown}")


def judge_python(bits: int, page_bytes: int | None) -> Iterator[Finding]:
    """The interpreter: its width, and the pages that files are mapped by."""
    text = f"{sys.version.split()[0]}, {bits} bits"
    if bits < 64:
        yield Finding(
            "Python",
            "problem",
            f"{text}: onnxruntime is not published for 32-bit systems",
            "install the 64-bit system (on a Raspberry Pi 3 or later: Raspberry Pi OS 64-bit)",
        )
    else:
        yield Finding("Python", "good", text)
    if page_bytes is None:
        yield Finding("page size", "unknown", "not known here")
    elif page_bytes > LARGEST_PAGE_BYTES:
        yield Finding(
            "page size",
            "problem",
            f"{page_bytes // 1024} KiB: code files are made for pages of up to 64 KiB",
            "use a kernel with smaller pages",
        )
    else:
        yield Finding("page size", "good", f"{page_bytes // 1024} KiB")


def imports() -> dict[str, str | None]:
    """Why each of the packages cannot be loaded, or None; each is tried in a process of its own."""
    return {name: _import_problem(name) for name in machine.PACKAGES}


def _import_problem(name: str) -> str | None:
    try:
        found: str | None = probe.call("load", {"name": name})
    except EdgeMrlError as error:
        return reason(error)
    return found


def judge_packages(
    requirements: list[Requirement] | None, problems: dict[str, str | None]
) -> Iterator[Finding]:
    """Whether what edge-mrl needs is installed, new enough, and can be loaded on this CPU."""
    needed = requirements
    if needed is None:
        yield Finding(
            "packages",
            "unknown",
            "edge-mrl runs without being installed, so the versions it needs are not known",
        )
        needed = [Requirement(name, None, version) for name, version in machine.versions().items()]
    for package in needed:
        least = f" (at least {package.minimum})" if package.minimum else ""
        line = f'pip install "{package.name}{f">={package.minimum}" if package.minimum else ""}"'
        problem = problems.get(package.name)
        if package.installed is None:
            yield Finding("packages", "problem", f"{package.name}{least} is not installed", line)
        elif not package.met:
            text = f"{package.name} {package.installed} is too old{least}"
            yield Finding("packages", "problem", text, line)
        elif problem is not None:
            text = f"{package.name} {package.installed} cannot be loaded: {problem}"
            yield Finding("packages", "problem", text, "install another version of it")
        else:
            yield Finding("packages", "good", f"{package.name} {package.installed}{least}")


def _judge_sqlite() -> Iterator[Finding]:
    try:
        import sqlite3
    except ImportError as error:
        text = f"this Python has no sqlite3 ({reason(error)})"
        yield Finding("SQLite", "problem", text, "use a Python that has it")
        return
    text = sqlite3.sqlite_version
    try:
        connection = sqlite3.connect(":memory:")
        connection.execute("CREATE VIRTUAL TABLE words USING fts5 (text, content = '')")
        connection.close()
    except sqlite3.Error as error:
        text = f"{text} has no FTS5 ({error}): stores cannot be made"
        yield Finding("SQLite", "problem", text, "use a Python whose SQLite has FTS5")
    else:
        yield Finding("SQLite", "good", f"{text} with FTS5")


def _judge_reports() -> Iterator[Finding]:
    if os.environ.get("ORT_DISABLE_TELEMETRY") == "1":
        yield Finding("reports", "good", "ONNX Runtime's usage reports are switched off")
    else:
        yield Finding(
            "reports",
            "note",
            "ONNX Runtime's usage reports are not switched off here",
            "unset ORT_DISABLE_TELEMETRY, and edge-mrl switches them off",
        )


def _judge_disk(name: str, path: Path) -> Iterator[Finding]:
    """Where something lies. A bundle is only read."""
    try:
        place = machine.file_system(path)
    except OSError as error:
        yield Finding(f"{name}'s disk", "unknown", f"cannot be asked: {reason(error)}")
        return
    yield from judge_place(f"{name}'s disk", place, written=name != "bundle")
    file = path / WEIGHTS if name == "bundle" else path
    if file.is_file():
        yield from _judge_mapping(f"{name}'s disk", file)


def judge_place(subject: str, place: FileSystem, *, written: bool) -> Iterator[Finding]:
    """Free space and kind of a file system; ``written`` is whether a store lies there."""
    kind = place.kind or "of unknown kind"
    text = f"{kind}, {_size(place.free_bytes)} free"
    if not written:
        yield Finding(subject, "good" if place.kind else "unknown", text)
        return
    if place.read_only:
        text, advice = f"{text}, read-only", "a store there can be searched, not changed"
        yield Finding(subject, "note", text, advice)
    elif place.free_bytes < LEAST_FREE_BYTES:
        yield Finding(subject, "problem", text, "free some space: indexing stops when it is full")
    elif place.free_bytes < FEW_FREE_BYTES:
        yield Finding(subject, "warning", text, "free some space before indexing much")
    elif place.kind in NETWORK:
        advice = "use a store from one machine only, or keep it on a disk of this one"
        yield Finding(subject, "warning", f"{text}: a network file system", advice)
    elif place.kind in VOLATILE:
        advice = "keep the store on a disk: this file system is memory, and gone with the power"
        yield Finding(subject, "warning", text, advice)
    else:
        yield Finding(subject, "good" if place.kind else "unknown", text)


def _judge_mapping(subject: str, file: Path) -> Iterator[Finding]:
    """Whether files can be mapped there, as weights and codes are."""
    try:
        with file.open("rb") as opened:
            if not os.fstat(opened.fileno()).st_size:
                return
            with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                mapped[-1]
    except PermissionError as error:
        yield Finding(subject, "unknown", f"{file.name} cannot be read: {reason(error)}")
    except (OSError, ValueError) as error:
        text = f"files cannot be mapped there: {reason(error)}"
        yield Finding(subject, "problem", text, "keep it on a disk of this machine")
    else:
        yield Finding(subject, "good", f"{file.name} can be mapped")


def judge_memory(memory: Memory, need_bytes: int | None) -> Iterator[Finding]:
    """Whether memory suffices for what embedding was seen to take."""
    if memory.total_bytes is None:
        yield Finding("memory", "unknown", "not known here")
        return
    text = f"{_size(memory.total_bytes)} in all"
    if memory.limit_bytes is not None:
        text = f"{text}, this process limited to {_size(memory.limit_bytes)}"
    if memory.available_bytes is None:
        yield Finding("memory", "unknown", f"{text}; how much is free is not known here")
        return
    text = f"{text}, {_size(memory.available_bytes)} available"
    if need_bytes is None:
        yield Finding("memory", "good", text)
        return
    text = f"{text}; embedding took {_size(need_bytes)}"
    if memory.available_bytes < need_bytes:
        advice = "end other programs, or use --low-memory"
        yield Finding("memory", "problem", text, advice)
    elif memory.available_bytes < (1 + SPARE) * need_bytes:
        advice = "it is tight: use --low-memory, or end other programs"
        yield Finding("memory", "warning", text, advice)
    else:
        yield Finding("memory", "good", text)


def _manifest(bundle: Path | None) -> tuple[Manifest | None, list[Finding]]:
    """The bundle's manifest, or what is wrong with it."""
    if bundle is None:
        return None, []
    try:
        return read_manifest(bundle), []
    except BundleError as error:
        return None, [Finding("bundle", "problem", str(error), "copy the bundle again")]


def _require_comparable(subjects: Subjects, manifest: Manifest | None) -> None:
    if subjects.bundle is None or subjects.against is None:
        raise UsageError("--against needs a bundle to compare with: --bundle DIR")
    other = read_manifest(subjects.against)
    check_files(subjects.against, other, hashes=False)
    if manifest is None:
        return
    if other.space_id != manifest.space_id:
        raise UsageError(
            f"{subjects.against} ({other.name}) is of another embedding space than "
            f"{subjects.bundle} ({manifest.name}): expected another precision of the same model"
        )
    if None in (other.full_dim, manifest.full_dim) and other.code_id != manifest.code_id:
        raise UsageError(
            f"{subjects.against} and {subjects.bundle} have no vectors in common: "
            "expected two bundles with full vectors, or with the same code"
        )


def _judge_bundle(
    subjects: Subjects,
    manifest: Manifest,
    all_: _Findings,
    advance: Callable[[str], None],
) -> None:
    """Verify, measure and compare the bundle."""
    if not all_.can_embed:
        all_.add([Finding("bundle", "unknown", "not tried: packages are missing or broken")])
        all_.add(judge_memory(machine.memory(), None))
        return
    job: dict[str, Any] = {
        "bundle": str(subjects.bundle),
        "threads": subjects.threads,
        "low_memory": subjects.low_memory,
    }
    advance("verifying the bundle")
    verified = list(_judge_vectors(job))
    all_.add(verified)
    if any(finding.level == "problem" for finding in verified):
        all_.add(judge_memory(machine.memory(), None))
        return
    sample = samples.built_in()
    job |= {"queries": sample.queries, "documents": sample.documents[:MEMORY_TEXTS]}
    advance("timing the bundle")
    before = machine.memory()
    try:
        all_.add(judge_memory(before, _peak(job)))
        all_.figures |= _times(subjects.against, job, advance)
    except EdgeMrlError as error:
        all_.add([Finding("bundle", "problem", reason(error), "see the lines above for why")])
        return
    all_.add(judge_speed(all_.figures, _weights(subjects, manifest)))


def _judge_vectors(job: dict[str, Any]) -> Iterator[Finding]:
    try:
        result = probe.call("verify", job)
    except EdgeMrlError as error:
        yield Finding(
            "bundle", "problem", reason(error), "copy the bundle again, or export it again"
        )
        return
    yield from (
        Finding("bundle", "problem", text, "see `edge-mrl verify` for the figures")
        for text in result["failures"]
    )
    if result["passed"]:
        text = (
            f"{result['files']} files whole, {result['texts']} texts as on the exporter's machine"
        )
        if result["source_cosine_mean"] is not None:
            text = (
                f"{text}; cosine to the fp32 source {result['source_cosine_mean']:.4f} on average"
            )
        yield Finding("bundle", "good", text)


def _peak(job: dict[str, Any]) -> int | None:
    found: int | None = probe.call("documents", {**job, "seconds": 0})["peak_rss"]
    return found


def _weights(subjects: Subjects, manifest: Manifest) -> tuple[str, str | None]:
    """Kinds of weights of the bundle and of the one beside it."""
    if subjects.against is None:
        return manifest.precision.weights, None
    return manifest.precision.weights, read_manifest(subjects.against).precision.weights


def _times(
    against: Path | None, job: dict[str, Any], advance: Callable[[str], None]
) -> dict[str, float]:
    """Milliseconds a query and documents a second of one or two bundles, which take turns."""
    both = {"": job["bundle"], **({} if against is None else {"against_": str(against)})}
    queries: dict[str, list[float]] = {prefix: [] for prefix in both}
    rates: dict[str, list[float]] = {prefix: [] for prefix in both}
    for number in range(1, ROUNDS + 1):
        advance(f"timing, round {number} of {ROUNDS}")
        for prefix, bundle in both.items():
            work = {**job, "bundle": bundle, "seconds": ROUND_S}
            queries[prefix].append(statistics.median(probe.call("query", work)["ms"]))
            rates[prefix].append(statistics.median(probe.call("documents", work)["per_s"]))
    found = {}
    for prefix in both:
        found[f"{prefix}query_ms"] = round(statistics.median(queries[prefix]), 3)
        found[f"{prefix}documents_per_s"] = round(statistics.median(rates[prefix]), 2)
    if against is not None:
        advance("comparing vectors")
        cosines = probe.call("agree", {**job, "against": str(against)})
        found |= {"against_cosine_mean": cosines["mean"], "against_cosine_min": cosines["min"]}
    return found


def judge_speed(figures: dict[str, float], weights: tuple[str, str | None]) -> Iterator[Finding]:
    """A bundle's speed here, and beside a bundle of other weights.

    Args:
        figures: "query_ms" and "documents_per_s"; the same with "against_" in front, and
            "against_cosine_mean" and "against_cosine_min", where there is another bundle.
        weights: Kinds of weights of the bundle and of the other one, if any.
    """
    own, other = weights
    yield Finding("speed", "good", f"{own}: {_speed(figures, '')}")
    if other is None:
        return
    yield Finding("speed", "good", f"{other}, to compare: {_speed(figures, 'against_')}")
    gain = figures["against_query_ms"] / figures["query_ms"]
    rate = figures["documents_per_s"] / figures["against_documents_per_s"]
    text = f"{own} is {gain:.1f} times as fast as {other} for a query, {rate:.1f} for documents"
    if max(gain, rate) < 1:
        yield Finding(
            "speed", "warning", text, f"{other} is faster on this CPU: use it if memory allows"
        )
    else:
        yield Finding("speed", "good", text)
    mean, least = figures["against_cosine_mean"], figures["against_cosine_min"]
    text = f"cosine of {own} to {other} {mean:.4f} on average, {least:.4f} at least"
    if mean < AGREE_MEAN or least < AGREE_MIN:
        advice = f"this CPU computes {own} wrongly, or the bundles differ in more: use {other}"
        yield Finding("agreement", "problem", text, advice)
    else:
        yield Finding("agreement", "good", text)


def _speed(figures: dict[str, float], prefix: str) -> str:
    query, rate = figures[f"{prefix}query_ms"], figures[f"{prefix}documents_per_s"]
    return f"{query:.1f} ms a query, {rate:.3g} documents/s"


def _judge_store(subjects: Subjects, *, can_embed: bool) -> Iterator[Finding]:
    store = subjects.store
    if not can_embed:
        yield Finding("store", "unknown", "not checked: packages are missing or broken")
        return
    bundle = None if subjects.bundle is None else str(subjects.bundle)
    try:
        health = probe.call("check", {"store": str(store), "bundle": bundle})
    except StoreError as error:
        yield Finding("store", "problem", str(error), "restore a copy, or make the store again")
        return
    except EdgeMrlError as error:
        yield Finding("store", "problem", reason(error))
        return
    yield from (
        Finding("store", "problem", text, f"see `edge-mrl check --store {store}`")
        for text in health["problems"]
    )
    if not health["problems"]:
        yield Finding("store", "good", f"sound, documents: {health['documents']:,}")
    if health["bundle_problem"] is not None:
        yield Finding("store", "problem", health["bundle_problem"])


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"
