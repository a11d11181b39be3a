"""Little memory: what is enough works, what is not is one clear error, and nothing stored is lost."""

from __future__ import annotations

import errno
import json
import os
import platform
import resource
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from edge_mrl.errors import OutOfMemoryError, UsageError
from edge_mrl.index import Index
from edge_mrl.machine import memory
from tests.support.bundles import TINY
from tests.support.processes import COMMAND, good

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.test, pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")]

#: Address space, with all that is mapped; and memory that is written.
KINDS = {"space": resource.RLIMIT_AS, "data": resource.RLIMIT_DATA}
LOW = ("--low-memory", "--threads", "1")


def limited(kind: str, megabytes: float, *command: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a process with so little memory, and without the tests' own settings."""
    limit = int(megabytes * 10**6)
    env = {k: v for k, v in os.environ.items() if k not in memory._ONE_THREAD}
    return subprocess.run(
        [str(part) for part in command],
        preexec_fn=lambda: resource.setrlimit(KINDS[kind], (limit, limit)),
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def corpus(
    path: Path, number: int, words: str = "the cat and the dog, training and testing"
) -> Path:
    """Short passages, a line each."""
    lines = (json.dumps({"id": f"{i:05}", "text": f"{i} {words}"}) for i in range(number))
    path.write_text("\n".join(lines), "utf-8")
    return path


def index(store: Path, lines: Path, bundle: Path = TINY) -> list[object]:
    return [*COMMAND, "index", lines, "--bundle", bundle, "--store", store, *LOW, "--json"]


def assert_clear(result: subprocess.CompletedProcess[str]) -> None:
    """One error of ours and no traceback, whichever library ran out of memory."""
    assert result.returncode == 2, result.stderr
    assert json.loads(result.stdout)["error"]["kind"] == "OutOfMemoryError"
    lines = [line for line in result.stderr.splitlines() if line.startswith("edge-mrl: error: ")]
    assert len(lines) == 1
    assert "memory" in lines[0]
    assert "--low-memory" in lines[0]
    assert "Traceback" not in result.stderr


# --- what errors mean


class PanicException(BaseException):
    """A panic as it arrives from Rust."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
        ImportError("libx.so: failed to map segment from shared object"),
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc"),
        RuntimeError("Failed to allocate memory for requested buffer of size 3041280"),
        PanicException("thread pool: Resource temporarily unavailable"),
        OutOfMemoryError("ours"),
    ],
)
def test_shortage_is_recognised_whatever_raises_it(error: BaseException) -> None:
    assert memory.ran_out(error)
    with pytest.raises(OutOfMemoryError), memory.reporting_memory():
        raise error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("something else"),
        ImportError("No module named 'x'"),
        UsageError("memory is a word in this one: bad_alloc"),
        KeyboardInterrupt(),
        PanicException("index out of bounds"),
    ],
)
def test_other_errors_stay_what_they_are(error: BaseException) -> None:
    assert not memory.ran_out(error)
    with pytest.raises(type(error)) as caught, memory.reporting_memory():
        raise error
    assert caught.value is error


@pytest.mark.parametrize("kind", KINDS)
def test_room_is_asked_for_within_the_limit(kind: str) -> None:
    code = (
        "import sys\nfrom edge_mrl.machine.memory import require_room\nrequire_room({0})\nprint('first', "
        "flush=True)\nrequire_room({1})"
    )
    run = limited(kind, 120, sys.executable, "-c", code.format(50_000_000, 120_000_000))
    assert run.stdout == "first\n"
    assert "OutOfMemoryError: there is not enough memory: 120 MB more are needed" in run.stderr


def test_code_counts_as_address_space_only() -> None:
    code = "from edge_mrl.machine.memory import require_room\nrequire_room(10**7, code_bytes=10**9)"
    assert limited("data", 100, sys.executable, "-c", code).returncode == 0
    assert limited("space", 500, sys.executable, "-c", code).returncode == 1


def test_threads_of_libraries_are_one_unless_asked_for_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in memory._ONE_THREAD:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    memory.one_thread_each()
    found = {name: os.environ[name] for name in memory._ONE_THREAD}
    assert found == {**memory._ONE_THREAD, "OMP_NUM_THREADS": "3"}


@pytest.mark.parametrize("asked", [None, "2"])
def test_commands_multiply_on_one_thread_unless_asked_for_otherwise(
    asked: str | None, tmp_path: Path
) -> None:
    lines, store = corpus(tmp_path / "c.jsonl", 5), tmp_path / "s.db"
    good(*map(str, index(store, lines)[3:]))
    env = {k: v for k, v in os.environ.items() if k not in memory._ONE_THREAD}
    env |= {} if asked is None else {"OPENBLAS_NUM_THREADS": asked}
    code = (
        "import os\nfrom edge_mrl.cli import main\n"
        f"main(['check', '--store', {str(store)!r}, '--quiet'])\n"
        "print(len(os.listdir('/proc/self/task')))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    threads = len(os.sched_getaffinity(0))
    assert int(done.stdout) == (1 if asked is None else min(2, threads))


def test_low_memory_embeds_without_threads_of_libraries(tmp_path: Path) -> None:
    lines, store = corpus(tmp_path / "c.jsonl", 20), tmp_path / "s.db"
    found = {}
    for options in ((), LOW):
        code = (
            "import os, sys\nfrom edge_mrl.cli import main\n"
            f"code = main(['index', {str(lines)!r}, '--bundle', {str(TINY)!r}, '--store', "
            f"{str(store)!r}, '--quiet', *{options!r}])\n"
            "print(code, len(os.listdir('/proc/self/task')))"
        )
        done = limited("space", 4000, sys.executable, "-c", code)
        code_, threads = map(int, done.stdout.split())
        assert code_ == 0
        found[options] = threads
        store.unlink()
    assert found[LOW] == 1
    assert found[()] > 1 or len(os.sched_getaffinity(0)) == 1


# --- what unwinding needs


THREADS = """
import ctypes, resource, sys
from edge_mrl.machine import memory
libc = ctypes.CDLL(None)
def run(routine):
    thread = ctypes.c_ulong()
    routine = ctypes.cast(routine, ctypes.c_void_p)
    assert libc.pthread_create(ctypes.byref(thread), None, routine, None) == 0
    assert libc.pthread_join(thread, None) == 0
run(libc.getpid)  # its stack is kept for the next thread
if sys.argv[1] == "loaded":
    memory.load_unwinder()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used, used))
run(libc.pthread_exit)
print("ended")
"""


@pytest.mark.parametrize("state", ["loaded", "not loaded"])
def test_thread_ends_without_memory_if_the_unwinder_is_loaded(state: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", THREADS, state], capture_output=True, text=True, check=False
    )
    if state == "loaded":
        assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr
    elif platform.libc_ver()[0] == "glibc":  # what the loading is for
        assert done.returncode == -signal.SIGABRT
        assert "libgcc_s.so.1 must be installed" in done.stderr


def test_encoding_loads_the_unwinder_first() -> None:
    code = (
        "import sys\nfrom edge_mrl.encode import tokenizer\nfrom edge_mrl import Encoder\n"
        "loaded = []\n"
        "def look(*_):\n"
        "    loaded.append('libgcc_s' in open('/proc/self/maps').read())\n"
        "tokenizer.require_room = look\n"
        f"Encoder.open({str(TINY)!r}, threads=1)\nprint(loaded[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


@pytest.mark.parametrize(
    ("error", "raises"),
    [
        (OSError("libgcc_s.so.1: cannot open shared object file: No such file"), False),
        (OSError("libgcc_s.so.1: failed to map segment from shared object"), True),
        (MemoryError(), True),
    ],
)
def test_system_without_the_unwinder_needs_none(
    error: Exception, raises: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("ctypes.CDLL", fail)
    memory.load_unwinder.cache_clear()
    if raises:
        with pytest.raises(OutOfMemoryError):
            memory.load_unwinder()
    else:
        memory.load_unwinder()
    memory.load_unwinder.cache_clear()


# --- limits


@pytest.mark.parametrize(("kind", "megabytes"), [("space", 256), ("data", 128)])
def test_what_is_enough_works(kind: str, megabytes: int, tmp_path: Path) -> None:
    lines, store = corpus(tmp_path / "c.jsonl", 2000), tmp_path / "s.db"
    result = limited(kind, megabytes, *index(store, lines))
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["added"] == 2000
    found = limited(
        kind, megabytes, *COMMAND, "search", "77 the cat", "--store", store, *LOW, "--json", "-k", 3
    )
    assert found.returncode == 0, found.stderr
    assert len(json.loads(found.stdout)["hits"]) == 3
    assert limited(kind, megabytes, *COMMAND, "check", "--store", store).returncode == 0


@pytest.mark.parametrize(
    ("kind", "megabytes"), [("space", 100), ("space", 162), ("data", 40), ("data", 66)]
)
def test_what_is_not_enough_is_one_clear_error(kind: str, megabytes: int, tmp_path: Path) -> None:
    lines, store = corpus(tmp_path / "c.jsonl", 500), tmp_path / "s.db"
    assert_clear(limited(kind, megabytes, *index(store, lines)))
    # Whatever was begun is sound, and goes on where there is memory.
    if store.exists():
        good("check", "--store", store)
    facts = json.loads(good(*map(str, index(store, lines)[3:])).stdout)
    assert facts["added"] + facts["unchanged"] == 500


@pytest.mark.parametrize("kind", KINDS)
def test_running_out_midway_keeps_what_was_committed(kind: str, tmp_path: Path) -> None:
    lines, store = corpus(tmp_path / "c.jsonl", 1000), tmp_path / "s.db"
    with lines.open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps({"id": "book", "text": "a cat and a dog " * 4_000_000}))
    result = limited(kind, 256, *index(store, lines))
    assert_clear(result)
    kept = json.loads(good("stats", "--store", store, "--json").stdout)["documents"]
    assert 500 < kept <= 1000
    good("check", "--store", store)
    shorter = corpus(tmp_path / "shorter.jsonl", 1000)
    again = limited(kind, 256, *index(store, shorter))
    assert again.returncode == 0, again.stderr
    facts = json.loads(again.stdout)
    assert (facts["unchanged"], facts["added"]) == (kept, 1000 - kept)
    good("check", "--store", store)


def test_graph_that_runs_out_of_memory_raises_ours() -> None:
    code = (
        "import resource\nfrom edge_mrl import Encoder\nfrom edge_mrl.errors import OutOfMemoryError\n"
        f"encoder = Encoder.open({str(TINY)!r}, threads=1, low_memory=True)\n"
        "texts = ['a cat and a dog ' * 16] * 8_000\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "limit = used + 300_000_000\nresource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "try:\n    encoder.encode_padded(texts)\nexcept OutOfMemoryError as error:\n"
        "    print(type(error.__cause__).__module__)\n"
        "print(len(encoder.encode(texts[:3])))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    where, number = done.stdout.split()
    assert where.startswith(("onnxruntime", "numpy", "builtins"))
    assert number == "3"  # the encoder goes on


def test_full_memory_does_not_fail_a_put_that_was_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code file is a cache: where there is no memory to write it, the rows stay where they are."""
    from edge_mrl.store.codefile import cache as codecache
    from tests.support.stores import entry, open_store

    monkeypatch.setattr(codecache, "STAGE_ROWS", 4)

    def no_room(*_: Any) -> None:
        raise MemoryError

    with open_store(tmp_path / "s.db") as store:
        monkeypatch.setattr(codecache.CodeFile, "append", no_room)
        store.put([entry(f"d{i}") for i in range(8)])
        assert store.count().documents == 8
        assert store.cache_problem is not None
        monkeypatch.undo()
        monkeypatch.setattr(codecache, "STAGE_ROWS", 4)
        store.put([entry(f"e{i}") for i in range(8)])
        assert store.cache_problem is None
    good("check", "--store", tmp_path / "s.db")


def test_map_that_finds_no_room_is_no_damage(tmp_path: Path) -> None:
    lines, store = corpus(tmp_path / "c.jsonl", 5000), tmp_path / "s.db"
    good(*map(str, index(store, lines)[3:]))
    codes = tmp_path / "s.db-codes"
    before = (codes.stat().st_ino, codes.read_bytes())
    code = (
        "import resource\nfrom edge_mrl.errors import OutOfMemoryError\n"
        "from edge_mrl.index import Index\n"
        f"with Index.open({str(store)!r}, threads=1, low_memory=True) as index:\n"
        "    index.encoder.encode(['a cat'], kind='query')\n"
        "    used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (used + 2_000_000, resource.RLIM_INFINITY))\n"
        "    try:\n        index.search('a cat')\n        print('found')\n"
        "    except OutOfMemoryError:\n        print('short')\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)\n"
        "    print(len(index.search('a cat')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["short", "10"]
    assert (codes.stat().st_ino, codes.read_bytes()) == before  # it was not made again


@pytest.mark.test
@pytest.mark.parametrize(
    ("kind", "limits"),
    [
        ("space", range(24, 270, 24)),
        ("data", range(16, 140, 15)),
        pytest.param("space", range(24, 270, 8), marks=pytest.mark.nightly),
        pytest.param("data", range(16, 140, 5), marks=pytest.mark.nightly),
    ],
)
def test_every_limit_finds_or_is_a_clear_error(kind: str, limits: range, tmp_path: Path) -> None:
    lines, store = corpus(tmp_path / "c.jsonl", 5000), tmp_path / "s.db"
    good(*map(str, index(store, lines)[3:]))
    worked = []
    for megabytes in limits:
        query = ("search", "77 the cat", "--store", store, *LOW, "--json")
        result = limited(kind, megabytes, *COMMAND, *query)
        worked.append(result.returncode == 0)
        if not worked[-1]:
            assert_clear(result)
    assert worked[-1]
    assert not worked[0]


@pytest.mark.test
@pytest.mark.parametrize(
    ("kind", "limits"),
    [
        ("space", range(24, 200, 18)),
        ("data", range(16, 96, 12)),
        pytest.param("space", range(24, 200, 6), marks=pytest.mark.nightly),
        pytest.param("data", range(16, 96, 4), marks=pytest.mark.nightly),
    ],
)
def test_every_limit_works_or_is_a_clear_error(kind: str, limits: range, tmp_path: Path) -> None:
    lines, worked = corpus(tmp_path / "c.jsonl", 300), []
    for megabytes in limits:
        store = tmp_path / f"{megabytes}.db"
        result = limited(kind, megabytes, *index(store, lines))
        worked.append(result.returncode == 0)
        if not worked[-1]:
            assert_clear(result)
        if store.exists():
            with Index.open(store) as opened:
                assert opened.check().sound
    assert worked[-1]
    assert not worked[0]


#: Where memory is just too short for ONNX Runtime's library, its start ended the process, with SIGSEGV or
#: SIGABRT: at limits of 161.75 to 162.75 MB of address space, a third of the searches.
FINE_LIMITS = [quarter / 4 for quarter in range(4 * 156, 4 * 170)]


@pytest.mark.test
@pytest.mark.parametrize(
    "limits",
    [
        [156.0, 160.0, 161.0, 161.75, 162.0, 162.25, 162.5, 162.75, 164.0, 168.0],
        pytest.param(FINE_LIMITS, marks=pytest.mark.nightly),
    ],
    ids=["some", "all"],
)
@pytest.mark.parametrize("command", ["search", "embed"])
def test_no_limit_ends_a_command_with_a_signal(
    command: str, limits: list[float], tmp_path: Path
) -> None:
    lines, store = corpus(tmp_path / "c.jsonl", 500), tmp_path / "s.db"
    good(*map(str, index(store, lines)[3:]))
    (tmp_path / "t.txt").write_text("the cat\na dog\n", "utf-8")
    arguments = {
        "search": ("search", "77 the cat", "--store", store),
        "embed": ("embed", tmp_path / "t.txt", "--bundle", TINY, "-o", tmp_path / "v.npy"),
    }
    worked = []
    for megabytes in limits:
        result = limited("space", megabytes, *COMMAND, *arguments[command], *LOW, "--json")
        worked.append(result.returncode == 0)
        if not worked[-1]:
            assert result.returncode > 0, f"at {megabytes} MB: {result.stderr}"
            assert_clear(result)
    assert not worked[0]


@pytest.mark.test
@pytest.mark.parametrize(
    ("kind", "megabytes"),
    [
        ("space", 256),
        pytest.param("space", 512, marks=pytest.mark.nightly),
        pytest.param("data", 128, marks=pytest.mark.nightly),
    ],
)
def test_20000_passages_in_little_memory(kind: str, megabytes: int, tmp_path: Path) -> None:
    lines, store = corpus(tmp_path / "c.jsonl", 20_000), tmp_path / "s.db"
    result = limited(kind, megabytes, *index(store, lines))
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["store"]["passages"] == 20_000
    query = ("search", "19999 the cat", "--store", store, *LOW, "--json")
    found = limited(kind, megabytes, *COMMAND, *query)
    assert found.returncode == 0, found.stderr
    assert len(json.loads(found.stdout)["hits"]) == 10
    assert limited(kind, megabytes, *COMMAND, "check", "--store", store).returncode == 0


@pytest.mark.test
@pytest.mark.parametrize(("kind", "megabytes"), [("space", 256), ("data", 150)])
def test_minilm_in_little_memory(
    kind: str, megabytes: int, tmp_path: Path, minilm_bundle: Path
) -> None:
    lines, store = corpus(tmp_path / "c.jsonl", 300), tmp_path / "s.db"
    result = limited(kind, megabytes, *index(store, lines, minilm_bundle))
    assert result.returncode == 0, result.stderr
    query = ("search", "a cat", "--store", store, *LOW, "--json")
    found = limited(kind, megabytes, *COMMAND, *query)
    assert found.returncode == 0, found.stderr
    assert len(json.loads(found.stdout)["hits"]) == 10


# --- long texts


def test_long_text_takes_little_memory(tmp_path: Path) -> None:
    code = (
        "from edge_mrl.encode import Encoder, token_spans\n"
        "from edge_mrl.diagnose.probe import peak_rss\n"
        f"encoder = Encoder.open({str(TINY)!r}, threads=1, low_memory=True)\n"
        "token_spans(encoder, 'a cat and a dog ' * 2000, max_tokens=100, overlap=10)\n"
        "before = peak_rss()\n"
        "spans = token_spans(encoder, 'a cat and a dog ' * 130_000, max_tokens=100, overlap=10)\n"
        "print(len(spans), peak_rss() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    passages, growth = map(int, done.stdout.split())
    assert passages > 5000
    # 2 MB of text: tokenised in one piece, it took 160 MB and more for each of them.
    assert growth < 80_000_000
