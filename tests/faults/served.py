"""The server's side of a seed: its process, its clock, its database, and copies of that."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_mrl.wire.clock import now_ms
from edge_mrl_server.storage import accounts, open_database
from edge_mrl_server.storage.removal import purge
from tests.faults.databases import TENANT, Database, Held
from tests.faults.plan import Blow
from tests.faults.report import StuckError
from tests.support.clock import clock_off
from tests.support.processes import COMMAND
from tests.support.serving import Serving

__all__ = ["Served"]

#: The exit code of a server that cannot reach its database when it starts.
EXIT_UNREACHABLE = 4
DAY_MS = 86_400_000
#: Invitations are made before the server's clock is ahead, by a month at most, and used then too.
INVITED_MS = 60 * DAY_MS


@dataclass(slots=True)
class Served:
    """A server on a database, as the harness starts and kills it.

    Attributes:
        database: Where its database is.
        url: What ``edge-mrl serve --database`` is told.
        clocks_ns: How far its clock is off, in each of its lives; the last one from then on.
        program: Python to run before the server: how it is broken on purpose.
        kills: What was done to it, by what; shared with the world.
        up: Whether the database runs.
    """

    database: Database
    url: str
    clocks_ns: tuple[int, ...]
    program: str
    kills: Counter[str]
    up: bool = True
    process: Serving | None = None
    _logs: list[str] = field(default_factory=list)
    _lives: int = 0
    _off_ns: int = 0
    _right: bool = False
    _purges: list[subprocess.Popen[bytes]] = field(default_factory=list)
    #: Tokens of databases that were replaced by a copy.
    _replaced: set[str] = field(default_factory=set)

    def invite(self, count: int) -> list[str]:
        """Invitations of the tenant, which is made if it is not there."""
        with open_database(self.url, connections=1) as database, database.write() as transaction:
            accounts.ensure_tenant(transaction, TENANT)
            return [
                accounts.create_invitation(transaction, TENANT, life_ms=INVITED_MS)
                for _ in range(count)
            ]

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        assert self.process is not None
        return "127.0.0.1", self.process.port

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self.process is not None and self.process.process.poll() is None

    def start(self) -> None:
        """Start the server's next life."""
        off_ns = 0 if self._right else self.clocks_ns[min(self._lives, len(self.clocks_ns) - 1)]
        self._lives += 1
        self._off_ns = off_ns
        self.kills["server's clock"] += bool(off_ns)
        with clock_off(off_ns):
            self.process = Serving(self.url, "--quiet", program=self.program)

    def kill(self) -> None:
        """SIGKILL to the server."""
        assert self.process is not None
        self.process.kill()
        self._logs.append(self.process.log())

    def kill_database(self) -> None:
        """SIGKILL to the database."""
        self.database.kill()
        self.up = False

    def start_database(self) -> None:
        """Start the database again, if it was killed."""
        if not self.up:
            self.database.start()
        self.up = True

    def supervise(self) -> bool:
        """Start a server again that ended because its database was gone, as a supervisor does."""
        if self.process is None or self.running:
            return False
        code, log = self.process.stop(), self.process.log()
        if code != EXIT_UNREACHABLE:
            raise StuckError(f"the server ended with {code}:\n{log[-2000:]}")
        if not self.up:
            return False
        self._logs.append(log)
        self.start()
        return True

    def set_clock_right(self) -> bool:
        """A server whose clock is wrong is started again with the right one: stamps of then stay."""
        self._right = True
        if not self._off_ns or not self.running:
            return False
        self.kill()
        self.start()
        return True

    def copy(self, blow: Blow) -> bool:
        """Copy the database, or put the copy back; False where that has to wait."""
        early = blow.what != "copy" and not self.kills["copy"]
        purging = any(process.poll() is None for process in self._purges)
        if early or not self.running or not self.up or purging:
            return False
        if blow.what != "copy" or blow.how != "live":
            self.kill()
        if blow.what == "copy":
            self.database.copy(self.url, blow.how)
            self.kills[f"copy by {blow.how}"] += 1
        else:
            self._replaced |= self._tokens()
            self.database.put_back(self.url, said=blow.what == "restored")
        return True

    def has_lost(self, hashes: Sequence[str]) -> bool:
        """Whether a database that was replaced by a copy knew one of a device's tokens, and this none."""
        wanted = set(hashes)
        return bool(wanted & self._replaced) and not wanted & self._tokens()

    def _tokens(self) -> set[str]:
        """SHA-256 of all tokens that the database knows, hexadecimal."""
        with open_database(self.url, connections=1) as database, database.read() as transaction:
            return {bytes(row["hash"]).hex() for row in transaction.rows("SELECT hash FROM tokens")}

    def purge(self) -> None:
        """Have all tombstones forgotten, by another process."""
        command = [*COMMAND, "admin", "purge", TENANT, "--days", "0", "--database", self.url]
        self._purges.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        )

    def purge_all(self) -> None:
        """Have all tombstones forgotten, here, whatever their stamps are."""
        program = self.program
        if program:  # whatever is broken is broken there too
            code = f"{program}\nfrom edge_mrl_server.storage import open_database\n"
            code += "from edge_mrl_server.storage.removal import purge\n"
            code += f"with open_database({self.url!r}, connections=1) as database:\n"
            code += f"    purge(database, {TENANT!r}, before_ms={now_ms() + DAY_MS})\n"
            subprocess.run([sys.executable, "-c", code], check=True)
            return
        with open_database(self.url, connections=1) as database:
            purge(database, TENANT, before_ms=now_ms() + DAY_MS)

    def end_purges(self) -> None:
        """Wait for them."""
        for process in self._purges:
            said = process.communicate()[0].decode()
            if process.returncode not in (0, 4):  # 4: the database was down
                raise StuckError(f"purge: {said}")
        self._purges = []

    def held(self) -> Held:
        """What is in the database, read behind its back."""
        return self.database.read(self.url)

    def has(self, name: str) -> list[bool]:
        """Whether the server has a document as deleted; empty where it does not know it."""
        return [row.deleted for row in self.held().rows if row.id == name]

    def end(self) -> list[str]:
        """End everything; what of its log says that it failed inside."""
        for process in self._purges:
            if process.poll() is None:
                process.kill()
                process.communicate()
        self.start_database()
        if self.process is not None:
            self.process.stop()
            self._logs.append(self.process.log())
        failed = [log for log in self._logs if "internal error" in log]
        return [f"the server failed inside:\n{log[-3000:]}" for log in failed]
