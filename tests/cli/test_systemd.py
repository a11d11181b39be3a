"""The unit files: systemd accepts them, the sandbox allows what the program does, the command works."""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from edge_mrl.diagnose.checks.units import check_units
from tests.support.bundles import copy_bundle
from tests.support.processes import COMMAND, good, wait_until
from tests.support.serving import serving

pytestmark = pytest.mark.test

ROOT = Path(__file__).parent.parent.parent
UNITS = ROOT / "packaging" / "systemd"
SERVICE = UNITS / "edge-mrl-index@.service"
TIMER = UNITS / "edge-mrl-index@.timer"
SYNC = UNITS / "edge-mrl-sync@.service"
SYSTEM = Path("/lib/systemd/system")
#: The instance that systemd-analyze makes of a template.
USER = "i"
#: What systemd calls safe ends at 2.0 of 10; `--threshold` takes tenths. Sync may use the network.
EXPOSURE = {SERVICE: 15, SYNC: 23}
PR_SET_MDWE = 65  # Linux 6.3: no memory that can be written and run

analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None or not SYSTEM.is_dir(),
    reason="UNIT FILES NOT CHECKED: needs systemd-analyze (apt install systemd)",
)
strace = pytest.mark.skipif(
    shutil.which("strace") is None or shutil.which("systemd-analyze") is None,
    reason="SANDBOX NOT CHECKED: needs strace and systemd-analyze (apt install strace systemd)",
)


def settings(unit: Path, section: str = "Service") -> dict[str, list[str]]:
    """Names and values of a unit's section; a name may come several times."""
    found: dict[str, list[str]] = {}
    inside = False
    for line in unit.read_text("utf-8").splitlines():
        if line.startswith("["):
            inside = line == f"[{section}]"
        elif inside and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def system(root: Path) -> Path:
    """A system's root with systemd's own units, ours, and a program where ours expect one."""
    shutil.copytree(SYSTEM, root / "lib" / "systemd" / "system", symlinks=True)
    home = root / "etc" / "systemd" / "system"
    home.mkdir(parents=True)
    for unit in UNITS.iterdir():
        shutil.copy(unit, home)
    program = root / "home" / USER / "edge-mrl" / "venv" / "bin" / "edge-mrl"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return root


def verify(root: Path) -> subprocess.CompletedProcess[str]:
    units = sorted(unit.name for unit in UNITS.iterdir())
    command = ["systemd-analyze", "verify", f"--root={root}", *units]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@analyze
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    found = verify(system(tmp_path))
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@analyze
@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("Nice=10", "Nicee=10", "Unknown key"),
        ("MemoryMax=512M", "MemoryMax=much", "Invalid memory limit"),
        ("/venv/bin/edge-mrl", "/venv/bin/other", "is not executable"),
    ],
)
def test_systemd_would_notice_a_mistake(
    right: str, wrong: str, complaint: str, tmp_path: Path
) -> None:
    root = system(tmp_path)
    unit = root / "etc" / "systemd" / "system" / SERVICE.name
    text = unit.read_text("utf-8")
    assert right in text
    unit.write_text(text.replace(right, wrong), "utf-8")
    found = verify(root)
    assert found.returncode or complaint in found.stderr
    assert complaint in found.stderr


@analyze
@pytest.mark.parametrize("unit", EXPOSURE, ids=lambda unit: unit.stem)
def test_service_is_well_confined(unit: Path) -> None:
    threshold = f"--threshold={EXPOSURE[unit]}"
    command = ["systemd-analyze", "security", "--offline=true", threshold, unit]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-300:] + found.stderr


def test_service_runs_behind_everything_else_and_offline() -> None:
    found = settings(SERVICE)
    assert found["IOSchedulingClass"] == ["idle"]
    assert int(found["Nice"][0]) > 0
    assert found["PrivateNetwork"] == ["yes"]
    assert found["ReadWritePaths"] == ["/home/%i/edge-mrl"]
    assert "MemoryMax" in found
    # A tokenizer and ONNX Runtime see the CPU there; without it the latter has crashed on ARM.
    assert found.get("ProcSubset", ["all"]) == ["all"]


def test_timer_starts_the_service_of_its_user() -> None:
    found = settings(TIMER, "Timer")
    assert set(found) >= {"OnBootSec", "OnUnitInactiveSec"}
    assert settings(TIMER, "Install")["WantedBy"] == ["timers.target"]
    # Without Unit=, a timer starts the service of its own name.
    assert "Unit" not in found
    assert SERVICE.stem == TIMER.stem


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's home as the guide has it, with the small bundle."""
    folder = tmp_path / "home"
    (folder / "notes").mkdir(parents=True)
    (folder / "edge-mrl").mkdir()
    copy_bundle(folder / "edge-mrl" / "bundle")
    (folder / "notes" / "boat.md").write_text("the cat and the dog leave at dawn", "utf-8")
    (folder / "notes" / "old.md").write_text("training of a model", "utf-8")
    return folder


def command(extra: dict[str, str] | None = None, unit: Path = SERVICE) -> list[str]:
    """ExecStart as systemd runs it, with this interpreter: ${X} is one word, $X as many as it holds."""
    found = settings(unit)
    values = dict(pair.split("=", 1) for pair in shlex.split(found["Environment"][0]))
    values |= extra or {}
    program, *words = found["ExecStart"][0].split()
    assert program == "/home/%i/edge-mrl/venv/bin/edge-mrl"
    line: list[str] = []
    for word in words:
        if match := re.fullmatch(r"\$\{(\w+)\}", word):
            line.append(values[match[1]])
        elif word.startswith("$"):
            line += values[word[1:]].split()
        else:
            line.append(word)
    return [*COMMAND, *line]


def data_limit(unit: Path = SERVICE) -> int:
    """A service's LimitDATA, in bytes."""
    size = settings(unit)["LimitDATA"][0]
    assert size.endswith("M")
    return int(size[:-1]) * 2**20


def limit_data() -> None:
    """The service's LimitDATA, in this process."""
    resource.setrlimit(resource.RLIMIT_DATA, (data_limit(), data_limit()))


@pytest.mark.test
@pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")
def test_command_of_the_service_indexes_and_prunes_within_its_limit(home: Path) -> None:
    for gone in (False, True):
        if gone:
            (home / "notes" / "old.md").unlink()
        done = subprocess.run(
            [*command(), "--json"], cwd=home, preexec_fn=limit_data, capture_output=True, check=True
        )
        facts = json.loads(done.stdout)
        assert (facts["pruned"], facts["store"]["documents"]) == ((1, 1) if gone else (0, 2))
    # The very command that a user types in the home folder finds the same ids unchanged.
    typed = [*COMMAND, "index", "notes/", "--store", "edge-mrl/notes.db", "--json"]
    done = subprocess.run(typed, cwd=home, capture_output=True, check=True)
    assert json.loads(done.stdout)["unchanged"] == 1


def test_index_env_names_other_folders(home: Path) -> None:
    (home / "letters").mkdir()
    (home / "letters" / "a.txt").write_text("a dog", "utf-8")
    extra = {"EDGE_MRL_PATHS": "notes letters", "EDGE_MRL_STORE": "edge-mrl/everything.db"}
    done = subprocess.run([*command(extra), "--json"], cwd=home, capture_output=True, check=True)
    assert json.loads(done.stdout)["added"] == 3
    assert (home / "edge-mrl" / "everything.db").exists()


def test_interrupted_run_counts_as_good() -> None:
    found = settings(SERVICE)
    assert found["KillSignal"] == ["SIGINT"]
    # What an interrupted command returns, and one that left out texts that the bundle cannot take.
    assert found["SuccessExitStatus"] == ["130 5"]


@pytest.mark.test
def test_sync_service_sends_what_is_indexed_and_ends_when_asked(home: Path, tmp_path: Path) -> None:
    store = home / "edge-mrl" / "notes.db"
    index = [*command(), "--quiet"]
    subprocess.run(index, cwd=home, check=True)
    with serving(tmp_path / "server.db") as server:
        good("enroll", "--server", server.url, "--code", server.code, "--store", store)
        sync = [*command({"EDGE_MRL_INTERVAL": "1"}, SYNC), "--json"]
        limited = ["sh", "-c", f'ulimit -d {data_limit(SYNC) // 1024}; exec "$@"', "sh", *sync]
        process = subprocess.Popen(limited, cwd=home, stdout=subprocess.PIPE)
        try:
            wait_until(lambda: _queued(store) == 0)
            (home / "notes" / "new.md").write_text("a harbour at night", "utf-8")
            subprocess.run(index, cwd=home, check=True)
            wait_until(lambda: _queued(store) == 0)
        finally:
            process.send_signal(signal.SIGTERM)
            said = [json.loads(line) for line in process.communicate(timeout=60)[0].splitlines()]
    assert process.returncode == 0
    assert sum(line["pushed"] for line in said) == 3


def _queued(store: Path) -> int:
    with closing(sqlite3.connect(store)) as connection:
        count: int = connection.execute("SELECT count(*) FROM outbox").fetchone()[0]
        return count


def test_sync_service_comes_back_and_may_use_the_network_alone() -> None:
    found = settings(SYNC)
    assert found["Restart"] == ["on-failure"]
    assert "PrivateNetwork" not in found
    assert found["RestrictAddressFamilies"] == ["AF_INET AF_INET6 AF_UNIX AF_NETLINK"]
    assert found["ReadWritePaths"] == ["/home/%i/edge-mrl"]
    assert settings(SYNC, "Install")["WantedBy"] == ["multi-user.target"]
    # The same sandbox otherwise.
    mine, other = (
        {(name, value) for name, values in settings(unit).items() for value in values}
        for unit in (SYNC, SERVICE)
    )
    assert {name for name, _ in other - mine if name.startswith(("Protect", "Restrict"))} == {
        "RestrictAddressFamilies"
    }
    assert {pair for pair in other if pair[0] == "SystemCallFilter"} <= mine


@pytest.mark.test
def test_service_stays_failed_where_a_person_has_to_act(home: Path, tmp_path: Path) -> None:
    """Not enrolled, or refused: two exit codes, and systemd starts it again for neither."""
    prevented = set(map(int, settings(SYNC)["RestartPreventExitStatus"][0].split()))
    store = home / "edge-mrl" / "notes.db"
    subprocess.run([*command(), "--quiet"], cwd=home, check=True)
    line = command({"EDGE_MRL_INTERVAL": "1"}, SYNC)

    def sync() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(line, cwd=home, capture_output=True, check=False, timeout=60)

    bare = sync()
    assert bare.returncode in prevented
    assert b"is not enrolled" in bare.stderr
    with serving(tmp_path / "server.db") as server:
        good("enroll", "--server", server.url, "--invitation", server.invitation, "--store", store)
        path = store.with_name("notes.db-sync.json")
        found = json.loads(path.read_text("utf-8"))
        path.write_text(json.dumps(found | {"token": "0" * len(found["token"])}), "utf-8")
        refused = sync()
    assert refused.returncode in prevented
    assert (bare.returncode, refused.returncode) == (2, 6)
    # A network that fails does not end the service at all; its code would have it started again.
    assert 4 not in prevented


@pytest.mark.test
def test_service_waits_for_a_store_that_is_busy(home: Path, tmp_path: Path) -> None:
    store = home / "edge-mrl" / "notes.db"
    subprocess.run([*command(), "--quiet"], cwd=home, check=True)
    with serving(tmp_path / "server.db") as server:
        good("enroll", "--server", server.url, "--invitation", server.invitation, "--store", store)
        # An exclusive lock, as a conversion takes it: the store cannot even be opened meanwhile.
        with closing(sqlite3.connect(store, isolation_level=None)) as held:
            held.execute("PRAGMA locking_mode = EXCLUSIVE")
            held.execute("BEGIN EXCLUSIVE")
            process = subprocess.Popen(
                command({"EDGE_MRL_INTERVAL": "1"}, SYNC), cwd=home, stderr=subprocess.PIPE
            )
            assert process.stderr is not None
            assert b"waiting:" in process.stderr.readline()
            held.execute("ROLLBACK")
        try:
            wait_until(lambda: _queued(store) == 0, 40)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
    assert process.returncode == 0


SYSTEMCTL = """#!/bin/sh
[ "$1" = list-units ] && echo edge-mrl-sync@maria.service loaded x y z && exit
echo Id=edge-mrl-sync@maria.service
cat "$0.state"
"""


@pytest.mark.parametrize(
    ("state", "level", "words"),
    [
        (
            "ActiveState=active\nSubState=running\nExecMainStatus=0\nNRestarts=0",
            "good",
            "active (running)",
        ),
        (
            "ActiveState=failed\nSubState=failed\nExecMainStatus=6\nResult=exit-code",
            "problem",
            "refuses",
        ),
        (
            "ActiveState=failed\nSubState=failed\nExecMainStatus=2\nResult=exit-code",
            "problem",
            "enrolled",
        ),
        (
            "ActiveState=failed\nSubState=failed\nExecMainStatus=0\nResult=oom-kill",
            "problem",
            "oom-kill",
        ),
        (
            "ActiveState=activating\nSubState=auto-restart\nExecMainStatus=4\nNRestarts=7",
            "problem",
            "7 times",
        ),
    ],
)
def test_doctor_says_how_the_units_are(
    state: str, level: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemctl's words, by a program that says them; `make board` asks the real one."""
    program = tmp_path / "systemctl"
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    (tmp_path / "systemctl.state").write_text(f"{state}\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (found,) = check_units()
    assert (found.level, found.subject) == (level, "units")
    assert words in found.text
    assert level == "good" or "journalctl -u edge-mrl-sync@maria.service" in found.advice


def test_doctor_says_nothing_of_units_where_there_is_no_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(check_units()) == []


def allowed_calls() -> set[str]:
    """System calls that the service's filters leave."""
    calls: set[str] = set()
    for line in settings(SERVICE)["SystemCallFilter"]:
        for name in line.removeprefix("~").split():
            group = expand(name)
            calls = calls - group if line.startswith("~") else calls | group
    return calls


def expand(name: str) -> set[str]:
    """The calls of a group, groups within it included."""
    if not name.startswith("@"):
        return {name}
    listing = ["systemd-analyze", "syscall-filter", name]
    lines = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split("\n")
    members = [line.strip() for line in lines[1:]]
    return {call for m in members if m and not m.startswith("#") for call in expand(m)}


@pytest.mark.test
@strace
def test_sandbox_allows_every_call_of_the_program(home: Path, tmp_path: Path) -> None:
    log = tmp_path / "calls.log"
    trace = ["strace", "-f", "-qq", "-o", str(log)]
    done = subprocess.run([*trace, *command()], cwd=home, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("SANDBOX NOT CHECKED: strace may not trace here")
    calls = set(
        re.findall(r"^\d+ +(\w+)\(", log.read_text("utf-8", errors="replace"), re.MULTILINE)
    )
    assert {"execve", "mmap", "pwrite64", "fdatasync"} <= calls
    # SQLite gives its files to the owner of the store, but only where it is root.
    asked = calls - ({"fchown"} if os.geteuid() == 0 else set())
    assert asked - allowed_calls() == set()
    assert not {"socket", "connect"} & calls


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to deny such memory")
def test_program_needs_no_memory_that_is_written_and_run(home: Path) -> None:
    def deny() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_MDWE, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "this kernel cannot deny it")

    try:
        done = subprocess.run(
            command(), cwd=home, preexec_fn=deny, capture_output=True, text=True, check=False
        )
    except subprocess.SubprocessError:
        pytest.skip("MemoryDenyWriteExecute NOT CHECKED: needs Linux 6.3")
    assert done.returncode == 0, done.stderr


# --- the guide


def blocks(language: str) -> list[str]:
    guide = (ROOT / "docs" / "raspberry-pi.md").read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", guide, re.DOTALL)


@pytest.mark.test
def test_commands_of_the_guide_run_in_the_home_that_it_makes(home: Path) -> None:
    (commands,) = blocks("bash")
    script = f'edge-mrl() {{ {shlex.join(COMMAND)} "$@"; }}\n{commands}'
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "no problems" in done.stdout
    assert "notes/boat.md" in done.stdout


def test_guide_and_units_name_the_same_files() -> None:
    guide = (ROOT / "docs" / "raspberry-pi.md").read_text("utf-8")
    assert "packaging/systemd/edge-mrl-*@.*" in guide
    assert {unit.name for unit in UNITS.iterdir()} == {SERVICE.name, TIMER.name, SYNC.name}
    assert "edge-mrl-index@$USER.timer" in guide
    assert "edge-mrl-sync@$USER.service" in guide
    assert "`EDGE_MRL_INTERVAL`" in guide
    named = {
        name for block in blocks("ini") for name in re.findall(r"^([A-Z_]+)=", block, re.MULTILINE)
    }
    known = {pair.split("=")[0] for pair in shlex.split(settings(SERVICE)["Environment"][0])}
    assert named
    assert named <= known
