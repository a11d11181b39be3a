"""Killing a command while it brings a store to the present version."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

#: Opens a store with the command line, and ends itself at some record of a migration's progress.
KILLED = """
import logging, os, signal, sys
from edge_mrl.cli import main
from edge_mrl.store.schema import report

class Killer(logging.Handler):
    def emit(self, record):
        self.left = getattr(self, "left", int(sys.argv[2])) - 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)

def commits(self, rows, add=report.Report.add):
    add(self, rows)
    self._connection.execute("COMMIT")
    self._connection.execute("BEGIN IMMEDIATE")

report._REPORT_S = -1
if sys.argv[3:]:
    report.Report.add = commits
logging.getLogger("edge_mrl.store").addHandler(Killer())
sys.exit(main(["stats", "--store", sys.argv[1]]))
"""


def kill_at(path: Path, record: int, *broken: str) -> None:
    """Kill it at that record of its progress, from 1; with a word more it commits half of its work."""
    command = [sys.executable, "-c", KILLED, str(path), str(record), *broken]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == -signal.SIGKILL, done
    assert "s.db was written by an earlier edge-mrl" in done.stderr
