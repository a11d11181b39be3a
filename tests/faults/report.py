"""What became of a seed."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Report", "StuckError"]


class StuckError(Exception):
    """The seed cannot go on; says why."""


@dataclass(slots=True)
class Report:
    """What became of a seed.

    Attributes:
        problems: What is wrong; empty where the harness is satisfied.
        exchanges: Requests that came to the proxy while it failed on purpose.
        faults: Those of them that met a fault, by kind.
        kills: SIGKILLs, by what was killed; purges, copies of all kinds, and lonely documents.
        writes: Writes that stores acknowledged.
        documents: Documents compared, in each copy.
        converge_s: From healing until all queues were empty and all devices agreed.
        seconds: For everything.
    """

    seed: int
    database: str
    problems: list[str] = field(default_factory=list)
    exchanges: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    kills: dict[str, int] = field(default_factory=dict)
    writes: int = 0
    documents: int = 0
    deleted: int = 0
    converge_s: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        """A line, and one for each problem."""
        again = f"python -m tests.faults.run --seed {self.seed} --database {self.database}"
        state = "FAILED" if self.problems else "ok"
        faulty = f"{sum(self.faults.values())} of {self.exchanges} exchanges faulty"
        times = f"converged in {self.converge_s:.1f} s, {self.seconds:.1f} s in all"
        line = (
            f"seed {self.seed} on {self.database}: {state}; {self.writes} writes, {faulty}, "
            f"kills {self.kills}, {times}"
        )
        shown = [f"  {problem}" for problem in self.problems[:30]]
        return "\n".join([line, *shown, *([f"  again: {again}"] if shown else [])])
