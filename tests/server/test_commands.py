"""``edge-mrl serve`` and ``edge-mrl admin``, in processes of their own."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from edge_mrl.cli import main
from edge_mrl.wire.frames import CONTENT_TYPE, decode_items, decode_message, digest, encode_items
from edge_mrl_server.errors import DatabaseError
from edge_mrl_server.http.app import ROUTES
from edge_mrl_server.storage import accounts, open_database
from edge_mrl_server.storage.migrations import MIGRATIONS
from tests.server.conftest import Place
from tests.support.browser import Browser
from tests.support.children import children_of, ending_with_us, mark
from tests.support.processes import COMMAND, good, run, wait_until
from tests.support.serving import Caller, admin, enroll, item, serving, units

pytestmark = pytest.mark.test

GOLDEN = Path(__file__).parents[1] / "golden"
SERVER_PAGE = (Path(__file__).parents[2] / "docs" / "server.md").read_text("utf-8")


def _help(capsys: pytest.CaptureFixture[str], command: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    return capsys.readouterr().out


def test_empty_database_gets_a_tenant_and_a_line_to_type(sqlite_path: Path) -> None:
    with serving(sqlite_path) as server:
        assert server.invitation is not None
        device = enroll(server.url, server.invitation)
        assert device.statuses(item("a")) == ["applied"]
        device.close()
        assert server.stop() == 0
    with serving(sqlite_path) as server:
        assert server.invitation is None
        assert server.stop(signal.SIGINT) == 0


def test_served_line_for_people_enrolls(sqlite_path: Path) -> None:
    command = [*COMMAND, "serve", "--database", str(sqlite_path), "--port", "0", "--quiet"]
    with subprocess.Popen(
        ending_with_us(command), stdout=subprocess.PIPE, text=True, env={**os.environ, **mark()}
    ) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(3)]
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
    url = lines[0].split()[-1]
    assert lines[2].startswith(f"  edge-mrl enroll --server {url} --invitation default_")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["serve", "--port", "70000"], 2, "--port 70000: expected 0 to 65535"),
        (["serve", "--workers", "0"], 2, "--workers 0: expected 1 to"),
        (["serve", "--body-timeout", "-1"], 2, "--body-timeout"),
        (["serve", "--database", "no/such/folder.db"], 4, "unable to open"),
        (["admin", "tenants"], 2, "VERB"),
        (["admin", "invitations", "create", "nobody"], 2, "no tenant nobody"),
        (["admin", "tenants", "create", "No Good"], 2, "expected 1 to 40"),
        (["admin", "tenants", "limit", "default", "size=1"], 2, "limit size"),
        (["admin", "tenants", "limit", "default", "documents"], 2, "NAME=N"),
        (["admin", "purge", "nobody", "--days", "1"], 2, "no tenant nobody"),
        (["admin", "index", "create"], 2, "SQLite has no such index"),
        (["admin", "tokens", "revoke", "default", "x"], 1, ""),
    ],
)
def test_wrong_usage_is_said_and_nothing_else(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    with (
        open_database(str(tmp_path / "edge-mrl-server.db")) as database,
        database.write() as transaction,
    ):
        accounts.create_tenant(transaction, "default")
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert message in result.stderr.decode()
    assert b"Traceback" not in result.stderr


def test_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", "--port", port, "--database", tmp_path / "s.db", "--json")
    assert result.returncode == 4
    assert json.loads(result.stdout)["error"]["kind"] == "NetworkError"


def test_administration_does_what_it_says(
    sqlite_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def admin(*words: str) -> Any:
        capsys.readouterr()
        assert main(["admin", *words, "--database", str(sqlite_path), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert admin("tenants", "create", "acme") == {"tenant": "acme"}
    invitation = admin("invitations", "create", "acme", "--hours", "1")["invitation"]
    limits = admin("tenants", "limit", "acme", "documents=5", "devices=2")["limits"]
    assert limits == {"documents": 5, "devices": 2}
    assert admin("tenants", "limit", "acme", "devices=")["limits"] == {"documents": 5}
    with serving(sqlite_path) as server:
        device = enroll(server.url, invitation, "phone \x1b[2J")
        gone = item("gone", after=-5_000, deleted=True)
        assert device.statuses(item("a", n=2), gone) == ["applied", "applied"]
        device.call("GET", "/v1/pull?since=1&vectors=none")
        (listed,) = admin("devices", "list", "acme")["devices"]
        assert (listed["device"], listed["behind"]) == (device.device, 0)
        text = good("admin", "devices", "list", "acme", "--database", sqlite_path).stdout.decode()
        assert "in sync" in text
        assert "\x1b" not in text
        (tenant,) = admin("tenants", "list")["tenants"]
        assert (tenant["documents"], tenant["tombstones"], tenant["passages"]) == (1, 1, 2)
        purged = admin("purge", "acme", "--days", "0")
        assert purged == {"tenant": "acme", "forgotten": 1, "fence": 2}
        assert admin("tokens", "revoke", "acme", device.device)["revoked"]
        assert device.call("GET", "/v1/pull?since=1&vectors=none").status == 401
        device.close()


def test_devices_are_behind_by_documents_of_others(place: Place) -> None:
    def behind() -> list[int]:
        listed = admin(place.url, "devices", "list", tenant)["devices"]
        by_device = {one["device"]: (one["behind"], one["anew"]) for one in listed}
        return [by_device[one.device] for one in (a, b)]

    def level(device: Caller, since: int) -> int:
        path = f"/v1/pull?since={since}&vectors=none&epoch="
        header = decode_message(device.call("GET", path).body).header
        assert not header["more"]
        cursor: int = header["cursor"]
        return cursor

    tenant = place.tenant()
    a, b = place.device(tenant), place.device(tenant)
    assert a.statuses(*(item(f"a{n}") for n in range(3))) == ["applied"] * 3
    assert behind() == [(0, False), (3, False)]
    at = level(a, 0), level(b, 0)
    assert behind() == [(0, False), (0, False)]
    assert b.statuses(item("b0"), item("b1")) == ["applied"] * 2
    # Within the seconds in which a device's pull is not noted again: the last page is.
    assert behind() == [(2, False), (0, False)]
    level(a, at[0])
    assert behind() == [(0, False), (0, False)]
    with place.database.write() as transaction:
        accounts.renew_epochs(transaction, tenant)
    assert behind() == [(2, True), (3, True)]  # each pulls everything; of others it is so much
    level(a, 0)
    assert behind() == [(0, False), (3, True)]


def test_commands_that_are_written_down_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_database("edge-mrl-server.db") as database, database.write() as transaction:
        accounts.create_tenant(transaction, "default")
    written = [line.partition("#")[0] for line in SERVER_PAGE.splitlines()]
    lines = [line.split() for line in [*written, *_help(capsys, "admin").splitlines()]]
    commands = dict.fromkeys(tuple(w[2:]) for w in lines if w[:2] == ["edge-mrl", "admin"])
    assert len(commands) >= 8
    for words in commands:
        # The device is made up, and the index is PostgreSQL's.
        expected = {"tokens": 1, "index": 2}.get(words[0], 0)
        if "--database" not in words:
            assert main(["admin", *words]) == expected, words
    options = set(re.findall(r"--[a-z-]*[a-z]", SERVER_PAGE)) - {"--days"}
    assert len(options) > 5
    subjects = ("backup", "documents delete", "index create", "restamp", "restore", "restored")
    known = "".join(_help(capsys, f"admin {subject}") for subject in subjects)
    known += _help(capsys, "serve") + _help(capsys, "sync")
    assert options <= set(re.findall(r"--[a-z-]+", known))


def test_counts_of_a_tenant_are_those_of_its_rows(place: Place) -> None:
    device = place.device(tenant := place.tenant())
    device.statuses(*(item(f"{n}", n=n % 4) for n in range(9)))
    device.statuses(
        item("3", after=1, deleted=True), item("4", after=1, n=3), item("x", deleted=True)
    )
    device.statuses(item("3", after=2, n=2), item("5", after=-9_000), item("x", after=5, n=1))
    device.statuses(item("8", after=1, deleted=True))
    with place.database.read() as transaction:
        found = accounts.require_tenant(transaction, tenant)
        sql = (
            "SELECT coalesce(sum(CASE WHEN deleted THEN 0 ELSE 1 END), 0) AS documents, "
            "coalesce(sum(CASE WHEN deleted THEN 1 ELSE 0 END), 0) AS tombstones, "
            "sum(passages) AS passages "
            "FROM documents WHERE tenant = ?"
        )
        (row,) = transaction.rows(sql, tenant)
        counted = tuple(int(row[name]) for name in ("documents", "tombstones", "passages"))
    assert (found.documents, found.tombstones, found.passages) == counted


# --- files


def test_foreign_database_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "photos.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE photos (x)")
    connection.close()
    text = tmp_path / "notes.txt"
    text.write_text("no database at all, but long enough to look at " * 50)
    for file in (path, text):
        before = file.read_bytes()
        with pytest.raises(DatabaseError):
            open_database(str(file))
        assert file.read_bytes() == before


def test_newer_database_is_refused(sqlite_path: Path) -> None:
    open_database(str(sqlite_path)).close()
    connection = sqlite3.connect(sqlite_path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(DatabaseError, match="newer"):
        open_database(str(sqlite_path))


def test_migrations_are_recorded(place: Place) -> None:
    with place.database.read() as transaction:
        rows = transaction.rows("SELECT version, name FROM migrations ORDER BY version")
    names = [migration.name for migration in MIGRATIONS[place.kind]]
    assert [(row["version"], row["name"]) for row in rows] == list(enumerate(names, 1))


def test_database_of_the_first_version_goes_on(sqlite_path: Path) -> None:
    """Written by the first version: a and b are live, gone is deleted, another one forgotten."""
    shutil.copy(GOLDEN / "server-1.db", sqlite_path)
    with serving(sqlite_path) as server:
        device = Caller(server.url, "emrl_default_" + "a" * 43)
        # A device that numbers nothing, and knows of no epochs, notices nothing.
        reply = device.call("GET", "/v1/pull?since=5&vectors=none")
        assert [(i.id, i.deleted) for i in decode_items(decode_message(reply.body))] == [
            ("gone", True)
        ]
        assert device.statuses(item("c", dim=4), cursor=6, dim=4) == ["applied"]
        # Another one is not taken for ahead of the database, and learns its epoch.
        path = "/v1/pull?since=0&vectors=full&epoch=&push=0"
        message = decode_message(device.call("GET", path).body)
        assert [i.id for i in decode_items(message)] == ["a", "b", "gone", "c"]
        assert (message.header["fence"], message.header["kept"]) == (5, 0)
        assert len(message.header["epoch"]) == 16
        header = {"cursor": 7, "push": 1, "epoch": message.header["epoch"]}
        frame = encode_items(header, [item("d", dim=4)], like=units(0, 4))
        assert device.call("POST", "/v1/push", frame).json["results"] == [{"status": "applied"}]
        device.close()


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.test)])
def test_each_tenant_of_the_first_version_gets_an_epoch(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(request.getfixturevalue("sqlite_path" if kind == "sqlite" else "pg_url"))
    with monkeypatch.context() as patch:
        patch.setitem(MIGRATIONS, kind, MIGRATIONS[kind][:1])
        with open_database(url, connections=1) as database, database.write() as transaction:
            for name in ("a", "b"):
                transaction.run("INSERT INTO tenants (tenant, created_ms) VALUES (?, 0)", name)
    seen = []
    for _ in range(2):
        with open_database(url, connections=1) as database, database.read() as transaction:
            seen.append([tenant.epoch for tenant in accounts.list_tenants(transaction)])
    epochs = seen[0]
    assert seen[1] == epochs
    assert len({*epochs}) == 2
    assert all(re.fullmatch("[0-9a-f]{16}", epoch) for epoch in epochs)


# --- processes


def test_request_that_runs_is_finished_and_new_ones_are_refused(sqlite_path: Path) -> None:
    with serving(sqlite_path) as server:
        assert server.invitation is not None
        device = enroll(server.url, server.invitation)
        body = encode_items({"cursor": 0}, [item("a")], like=units(0))
        head = (
            f"POST /v1/push HTTP/1.1\r\nHost: x\r\nEdge-MRL-Protocol: 1\r\nEdge-MRL-Sequence: 1\r\n"
            f"Edge-MRL-Space: {device.space}\r\nAuthorization: Bearer {device.token}\r\n"
            f"Content-Type: {CONTENT_TYPE}\r\nContent-Digest: {digest(body)}\r\n"
            f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
        )
        device.close()
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
            sock.sendall(head.encode())
            # It says so when it reads the body: from then on the request runs.
            assert sock.recv(100).startswith(b"HTTP/1.1 100")
            sock.sendall(body[:9])
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not answers(server.port))
            assert server.process.poll() is None
            sock.sendall(body[9:])
            answer = b""
            while data := sock.recv(65_536):
                answer += data
        assert b"HTTP/1.1 200 OK" in answer
        assert b'"applied"' in answer
        assert server.stop() == 0


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_workers_share_a_port_are_counted_together_and_come_back(pg_url: str) -> None:
    arguments = ["--workers", "2", "--admin-port", "0"]
    with serving(pg_url, *arguments) as server:
        assert server.admin_url is not None
        assert server.invitation is not None
        device = enroll(server.url, server.invitation)
        for turn in range(20):
            fresh = Caller(server.url, device.token)
            assert fresh.statuses(item(f"{turn}")) == ["applied"]
            fresh.close()
        wait_until(lambda: counted(server.admin_url, "edge_mrl_items_total{") == 20)
        pids = children_of(server.process.pid)
        assert len(pids) == 3
        os.kill(pids[0], signal.SIGKILL)
        wait_until(lambda: len(set(children_of(server.process.pid)) - {pids[0]}) == 3)
        for turn in range(10):
            fresh = Caller(server.url, device.token)
            assert fresh.statuses(item(f"again-{turn}")) == ["applied"]
            fresh.close()
        device.close()
        assert server.stop() == 0
        for pid in pids:
            assert not Path(f"/proc/{pid}").exists()


def counted(url: str | None, start: str) -> float:
    status, body = fetch(url, "/metrics")
    assert status == 200
    return sum(float(line.split()[-1]) for line in body.splitlines() if line.startswith(start))


def fetch(url: str | None, path: str, **headers: str) -> tuple[int, str]:
    parts = urlsplit(url or "")
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=20)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_operators_page_shows_devices_and_runs_nothing(sqlite_path: Path, browser: Browser) -> None:
    with serving(sqlite_path, "--admin-port", "0") as server:
        assert server.admin_url is not None
        assert server.invitation is not None
        evil = "<script>document.title='x'</script><img src=x onerror=alert(1)>\u202e"
        device = enroll(server.url, server.invitation, evil)
        invitation = admin(sqlite_path, "invitations", "create", "default")["invitation"]
        other = enroll(server.url, invitation, "kitchen")
        device.statuses(*(item(f"{n}") for n in range(1_234 // 4)), cursor=0)
        other.call("GET", "/v1/pull?since=0&vectors=none&limit=300")
        device.call("GET", "/v1/pull?since=x")
        for width in (390, 1280):
            seen = browser.visit(server.admin_url, width=width)
            assert (seen.errors, seen.scroll_width) == ([], width)
            assert [u for u in seen.requests if not u.startswith(("data:", server.admin_url))] == []
            assert seen.smallest_text >= 13
            assert seen.weakest_contrast >= 4.5
            text = seen.text
            for words in ("default", "308", "kitchen", evil[:20], "never pulled", "malformed"):
                assert words in text, (words, text)
            assert seen.evaluate("document.title") == "edge-mrl server"
            assert seen.evaluate("document.scripts.length") == 0
            row = seen.evaluate(
                "[...document.querySelectorAll('tr')].find(r => r.innerText.includes('kitchen'))"
                ".innerText"
            )
            assert "8" in row.split()
        assert fetch(server.admin_url, "/", Host="evil.example")[0] == 400
        assert fetch(server.admin_url, "/?tenant='%20OR%201=1")[0] == 200
        assert fetch(server.admin_url, "/v1/push")[0] == 404
        assert fetch(server.url, "/metrics")[0] == 404
        for caller in (device, other):
            caller.close()


# --- description


def test_description_names_every_route_and_no_other(sqlite_place: Place) -> None:
    caller = Caller(sqlite_place.server.url)
    described = caller.call("GET", "/openapi.json").json
    caller.close()
    assert described["openapi"].startswith("3.1")
    found = {(p, m.upper()) for p, methods in described["paths"].items() for m in methods}
    assert found == {(path, method) for path, method, _ in ROUTES}
    for path, methods in described["paths"].items():
        for operation in methods.values():
            named = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert named == ({"head"} if "{head}" in path else set())
            open_to_all = path in ("/v1/enroll", "/healthz", "/readyz", "/openapi.json")
            assert bool(operation["security"]) != open_to_all


def test_reading_goes_on_while_someone_writes(sqlite_place: Place) -> None:
    device = sqlite_place.device(tenant := sqlite_place.tenant())
    device.statuses(item("a"))
    held = threading.Event()
    release = threading.Event()

    def hold() -> None:
        with sqlite_place.database.write() as transaction:
            transaction.lock_tenant(tenant)
            held.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(10)
        reply = device.query("/v1/rerank", {"ids": ["a"]}, units(1)[0])
        assert reply.json["missing"] == []
    finally:
        release.set()
        thread.join()


# --- what was called otherwise, for one version more


def test_codes_is_still_taken_for_invitations_with_a_warning(
    sqlite_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--database", str(sqlite_path), "--json"]
    assert main(["admin", "tenants", "create", "acme", *command]) == 0
    capsys.readouterr()
    assert main(["admin", "codes", "create", "acme", *command]) == 0
    said = capsys.readouterr()
    assert said.err.startswith("edge-mrl: warning: `admin codes` is called `admin invitations` now")
    old = json.loads(said.out)
    assert old["code"] == old["invitation"]
    assert main(["admin", "invitations", "create", "acme", *command]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    new = json.loads(said.out)
    assert new["code"] == new["invitation"] != old["code"]
    assert not re.search(r"^ +codes\b", _help(capsys, "admin"), re.MULTILINE)


def test_server_says_its_invitation_by_both_names(sqlite_path: Path) -> None:
    command = [*COMMAND, "serve", "--database", str(sqlite_path), "--port", "0", "--json"]
    with subprocess.Popen(
        ending_with_us(command), stdout=subprocess.PIPE, env={**os.environ, **mark()}
    ) as process:
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
        finally:
            process.kill()
    assert said["code"] == said["invitation"]
    assert said["invitation"].startswith("default_")
