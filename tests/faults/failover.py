"""A PostgreSQL primary with a synchronous standby, killed and replaced again and again under load.

python -m tests.faults.failover --rounds 10
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.faults.databases import PostgresCluster
from tests.faults.load import Load, lost
from tests.faults.places import KILLABLE, scratch
from tests.support.postgres import Postgres, free_port
from tests.support.processes import wait_until
from tests.support.serving import Serving, admin, enroll

__all__ = ["Failovers", "fail_over"]

DEVICES = 2
STANDBY_S = 30.0


@dataclass(slots=True)
class Failovers:
    """What became of it.

    Attributes:
        rounds: Primaries killed, and standbys promoted.
        acknowledged: Pushes that were acknowledged, of 12 documents each.
        documents: Documents compared in the end.
        refused: Pushes that were not acknowledged, by HTTP status; 0 where no answer came.
        away_s: From each kill until a push was acknowledged again, the new standby's base backup
            included: without a standby nothing is acknowledged.
        lost: What was acknowledged and is not there.
    """

    rounds: int = 0
    acknowledged: int = 0
    documents: int = 0
    refused: dict[int, int] = field(default_factory=dict)
    away_s: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


class _Pair:
    """A primary and its standby, on two ports that stay the same."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self.primary = self._new(free_port())
        self.primary.create()
        # Whoever is the primary: nothing is acknowledged that is not on a standby too.
        self.primary.query("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.standby = self._new(free_port())
        self.standby.copy_of(self.primary, name="standby")
        self.primary.query("SELECT pg_reload_conf()")
        self.wait()

    @property
    def url(self) -> str:
        """A connection string that names both, and takes the one that can be written to."""
        ports = sorted((self.primary.port, self.standby.port))
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        user = f"{Postgres.USER}:{self.primary.password}"
        return f"postgresql://{user}@{hosts}/{Postgres.DATABASE}?target_session_attrs=read-write"

    def wait(self) -> None:
        """Until commits wait for the standby."""
        sql = "SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'"
        wait_until(lambda: self.primary.query(sql) == "sync", STANDBY_S)

    def replace(self) -> None:
        """Kill the primary and promote the standby; then a new standby, from a base backup."""
        dead = self.primary
        dead.kill()
        self.standby.promote()
        self.primary = self.standby
        shutil.rmtree(dead.folder)
        self.standby = self._new(dead.port)
        self.standby.copy_of(self.primary, name="standby")
        self.wait()

    def close(self) -> None:
        """Stop both."""
        self.standby.kill()
        self.primary.kill()

    def _new(self, port: int) -> Postgres:
        self._count += 1
        return Postgres(self._folder / str(self._count), port=port, config=KILLABLE)


def fail_over(rounds: int, *, seed: int = 0) -> Failovers:
    """Kill the primary so many times while devices push, and compare all that was acknowledged."""
    folder = Path(tempfile.mkdtemp(prefix="emrl-pair-", dir=scratch()))
    folder.chmod(0o711)
    pair = _Pair(folder)
    try:
        server = Serving(pair.url, "--quiet")
        try:
            return _rounds(pair, server, rounds, random.Random(seed))
        finally:
            server.kill()
    finally:
        pair.close()
        shutil.rmtree(folder, ignore_errors=True)


def _rounds(pair: _Pair, server: Serving, rounds: int, rng: random.Random) -> Failovers:
    report = Failovers()
    loads = []
    for number in range(DEVICES):
        invitation = admin(pair.url, "invitations", "create", "default")["invitation"]
        loads.append(Load(enroll(server.url, invitation), number))
    for load in loads:
        load.start()
    for _ in range(rounds):
        _more(loads, 3)
        time.sleep(rng.uniform(0.0, 0.5))
        killed = time.monotonic()
        pair.replace()
        _more(loads, 1)
        report.away_s.append(round(time.monotonic() - killed, 2))
        report.rounds += 1
    for load in loads:
        load.finish(STANDBY_S)
        report.acknowledged += load.answers
        report.documents += len(load.acknowledged)
        for status, count in load.refused.items():
            report.refused[status] = report.refused.get(status, 0) + count
    url = pair.primary.url
    report.lost = lost(PostgresCluster(pair.primary).read(url), loads)
    return report


def _more(loads: list[Load], count: int) -> None:
    """Until each device was acknowledged so many pushes more."""
    goals = [load.answers + count for load in loads]
    wait_until(
        lambda: all(load.answers >= goal for load, goal in zip(loads, goals, strict=True)),
        STANDBY_S,
    )


def main() -> int:
    """Run; 1 where something is lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10, metavar="N")
    report = fail_over(parser.parse_args().rounds)
    print(json.dumps(asdict(report)))
    return 1 if report.lost else 0


if __name__ == "__main__":
    sys.exit(main())
