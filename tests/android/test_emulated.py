"""The APK's own classes.dex and arm64 libraries, on the emulated CPUs of phones of 2015 and 2018."""

from __future__ import annotations

import os
import re
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from android_demo.tools import sdk
from android_demo.tools.toolchain import UnavailableError as NoPartError
from edge_mrl.documents import Document
from edge_mrl.index import Index
from tests.android.conftest import REASON, REQUIRED
from tests.android.emulation.names import RENAMED, undefined
from tests.android.emulation.phone import Phone, open_phone, traced
from tests.android.test_encode import wrong_codes
from tests.android.test_index import TEXTS
from tests.arm.testbed import UnavailableError
from tests.support.bundles import TINY, copy_bundle

#: What a score may change by between two architectures, as tests/arm has it.
SCORE = 0.02
QUERIES = ("when does the boat leave", "old harbour", "milk", "fox")


@pytest.fixture(scope="session")
def phone(
    unsigned: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Phone:
    try:
        return open_phone(unsigned, tmp_path_factory.mktemp("phone"))
    except (UnavailableError, NoPartError) as error:
        if os.environ.get(REQUIRED):
            raise
        request.config.stash[REASON] = str(error)
        pytest.skip(f"no emulated phone here: {error}")


def _asked(folder: Path, bundle: Path, texts: dict[str, str]) -> list[dict[str, Any]]:
    path = folder / "s.db"
    searches = [
        {"do": "search", "query": query, "mode": mode, "k": len(texts)}
        for query in QUERIES
        for mode in ("VECTOR", "HYBRID", "KEYWORD")
    ]
    return [
        {"do": "verify", "bundle": str(bundle)},
        {"do": "open", "path": str(path), "bundle": str(bundle)},
        {"do": "put", "texts": texts},
        *searches,
    ]


def _compare(answers: list[Any], folder: Path, bundle: Path, texts: dict[str, str]) -> None:
    """A verification that passed, and the hits of Python on this machine."""
    verified, _, passages, *found = answers
    assert verified["failures"] == []
    assert verified["same_ids"]
    with Index.open(folder / "x86.db", bundle) as index:
        stored = index.put(Document(name, text) for name, text in texts.items())
        assert passages == stored.passages
        places = iter(found)
        for query in QUERIES:
            for mode in ("vector", "hybrid", "keyword"):
                hits = next(places)
                wanted = index.search(query, len(texts), mode=mode)  # type: ignore[arg-type]
                assert {hit[0] for hit in hits} == {hit.id for hit in wanted}
                scores = {hit.id: hit.score for hit in wanted}
                for name, score, _, _ in hits:
                    assert score == pytest.approx(scores[name], abs=SCORE)
                if mode == "keyword":
                    assert [hit[0] for hit in hits] == [hit.id for hit in wanted]
    # What the phone wrote is found sound and is searched here.
    with Index.open(folder / "s.db", bundle) as theirs:
        assert theirs.count().documents == len(texts)
        assert theirs.search("harbour", 3)


@pytest.mark.test
@pytest.mark.arm
def test_the_apk_verifies_its_bundle_and_searches(phone: Phone, tmp_path: Path) -> None:
    texts = {f"n{number}": text for number, text in enumerate(TEXTS)}
    damaged = copy_bundle(tmp_path / "damaged")
    wrong_codes(damaged)
    notes = {
        "do": "notes", "folder": str(tmp_path), "bundle": str(TINY), "query": "ferry",
        "texts": {"a": "Bread is warm. The ferry is late.", "b": "A fox."},
    }  # fmt: skip
    asked = [*_asked(tmp_path, TINY, texts), notes, {"do": "verify", "bundle": str(damaged)}]
    calls = tmp_path / "calls.txt"
    *answers, noted, refused = phone(asked, cpu="cortex-a76", calls=calls)
    _compare(answers, tmp_path, TINY, texts)
    assert noted[0] == ["a", "The ferry is late."]
    assert any("codes differ" in one for one in refused["failures"])  # it can fail
    # ONNX Runtime can report to its maker: nothing in this process connected to the Internet.
    assert not _internet(calls)
    assert "openat(" in calls.read_text("utf-8", errors="replace")


def _internet(calls: Path) -> list[str]:
    text = calls.read_text("utf-8", errors="replace")
    # Addresses of the Internet have 16 or 28 bytes. Java opens sockets to see what there is, and no more.
    return re.findall(r"\bconnect\(\d+,0x[0-9a-f]+,(?:16|28)\)|\bsend(?:to|msg|mmsg)\(\d+", text)


@pytest.mark.test
@pytest.mark.arm
def test_a_connection_would_be_noticed(phone: Phone, tmp_path: Path) -> None:
    calls = tmp_path / "calls.txt"
    program = (
        "import socket\n"
        "socket.socket().connect_ex(('127.0.0.1', 9))\n"
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'a', ('127.0.0.1', 9))\n"
    )
    line = phone.bed.command("-c", program, cpu="cortex-a76")
    subprocess.run(traced(line, calls), check=True, env=phone.bed.environment(), timeout=120)
    assert len(_internet(calls)) == 2


@pytest.mark.nightly
@pytest.mark.arm
@pytest.mark.parametrize("cpu", ["cortex-a72", "cortex-a76"])
def test_the_default_bundle_is_verified_by_the_apk(
    phone: Phone, minilm_bundle: Path, tmp_path: Path, cpu: str
) -> None:
    texts = {f"n{number}": text[:120] for number, text in enumerate(TEXTS)}
    _compare(phone(_asked(tmp_path, minilm_bundle, texts), cpu=cpu), tmp_path, minilm_bundle, texts)


@pytest.mark.test
@pytest.mark.arm
def test_libraries_are_the_apks_but_for_a_few_names(phone: Phone, unsigned: Path) -> None:
    with zipfile.ZipFile(unsigned) as archive:
        for name in ("libonnxruntime.so", "libsqlitejdbc.so"):
            plain = np.frombuffer(archive.read(f"lib/arm64-v8a/{name}"), np.uint8)
            copy = phone.folder / "lib" / name
            changed = np.flatnonzero(plain != np.frombuffer(copy.read_bytes(), np.uint8))
            # Two letters of each name, and the tags of five entries of at most four bytes.
            assert 0 < len(changed) <= 2 * len(RENAMED) + 5 * 4
            assert not undefined(copy) & set(RENAMED)
            assert "zzsconf" in undefined(copy)


#: Classes of the APK that use what Android 7 lacks, and why none of it is reached there.
LACKING = {
    "org.edgemrl.demo.ui.Screen": "asked for from Android 11 on",
    "org.edgemrl.demo.ui.ViewsKt": "asked for from Android 9 on",
    "ai.onnxruntime.OnnxRuntime": "unpacks libraries where there is no Android",
    "org.slf4j.LoggerFactory": "looks for a binding, and does without one",
    "org.sqlite.SQLiteConnection": "copies databases out of jars",
    "org.sqlite.SQLiteJDBCLoader": "the driver's own loader: EdgeMrl.prepare says that it is done",
    "org.sqlite.core.DB": "says which statements of a batch failed: core runs no batches",
    "org.sqlite.jdbc3.JDBC3PreparedStatement": "names types of parameters: core does not ask",
    "org.sqlite.jdbc3.JDBC3Statement": "says which statements of a batch failed",
    "org.sqlite.jdbc4.JDBC4ResultSet": "gives dates: core has none",
    "org.sqlite.util.OSInfo": "a part of the driver's own loader",
}


def _lacking(jar: Path, folder: Path) -> set[str]:
    """Classes with a reference that neither the APK nor the oldest Android resolves."""
    with zipfile.ZipFile(jar) as archive:
        names = [name.removesuffix(".class").replace("/", ".") for name in archive.namelist()]
    own = folder / "own.txt"
    own.write_text("\n".join(names), encoding="utf-8")
    found = sdk.lint([jar], own=own)
    owners = re.findall(r"\.jar:(.+?)\.class\b.*Undefined reference", found)
    return {owner.partition("$$External")[0].replace("/", ".") for owner in owners}


@pytest.mark.test
@pytest.mark.arm
def test_every_reference_of_the_dex_resolves_or_is_known(phone: Phone, tmp_path: Path) -> None:
    jar = phone.folder / "dex.jar"
    assert _lacking(jar, tmp_path) == set(LACKING)
    # A class that is gone is noticed.
    with zipfile.ZipFile(jar) as archive, zipfile.ZipFile(tmp_path / "less.jar", "w") as less:
        for name in archive.namelist():
            if name != "org/edgemrl/store/Store.class":
                less.writestr(name, archive.read(name))
    assert "org.edgemrl.Index" in _lacking(tmp_path / "less.jar", tmp_path)
