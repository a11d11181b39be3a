"""Health checks of this machine, and of a bundle and a store on it.

Native code of other packages runs in processes of its own (``edge_mrl.diagnose.probe``), so that a crash
there is a finding and does not end the check. Each check says what it saw, or that it cannot know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mrl.bundle import Manifest
from edge_mrl.diagnose.checks import bundle, machine, packages, store, units
from edge_mrl.diagnose.findings import Diagnosis, Finding
from edge_mrl.errors import UsageError
from edge_mrl.machine import facts

if TYPE_CHECKING:
    from edge_mrl.store import Key

__all__ = ["Subjects", "diagnose"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """What to check beside the machine.

    Attributes:
        bundle: A bundle to verify and time, or None.
        against: A bundle of the same model to compare it with, for example in fp32, or None.
        store: A store to check, or None.
        threads: Threads for embedding; None for one per core.
        low_memory: Embed with the smallest memory.
        key: Gives the key of the store, if that is encrypted.
    """

    bundle: Path | None = None
    against: Path | None = None
    store: Path | None = None
    threads: int | None = None
    low_memory: bool = False
    key: Key | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads is {self.threads}, expected at least 1")


def diagnose(
    subjects: Subjects,
    *,
    advance: Callable[[str], None] = lambda _: None,
    found: Callable[[Finding], None] = lambda _: None,
) -> Diagnosis:
    """Check this machine, and a bundle and a store if given.

    Args:
        subjects: What to check beside the machine.
        advance: Called before each longer step with its name.
        found: Called with each finding once it is there; some steps take minutes on a small board.

    Raises:
        UsageError: A bundle or a store is not there, or the two bundles cannot be compared.
    """
    if subjects.store is not None and not subjects.store.is_file():
        raise UsageError(f"no store at {subjects.store}")
    manifest, broken = bundle.read(subjects.bundle)
    if subjects.against is not None:
        bundle.require_comparable(subjects.bundle, manifest, subjects.against)
    findings: list[Finding] = []

    def add(more: Iterable[Finding]) -> None:
        for finding in more:
            findings.append(finding)
            found(finding)

    advance("machine")
    add(machine.check_board())
    add(machine.check_cpu(facts.cpu(), manifest))
    add(machine.check_load())
    add(machine.check_python(facts.pointer_bits(), facts.page_bytes()))
    add(units.check_units())
    advance("packages")
    needed = [*packages.check_packages(facts.requirements(), packages.import_problems())]
    can_embed = all(finding.level != "problem" for finding in needed)
    add([*needed, *packages.check_sqlite(), *packages.check_reports()])
    add([*_check_disks(subjects), *broken])
    checked = _check_bundle(subjects, manifest, can_embed=can_embed, advance=advance)
    add(checked.findings)
    if subjects.store is not None:
        advance("store")
        if can_embed:
            add(store.check_store(subjects.store, subjects.bundle, subjects.key))
        else:
            add([_skipped("store")])
    return Diagnosis(tuple(findings), checked.figures)


def _check_disks(subjects: Subjects) -> list[Finding]:
    places = {"bundle": subjects.bundle, "store": subjects.store}
    if not any(places.values()):
        places = {"folder": Path.cwd()}
    named = ((name, path) for name, path in places.items() if path is not None)
    return [finding for name, path in named for finding in machine.check_disk(name, path)]


def _check_bundle(
    subjects: Subjects,
    manifest: Manifest | None,
    *,
    can_embed: bool,
    advance: Callable[[str], None],
) -> Diagnosis:
    """The bundle's findings with those about memory, which depend on what the bundle takes."""
    if manifest is None or not can_embed:
        skipped = () if manifest is None else (_skipped("bundle"),)
        return Diagnosis((*skipped, *machine.check_memory(facts.memory(), None)), {})
    job = {
        "bundle": str(subjects.bundle),
        "threads": subjects.threads,
        "low_memory": subjects.low_memory,
    }
    return bundle.check_bundle(manifest, job, subjects.against, advance=advance)


def _skipped(subject: str) -> Finding:
    return Finding(subject, "unknown", "not checked, because packages are missing or broken")
