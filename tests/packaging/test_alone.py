"""Each distribution, and each extra, alone in a fresh environment: installed, and tried."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.bundles import ROOT, TINY, copy_bundle
from tests.support.fresh import Fresh, build, environment, install
from tests.support.models import build_model
from tests.support.pythons import UnreachableError

Installer = Callable[..., Fresh]
CORE = {"numpy", "onnxruntime", "tokenizers"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture
def fresh(tmp_path: Path) -> Installer:
    def make(*wanted: str, constraints: str | None = "tested") -> Fresh:
        place = tmp_path / "fresh"
        place.mkdir()
        try:
            return install(place, *wanted, constraints=constraints)
        except UnreachableError as error:
            pytest.skip(f"no network to install from: {error}")

    return make


def tried(place: Fresh, *bundle: str) -> None:
    """The main job: verify, index, search, check; without a bundle's name if one is installed."""
    (place.folder / "notes").mkdir()
    (place.folder / "notes" / "a.txt").write_text("the cat and the dog", "utf-8")
    assert "result" in place.run("verify", *bundle)
    option = ["--bundle", *bundle] if bundle else []
    place.run("index", "notes", "--store", "s.db", "--quiet", *option)
    assert "the cat and the dog" in place.run("search", "a cat", "--store", "s.db")
    assert "sound" in place.run("check", "--store", "s.db")


@pytest.mark.test
def test_the_core_with_its_oldest_dependencies(wheel: Path, fresh: Installer) -> None:
    place = fresh(str(wheel), constraints="lowest")
    assert place.names() >= {"edge-mrl", *CORE}
    assert not place.names() & {"torch", "starlette", "cryptography", "selectolax"}
    tried(place, str(TINY))
    assert 'pip install "edge-mrl[server]"' in place.run("serve", code=3)


@pytest.mark.nightly
def test_the_core_with_its_newest_dependencies(wheel: Path, fresh: Installer) -> None:
    tried(fresh(str(wheel), constraints=None), str(TINY))


@pytest.mark.test
def test_the_default_model(wheel: Path, fresh: Installer, tmp_path: Path) -> None:
    done = build_model(tmp_path / "dist", TINY)
    assert done.returncode == 0, done.stderr
    (model,) = (tmp_path / "dist").glob("*.whl")
    tried(fresh(str(wheel), str(model)))


@pytest.mark.nightly
def test_the_default_model_needs_nothing(fresh: Installer, tmp_path: Path) -> None:
    assert build_model(tmp_path / "dist", TINY).returncode == 0
    (model,) = (tmp_path / "dist").glob("*.whl")
    place = fresh(str(model))
    assert place.names() == {"edge-mrl-minilm"}
    code = "import edge_mrl_minilm, os; print(sorted(os.listdir(edge_mrl_minilm.BUNDLE)))"
    assert "'edge_mrl.json'" in place.run("python", "-c", code)


@pytest.mark.nightly
def test_the_kernels_alone_and_with_the_core(wheel: Path, fresh: Installer, tmp_path: Path) -> None:
    kernels = build(ROOT / "kernels", tmp_path / "dist")
    place = fresh(str(kernels))
    assert place.names() == {"edge-mrl-kernels"}
    named = place.run("python", "-c", "import edge_mrl_kernels as k; print(k.load().name)")
    place = install(tmp_path / "fresh" / "both", str(wheel), str(kernels))
    tried(place, str(TINY))
    assert f"kernels {named.strip()}" in place.run("verify", TINY)


def use_hub(place: Fresh) -> None:
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert "cannot be reached" in place.run("pull", "maria/tiny", code=4, **nowhere)
    assert "cannot be reached" in place.run("push", TINY, "maria/tiny", code=4, **nowhere)


def use_files(place: Fresh) -> None:
    (place.folder / "pages").mkdir()
    (place.folder / "pages" / "a.html").write_text("<p>the cat <b>and</b> the dog</p>", "utf-8")
    place.run("index", "pages", "--store", "s.db", "--bundle", TINY, "--quiet")
    assert "the cat and the dog" in place.run("search", "a cat", "--store", "s.db")


def use_signed(place: Fresh) -> None:
    bundle = copy_bundle(place.folder / "bundle")
    place.run("sign", "--new-key", "own.key")
    place.run("sign", bundle, "--key", "own.key")
    place.run("verify", bundle, "--trust", "own.key.pub")
    place.run("verify", TINY, "--trust", "own.key.pub", code=2)


def use_encrypted(place: Fresh) -> None:
    (place.folder / "keys").mkdir()
    (place.folder / "keys" / "own").write_bytes(bytes(range(32)))
    (place.folder / "keys" / "own").chmod(0o600)
    (place.folder / "data").mkdir()
    (place.folder / "a.txt").write_text("the cat and the dog", "utf-8")
    store = ["--store", "data/s.db", "--key-file", "keys/own"]
    place.run("index", "a.txt", "--bundle", TINY, "--quiet", *store)
    assert "the cat and the dog" in place.run("search", "a cat", *store)
    assert b"the cat" not in (place.folder / "data" / "s.db").read_bytes()
    place.run("search", "a cat", "--store", "data/s.db", code=2)


def use_server(place: Fresh) -> None:
    place.run("admin", "tenants", "create", "home", "--database", "server.db")
    edge = place.python.with_name("edge-mrl")
    process = subprocess.Popen(
        [edge, "serve", "--database", "server.db", "--port", "0", "--json", "--quiet"],
        cwd=place.folder,
        env={**environment(), "HOME": str(place.folder)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        listening = json.loads(process.stdout.readline())
        with urllib.request.urlopen(f"{listening['url']}/healthz", timeout=20) as answer:
            assert answer.status == 200
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def use_mcp(place: Fresh) -> None:
    (place.folder / "a.txt").write_text("the cat and the dog", "utf-8")
    place.run("index", "a.txt", "--store", "s.db", "--bundle", TINY, "--quiet")
    code = (
        "import asyncio, sys\n"
        "from mcp.client.client import Client\n"
        "from mcp.client.stdio import StdioServerParameters, stdio_client\n"
        "own = ['-m', 'edge_mrl', 'mcp', '--store', 's.db']\n"
        "async def ask():\n"
        "    start = StdioServerParameters(command=sys.executable, args=own)\n"
        "    async with Client(stdio_client(start)) as agent:\n"
        "        print((await agent.call_tool('search', {'query': 'cat'})).structured_content)\n"
        "asyncio.run(ask())\n"
    )
    assert "the cat and the dog" in place.run("python", "-c", code)


def use_embeddings(place: Fresh) -> None:
    edge = place.python.with_name("edge-mrl")
    process = subprocess.Popen(
        [edge, "serve-embeddings", "--bundle", TINY, "--port", "0", "--json"],
        cwd=place.folder,
        env={**environment(), "HOME": str(place.folder)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        listening = json.loads(process.stdout.readline())
        asked = json.dumps({"model": listening["model"], "input": "a cat"}).encode()
        with urllib.request.urlopen(f"{listening['url']}/embeddings", asked, timeout=20) as answer:
            assert len(json.load(answer)["data"][0]["embedding"]) == 32
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        process.communicate()


@pytest.mark.nightly
@pytest.mark.parametrize("newest", [False, True], ids=["tested", "newest"])
@pytest.mark.parametrize(
    ("extra", "used"),
    [
        ("hub", use_hub),
        ("mcp", use_mcp),
        ("embeddings", use_embeddings),
        ("files", use_files),
        ("signed", use_signed),
        ("encrypted", use_encrypted),
        ("server", use_server),
    ],
)
def test_each_extra_alone(
    wheel: Path, fresh: Installer, extra: str, used: Callable[[Fresh], None], newest: bool
) -> None:
    used(fresh(f"{wheel}[{extra}]", constraints=None if newest else "tested"))


@pytest.mark.nightly
def test_the_exporter_alone(wheel: Path, fresh: Installer, tmp_path: Path) -> None:
    from tests.support.tiny import sentence_folder

    place = fresh(f"{wheel}[export]", "torch==2.13.0")
    model = sentence_folder(tmp_path / "model")
    place.run("export", model, "-o", "bundle", "--dim", "8", "--allow-low-fidelity")
    tried(place, "bundle")


@pytest.mark.nightly
def test_bundles_of_a_hub_with_its_newest_client(wheel: Path, fresh: Installer) -> None:
    """The hub's own tests once more, in an environment with the newest huggingface_hub."""
    tools = ("filelock", "hypothesis", "pytest", "pytest-timeout", "pytest-xdist")
    place = fresh(f"{wheel}[hub,signed]", *tools, constraints=None)
    tests = [ROOT / "tests" / "bundle" / f"{name}.py" for name in ("test_hub", "test_hub_names")]
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:leftovers", f"--basetemp={place.folder}/t"]
    assert " passed" in place.run("python", "-m", "pytest", *options, *tests)


def test_an_environment_that_lacks_a_part_is_noticed(tmp_path: Path) -> None:
    """The sabotage twin: what is not there cannot be tried."""
    with pytest.raises((AssertionError, FileNotFoundError)):
        tried(Fresh(tmp_path), str(TINY))
