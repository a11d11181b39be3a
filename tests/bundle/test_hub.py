"""Bundles pulled from a hub and pushed to it: the real client, a real server on the loopback."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from edge_mrl.bundle import make_key, sign_bundle
from edge_mrl.bundle.manifest import MANIFEST, SIGNATURE
from tests.support.bundles import ROOT, TINY, TINY_COARSE, copy_bundle, rewrite_manifest
from tests.support.hub import TOKEN, Driver, Failure, Hub, Said, files_of, serving_hub
from tests.support.processes import COMMAND, wait_until

pytestmark = pytest.mark.test
NAME = "maria/tiny"
LARGE = "model.onnx.data"


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Hub, Driver]]:
    with serving_hub() as hub:
        driver = Driver(hub.environment(Path("/nonexistent")))
        yield hub, driver
        driver.close()


@pytest.fixture
def hub(served: tuple[Hub, Driver]) -> Hub:
    """The hub, with nothing on it."""
    hub, _ = served
    fresh, url = Hub(), hub.url
    hub.__dict__.update(fresh.__dict__)
    hub.url = url
    return hub


class Device:
    """A machine with a cache of its own."""

    def __init__(self, driver: Driver, home: Path) -> None:
        self.home, self._driver = home, driver
        self.env = {"HF_HOME": str(home / "hf"), "HF_TOKEN": TOKEN}
        self.said: list[Said] = []

    def __call__(self, *arguments: object, **env: str) -> Said:
        self.said.append(self._driver(*arguments, **{**self.env, **env}))
        return self.said[-1]

    def python(self, code: str) -> Said:
        self.said.append(self._driver.python(code, **self.env))
        return self.said[-1]

    def good(self, *arguments: object) -> Said:
        said = self(*arguments)
        assert said.code == 0, said.err
        return said

    @property
    def top(self) -> Path:
        return self.home / "hf" / "hub" / "models--maria--tiny"

    def snapshot(self, commit: str) -> dict[str, bytes]:
        folder = self.top / "snapshots" / commit
        return files_of(folder) if folder.is_dir() else {}


@pytest.fixture
def device(served: tuple[Hub, Driver], hub: Hub, tmp_path: Path) -> Iterator[Device]:
    found = Device(served[1], tmp_path)
    yield found
    assert not [one for one in found.said if TOKEN in one.out + one.err]


def test_a_bundle_is_pushed_pulled_and_used(hub: Hub, device: Device, tmp_path: Path) -> None:
    pushed = json.loads(device.good("push", TINY, NAME, "--private", "--json").out)
    assert hub.repositories[NAME].private
    commit = hub.repositories[NAME].branches["main"]
    assert (pushed["commit"], pushed["card_kept"]) == (commit, False)
    there = hub.repositories[NAME].commits[commit]
    assert there.keys() - files_of(TINY).keys() == {".gitattributes", "README.md"}
    pulled = json.loads(device.good("pull", NAME, "--json").out)
    assert (pulled["commit"], pulled["downloaded"]) == (commit, True)
    assert device.snapshot(commit) == files_of(TINY)  # and neither the card nor anything else
    (tmp_path / "a.txt").write_text("a cat and a dog")
    hub.requests.clear()
    store = ["--store", tmp_path / "s.db"]
    device.good("index", tmp_path / "a.txt", *store, "--bundle", f"hf://{NAME}", "--quiet")
    assert "a cat and a dog" in device.good("search", "a cat", *store).out
    shown = device.good("pull", NAME).out
    assert commit in shown
    assert "was there, every hash compared" in shown
    assert json.loads(device.good("pull", f"{NAME}@{commit}", "--json").out)["commit"] == commit
    assert "result" in device.good("verify", f"hf://{NAME}@{commit}").out
    assert hub.requests == []


def test_without_a_network_the_cache_is_used_and_else_the_error_says_what_to_do(
    hub: Hub, tmp_path: Path
) -> None:
    hub.add(NAME, files_of(TINY))
    environment = {**os.environ, **hub.environment(tmp_path)}
    options = {"env": environment, "cwd": tmp_path, "capture_output": True, "text": True}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*COMMAND, *arguments], check=False, **options)

    environment |= {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    refused = run("pull", NAME)
    assert refused.returncode == 4
    assert "HF_HUB_OFFLINE forbids" in refused.stderr
    assert "`edge-mrl pull maria/tiny` where there is a network" in refused.stderr
    environment["HF_HUB_OFFLINE"] = "0"
    assert run("pull", NAME).returncode == 0
    hub.requests.clear()
    environment |= {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    assert run("verify", f"hf://{NAME}").returncode == 0
    environment["HF_HUB_OFFLINE"] = "0"
    assert run("pull", NAME).returncode == 0
    refused = run("pull", NAME, "--update")
    assert (refused.returncode, refused.stderr.count("\n")) == (4, 1)
    assert "http://127.0.0.1:9 cannot be reached for hf://maria/tiny" in refused.stderr


@pytest.mark.parametrize("path", ["/api/models", LARGE])
@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "does not let you read it (401): check its name; if it is private, set HF_TOKEN"),
        (403, "does not let you read maria/tiny at main (403)"),
        (404, "(404): check"),
        (410, "is gone from http://127.0.0.1:"),
        (429, "too many requests (429): try again in 7 s"),
        (500, "failed (500): try again later"),
        (0, "cannot be reached for hf://maria/tiny"),
    ],
)
def test_each_refusal_is_one_clear_line(
    hub: Hub, device: Device, status: int, said: str, path: str
) -> None:
    commit = hub.add(NAME, files_of(TINY))
    hub.failures = [Failure(status, path, headers={"Retry-After": "7"} if status == 429 else {})]
    refused = device("pull", NAME)
    assert refused.code == 4, refused.err
    assert said in refused.err
    assert refused.err.count("\n") == 1
    assert LARGE not in device.snapshot(commit)
    assert not (device.top / "refs" / "main").exists()
    hub.failures = []
    device.good("pull", NAME)
    assert device.snapshot(commit) == files_of(TINY)


def test_what_is_no_hub_is_said(hub: Hub, device: Device) -> None:
    hub.add(NAME, files_of(TINY))
    hub.failures = [Failure(200, "/api/models", body=b"<html>log in to the hotel</html>")]
    refused = device("pull", NAME)
    assert (refused.code, refused.err.count("\n")) == (4, 1), refused.err
    assert "a proxy or a login page may have answered" in refused.err
    hub.failures = [Failure(200, "resolve", body=b"<html>log in to the hotel</html>")]
    refused = device("pull", NAME)
    assert (refused.code, refused.err.count("\n")) == (4, 1), refused.err


def test_names_that_are_not_there_are_told_apart(hub: Hub, device: Device) -> None:
    hub.add(NAME, files_of(TINY))
    hub.add("maria/other", {"config.json": b"{}", "model.safetensors": b"x"})
    assert "no repository maria/nothing" in device("pull", "maria/nothing").err
    assert "maria/tiny has no revision v9 (404)" in device("pull", NAME, "--revision", "v9").err
    none = device("pull", "maria/other")
    assert (none.code, "is no bundle: it has no edge_mrl.json" in none.err) == (2, True)
    assert hub.paths("HEAD") == []  # nothing of it was fetched
    assert device("pull", "../etc/passwd").code == 2


@pytest.mark.parametrize(
    ("file", "data", "said"),
    [
        (LARGE, None, f"{LARGE} is missing from hf://maria/tiny"),
        (LARGE, b"x" * 900_000, f"{LARGE} of hf://maria/tiny has 900000 bytes, expected 34304"),
        (MANIFEST, b" " * 1_000_001, f"{MANIFEST} of hf://maria/tiny has 1000001 bytes"),
        (MANIFEST, b"{}", "format is None"),
    ],
)
def test_what_cannot_be_right_is_refused_before_it_is_fetched(
    hub: Hub, device: Device, file: str, data: bytes | None, said: str
) -> None:
    files = {**files_of(TINY), file: data}
    commit = hub.add(NAME, {name: one for name, one in files.items() if one is not None})
    refused = device("pull", NAME)
    assert (refused.code, said in refused.err) == (2, True), refused.err
    assert device.snapshot(commit).keys() <= {MANIFEST}
    assert device("verify", f"hf://{NAME}").code == 2


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "a/../../evil", "..", "x\0y"])
def test_names_in_a_manifest_lead_nowhere(
    hub: Hub, device: Device, tmp_path: Path, name: str
) -> None:
    bundle = copy_bundle(tmp_path / "bundle")

    def change(values: dict[str, dict[str, object]]) -> None:
        values["files"][name] = values["files"].pop("report.html")

    rewrite_manifest(bundle, change)
    files = files_of(bundle)
    commit = hub.add(NAME, {**files, name: files.pop("report.html")})
    refused = device("pull", NAME)
    assert (refused.code, "invalid value of files" in refused.err) == (2, True)
    assert device.snapshot(commit).keys() == {MANIFEST}


def test_bytes_that_are_not_those_of_the_manifest_are_never_a_bundle(
    hub: Hub, device: Device
) -> None:
    files = files_of(TINY)
    files[LARGE] = files[LARGE][:-1] + bytes([files[LARGE][-1] ^ 1])
    hub.add(NAME, files)
    refused = device("pull", NAME)
    assert (refused.code, f"{LARGE} is damaged" in refused.err) == (2, True)
    assert not (device.top / "refs" / "main").exists()
    assert device("embed", "--bundle", f"hf://{NAME}").code == 2


def test_a_size_that_the_hub_does_not_say_is_asked_for(hub: Hub, device: Device) -> None:
    hub.add(NAME, files_of(TINY))
    hub.sizes = False
    device.good("pull", NAME)
    hub.add("maria/large", {**files_of(TINY), MANIFEST: b" " * 2_000_000})
    assert "expected at most 1000000" in device("pull", "maria/large").err


def test_a_bundle_that_nobody_trusted_signed_is_refused_at_its_manifest(
    hub: Hub, device: Device, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    make_key(tmp_path / "own.key")
    make_key(tmp_path / "other.key")
    shutil.copy(tmp_path / "own.key.pub", keys)
    bundle = copy_bundle(tmp_path / "bundle")
    sign_bundle(bundle, tmp_path / "other.key")
    hub.add(NAME, files_of(TINY))
    refused = device("pull", NAME, "--trust", keys)
    assert (refused.code, "is not signed" in refused.err) == (2, True)
    device.good("push", bundle, NAME)
    commit = hub.repositories[NAME].branches["main"]
    assert SIGNATURE in hub.repositories[NAME].commits[commit]
    assert device("pull", NAME, "--trust", keys).code == 2
    assert device.snapshot(commit).keys() == {MANIFEST, SIGNATURE}
    sign_bundle(bundle, tmp_path / "own.key")
    device.good("push", bundle, NAME)
    device.good("pull", NAME, "--trust", keys)
    device.good("verify", f"hf://{NAME}", "--trust", keys)
    device.good("push", TINY, NAME)  # unsigned again: no signature of another bundle stays
    latest = hub.repositories[NAME].commits[hub.repositories[NAME].branches["main"]]
    assert SIGNATURE not in latest


def large_bundle(folder: Path) -> Path:
    """A bundle with a further file of 24 MB: the client writes 10 MB at a time."""
    bundle = copy_bundle(folder)
    data = bytes(range(256)) * 94_000
    (bundle / "extra.bin").write_bytes(data)

    def change(values: dict[str, dict[str, object]]) -> None:
        entry = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
        values["files"]["extra.bin"] = entry

    rewrite_manifest(bundle, change)
    return bundle


def test_a_pull_that_is_killed_leaves_nothing_half_and_goes_on(
    hub: Hub, device: Device, tmp_path: Path
) -> None:
    bundle = large_bundle(tmp_path / "bundle")
    commit = hub.add(NAME, files_of(bundle))
    hub.stalls_after = 12_000_000
    environment = {**os.environ, **hub.environment(tmp_path), "PYTHONPATH": str(ROOT)}
    killed = subprocess.Popen([*COMMAND, "pull", NAME], env=environment)
    blobs = device.top / "blobs"

    def in_the_middle() -> bool:
        parts = blobs.glob("*.incomplete") if blobs.is_dir() else []
        return any(part.stat().st_size > 9_000_000 for part in parts)

    wait_until(in_the_middle)
    killed.kill()
    killed.wait()
    assert "extra.bin" not in device.snapshot(commit)
    assert not (device.top / "refs" / "main").exists()
    assert device("verify", f"hf://{NAME}@{'0' * 40}").code == 4
    left = next(device.top.glob("blobs/*.incomplete")).with_name("0" * 64 + ".incomplete")
    left.write_bytes(b"of a download long ago")
    os.utime(left, (0, 0))
    hub.stalls_after = None
    hub.goes_on.set()
    hub.requests.clear()
    device.good("pull", NAME)
    assert device.snapshot(commit) == files_of(bundle)
    assert not left.exists()
    assert [path for path in hub.paths() if "golden.json" in path] == []  # it was there
    if int(version("huggingface_hub").partition(".")[0]) < 1:  # newer ones begin the file again
        (span,) = {span for _, path, span in hub.requests if path.startswith("/lfs/") and span}
        assert int(span.removeprefix("bytes=").removesuffix("-")) > 9_000_000
    device.good("verify", f"hf://{NAME}")


def test_a_damaged_cache_is_mended(hub: Hub, device: Device) -> None:
    commit = hub.add(NAME, files_of(TINY))
    device.good("pull", NAME)
    for file in (LARGE, MANIFEST):
        blob = (device.top / "snapshots" / commit / file).resolve()
        data = bytearray(blob.read_bytes())
        data[len(data) // 2] ^= 1
        blob.write_bytes(data)
        assert device("verify", f"hf://{NAME}").code == 2 or file == MANIFEST
        device.good("pull", NAME)
        assert device.snapshot(commit) == files_of(TINY)


def test_a_branch_moves_when_it_is_asked_for_and_not_before_all_is_there(
    hub: Hub, device: Device
) -> None:
    first = hub.add(NAME, files_of(TINY))
    device.good("pull", NAME)
    second = hub.add(NAME, files_of(TINY_COARSE))
    assert json.loads(device.good("pull", NAME, "--json").out)["commit"] == first
    hub.failures = [Failure(500, LARGE)]
    assert device("pull", NAME, "--update").code == 4
    assert json.loads(device.good("inspect", f"hf://{NAME}", "--json").out)["dims"]["full"] == 32
    hub.failures = []
    assert json.loads(device.good("pull", NAME, "--update", "--json").out)["commit"] == second
    assert json.loads(device.good("inspect", f"hf://{NAME}", "--json").out)["dims"]["full"] is None
    pinned = device.good("inspect", f"hf://{NAME}@{first}", "--json")
    assert json.loads(pinned.out)["dims"]["full"] == 32


def test_a_copy_to_pass_on_has_no_links(hub: Hub, device: Device, tmp_path: Path) -> None:
    hub.add(NAME, files_of(TINY))
    hub.add("maria/large", files_of(TINY))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").touch()
    refused = device("pull", NAME, "-o", tmp_path / "taken")
    assert (refused.code, hub.requests) == (2, [])
    device.good("pull", NAME, "-o", tmp_path / "copy")
    assert {**files_of(TINY), "README.md": b""}.keys() == files_of(tmp_path / "copy").keys()
    assert not any(path.is_symlink() for path in (tmp_path / "copy").iterdir())
    device.good("verify", tmp_path / "copy")


def card(hub: Hub) -> str:
    repository = hub.repositories[NAME]
    return repository.commits[repository.branches["main"]]["README.md"].decode()


def test_a_persons_card_is_never_replaced_without_force(hub: Hub, device: Device) -> None:
    device.good("push", TINY, NAME)
    made = card(hub)
    device.good("push", TINY_COARSE, NAME)
    assert "8-dimensions" in card(hub)  # one that nobody has changed is made anew
    repository = hub.repositories[NAME]
    head = repository.commits[repository.branches["main"]]
    for own in (b"# Mine\n", made.replace("# tiny-bert", "# Tiny, of Maria").encode()):
        repository.commit({**head, "README.md": own})
        said = device.good("push", TINY, NAME)
        assert "README.md is a person's, and was left as it is" in said.out
        assert card(hub) == own.decode()
    device.good("push", TINY, NAME, "--force", "--license", "mit")
    assert 'license: "mit"' in card(hub)


def test_nothing_but_a_bundle_is_replaced_and_what_is_outdated_goes(
    hub: Hub, device: Device, tmp_path: Path
) -> None:
    hub.add(NAME, {"tokenizer.json": b"{}", "pytorch_model.bin": b"x"})
    refused = device("push", TINY, NAME)
    assert (refused.code, "holds a model that is no bundle" in refused.err) == (2, True)
    assert len(hub.repositories[NAME].commits) == 1
    device.good("push", large_bundle(tmp_path / "large"), NAME, "--force")
    device.good("push", TINY, NAME)
    repository = hub.repositories[NAME]
    there = repository.commits[repository.branches["main"]]
    assert "extra.bin" not in there
    assert "pytorch_model.bin" in there
    device.good("push", TINY, NAME, "--revision", "next", "--message", "Try it")
    assert repository.commits[repository.branches["next"]].keys() == there.keys()


def test_two_who_push_at_once_do_not_mix(hub: Hub, device: Device) -> None:
    device.good("push", TINY, NAME)
    repository = hub.repositories[NAME]

    def other() -> None:
        hub.before_commit = None
        repository.commit({**files_of(TINY_COARSE), "README.md": b"# Other\n"})

    hub.before_commit = other
    refused = device("push", TINY, NAME)
    assert (refused.code, refused.err.count("\n")) == (4, 1), refused.err
    assert "somebody else has pushed to maria/tiny" in refused.err
    assert repository.commits[repository.branches["main"]]["README.md"] == b"# Other\n"


@pytest.mark.parametrize("status", [401, 403, 429, 500])
def test_a_push_that_is_refused_changes_nothing(hub: Hub, device: Device, status: int) -> None:
    device.good("push", TINY, NAME)
    before = dict(hub.repositories[NAME].branches)
    hub.failures = [Failure(status, "/commit/")]
    refused = device("push", TINY_COARSE, NAME)
    assert (refused.code, refused.err.count("\n")) == (4, 1), refused.err
    assert f"({status})" in refused.err
    assert hub.repositories[NAME].branches == before


def test_pushing_needs_a_token_and_a_sound_bundle(hub: Hub, device: Device, tmp_path: Path) -> None:
    refused = device("push", TINY, NAME, HF_TOKEN="")
    assert (refused.code, "set HF_TOKEN" in refused.err) == (4, True)
    bundle = copy_bundle(tmp_path / "bundle")
    (bundle / LARGE).write_bytes(b"x" * 34304)
    hub.requests.clear()
    assert (device("push", bundle, NAME).code, hub.requests) == (2, [])
    assert device("push", TINY, f"{NAME}@{'a' * 40}").code == 2


def test_encoders_by_the_names_of_the_hub(hub: Hub, device: Device, tmp_path: Path) -> None:
    device.good("push", TINY, NAME)
    said = device.python(f"""
        from edge_mrl import Encoder, NetworkError
        try:
            Encoder.from_pretrained({NAME!r}, local_files_only=True)
        except NetworkError as error:
            print(error)
        with Encoder.from_pretrained({NAME!r}, revision="main", threads=1) as encoder:
            print(encoder.encode_document(["a cat"], dim=8).shape)
            encoder.save_pretrained({str(tmp_path / "saved")!r})
            done = encoder.push_to_hub("maria/second", revision="next")
            print(done.name, done.commit, done.card_kept)
    """)
    assert said.code == 0, said.err
    commit = hub.repositories["maria/second"].branches["next"]
    lines = said.out.splitlines()
    assert "is not whole" in lines[0]
    assert lines[1:] == ["(1, 8)", f"hf://maria/second@next {commit} False"]


def test_a_store_alone_fetches_nothing(hub: Hub, device: Device, tmp_path: Path) -> None:
    commit = hub.add(NAME, files_of(TINY))
    (tmp_path / "a.txt").write_text("a cat and a dog")
    store = ["--store", tmp_path / "s.db"]
    device.good("index", tmp_path / "a.txt", *store, "--bundle", f"hf://{NAME}", "--quiet")
    shutil.rmtree(tmp_path / "hf")
    hub.requests.clear()
    refused = device("search", "a cat", *store)
    assert (refused.code, hub.requests) == (2, [])
    assert f"`edge-mrl pull hf://{NAME}@{commit}`" in refused.err
    device.good("pull", f"hf://{NAME}@{commit}")
    assert "a cat and a dog" in device.good("search", "a cat", *store).out
