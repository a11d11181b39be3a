"""What an operator takes away: tenants, devices, invitations, documents; and nothing beside them."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from edge_mrl.wire.frames import decode_items, decode_message
from tests.server.conftest import Place
from tests.support.processes import good, run
from tests.support.serving import Caller, admin, enroll, item, serving, units

pytestmark = pytest.mark.test

TABLES = ("tenants", "documents", "tokens", "codes", "devices", "heads")


def rows(place: Place, tenant: str) -> dict[str, int]:
    tables = (*TABLES, "vectors" if place.kind == "sqlite" else "passages")
    with place.database.read() as transaction:
        return {
            table: transaction.rows(f"SELECT count(*) AS n FROM {table} WHERE tenant = ?", tenant)[
                0
            ]["n"]
            for table in tables
        }


def test_deleted_tenant_leaves_nothing_and_its_neighbour_everything(place: Place) -> None:
    tenant, neighbour = place.tenant(), place.tenant()
    device, other = place.device(tenant), place.device(neighbour)
    for caller in (device, other):
        assert caller.statuses(item("a", n=2), item("b")) == ["applied"] * 2
    place.invitation(tenant)
    assert device.query("/v1/search", {"k": 2}, units(1)[0]).status == 200
    before = rows(place, neighbour)
    refused = run("admin", "tenants", "delete", tenant, "--database", place.url)
    assert refused.returncode == 2
    assert b"2 documents and 1 devices: pass --yes" in refused.stderr
    done = admin(place.url, "tenants", "delete", tenant, "--yes")
    assert (done["documents"], done["devices"]) == (2, 1)
    assert set(rows(place, tenant).values()) == {0}
    assert rows(place, neighbour) == before
    assert device.push(item("c")).status == 401
    # Another tenant of that name begins with nothing, whatever the server remembers.
    admin(place.url, "tenants", "create", tenant)
    again = place.device(tenant)
    reply = again.query("/v1/search", {"k": 2}, units(1)[0])
    assert reply.status != 200 or reply.json["hits"] == []
    assert again.statuses(item("z")) == ["applied"]
    hits = again.query("/v1/search", {"k": 5}, units(1)[0]).json["hits"]
    assert [hit["id"] for hit in hits] == ["z"]


def test_deleted_texts_are_in_no_file(sqlite_path: Path) -> None:
    secret = "the-words-of-a-customer"
    with serving(sqlite_path, "--quiet") as server:
        device = enroll(server.url, str(server.invitation))
        texts = [item(f"{n}", text=f"{secret} {n} " * 50, spans=[(0, 9)]) for n in range(50)]
        assert set(device.statuses(*texts)) == {"applied"}
        device.close()
        admin(sqlite_path, "tenants", "delete", "default", "--yes")
        for file in sqlite_path.parent.iterdir():
            assert secret.encode() not in file.read_bytes(), file


def test_tenant_without_documents_takes_another_space(place: Place) -> None:
    device = place.device(tenant := place.tenant())
    assert device.statuses(item("wrong", dim=16), dim=16) == ["applied"]
    refused = run("admin", "tenants", "reset", tenant, "--database", place.url)
    assert refused.returncode == 2
    assert b"1 documents: delete them first" in refused.stderr
    admin(place.url, "documents", "delete", tenant, "--device", device.device, "--yes")
    assert admin(place.url, "tenants", "reset", tenant)["space"] == device.space
    device.space = "6" * 64
    assert device.statuses(item("right", dim=8)) == ["applied"]


def test_documents_of_a_lost_device_are_found_exported_and_deleted(place: Place) -> None:
    tenant = place.tenant()
    lost, other = place.device(tenant), place.device(tenant)
    mine = [item(f"mine{n}", text=f"text {n}", spans=[(0, 6)], metadata={"n": n}) for n in range(3)]
    assert set(lost.statuses(*mine, item("shared"))) == {"applied"}
    assert set(other.statuses(item("shared", after=5), item("theirs"))) == {"applied"}
    listed = admin(place.url, "documents", "list", tenant, "--device", lost.device)["documents"]
    assert [one["id"] for one in listed] == ["mine0", "mine1", "mine2"]
    words = ("admin", "documents", "export", tenant, "--device", lost.device)
    lines = run(*words, "--database", place.url).stdout.decode().splitlines()
    exported = [json.loads(line) for line in lines]
    assert [(one["text"], one["metadata"]) for one in exported] == [
        (f"text {n}", {"n": n}) for n in range(3)
    ]
    words = ("admin", "documents", "delete", tenant, "--device", lost.device)
    assert run(*words, "--database", place.url).returncode == 2
    assert admin(place.url, *words[1:], "--yes")["deleted"] == 3
    assert admin(place.url, "devices", "remove", tenant, lost.device)["removed"]
    page = decode_message(other.call("GET", "/v1/pull?since=0&vectors=none").body)
    assert {i.id: i.deleted for i in decode_items(page)} == {
        "mine0": True, "mine1": True, "mine2": True, "shared": False, "theirs": False,
    }  # fmt: skip
    assert lost.push(item("late")).status == 401
    (found,) = [t for t in admin(place.url, "tenants", "list")["tenants"] if t["name"] == tenant]
    assert (found["documents"], found["tombstones"], found["passages"]) == (2, 3, 2)
    assert run("admin", "devices", "remove", tenant, "x", "--database", place.url).returncode == 1


def enrolls(place: Place, invitation: str) -> bool:
    caller = Caller(place.server.url)
    body = json.dumps({"code": invitation, "name": "x"}).encode()
    reply = caller.call("POST", "/v1/enroll", body, kind="application/json")
    caller.close()
    assert reply.status in (200, 403), reply
    return reply.status == 200


def test_invitation_that_was_revoked_enrolls_nobody(place: Place) -> None:
    tenant = place.tenant()
    invitations = [place.invitation(tenant) for _ in range(2)]
    listed = admin(place.url, "invitations", "list", tenant)["invitations"]
    assert len(listed) == 2
    assert all(len(one["id"]) == 16 and one["device"] is None for one in listed)
    assert admin(place.url, "invitations", "revoke", tenant, listed[0]["id"])["revoked"] == 1
    (left,) = admin(place.url, "invitations", "list", tenant)["invitations"]
    assert left == listed[1]
    worked = sum(enrolls(place, invitation) for invitation in invitations)
    assert worked == 1


@pytest.mark.parametrize(
    "words", [("tenants", "list"), ("invitations", "create", "default"), ("restored",)]
)
def test_looking_at_no_database_makes_none(words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.db"
    for make in (lambda: None, lambda: path.write_bytes(b"")):
        make()
        before = [f for f in tmp_path.iterdir() if not f.name.endswith("-lock")]
        result = run("admin", *words, "--database", path)
        assert result.returncode == 2
        assert b"no database at" in result.stderr
        assert [f for f in tmp_path.iterdir() if not f.name.endswith("-lock")] == before


def test_twin_a_tenant_deleted_by_hand_is_not_clean(sqlite_path: Path) -> None:
    """What the first test counts does show rows that a careless deletion leaves."""
    from edge_mrl_server.storage import open_database
    from tests.support.serving import Serving

    server = Serving(sqlite_path, "--quiet")
    try:
        device = enroll(server.url, str(server.invitation))
        device.statuses(item("a"))
        device.close()
    finally:
        server.kill()
    with sqlite3.connect(sqlite_path) as connection:
        connection.execute("DELETE FROM tenants")
    connection.close()
    with open_database(str(sqlite_path)) as database:
        place = Place("sqlite", str(sqlite_path), database, server)
        assert set(rows(place, "default").values()) != {0}


def test_limit_of_documents_is_said_where_people_look(tmp_path: Path) -> None:
    database, store = tmp_path / "s.db", tmp_path / "notes.db"
    notes = tmp_path / "notes.jsonl"
    notes.write_text(
        "".join(json.dumps({"id": f"{n}", "text": f"note {n}"}) + "\n" for n in range(5))
    )
    with serving(database, "--quiet") as server:
        admin(database, "tenants", "limit", "default", "documents=3")
        bundle = Path(__file__).parents[1] / "golden" / "tiny-bert-16"
        good("index", notes, "--bundle", bundle, "--store", store)
        words = ("--server", server.url, "--invitation", server.invitation)
        good("enroll", *words, "--store", store)
        said = good("sync", "--store", store).stdout.decode()
        assert "2 dead letters: the tenant's limit of 3 documents is reached" in said
        letters = good("sync", "--dead-letters", "--store", store).stdout.decode()
        assert letters.count("limit of 3 documents") == 2
