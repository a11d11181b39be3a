"""Tenants, invitations, devices and tokens, asked of storage directly, in both databases."""

from __future__ import annotations

import pytest

from edge_mrl.errors import UsageError
from edge_mrl.wire import now_ms
from edge_mrl_server.errors import InvalidInvitationError, InvalidTokenError, LimitReachedError
from edge_mrl_server.storage import Database, IssuedToken, Principal, accounts
from tests.server.conftest import Place

DAY_MS = 86_400_000


def enroll(database: Database, invitation: str, name: str = "phone") -> IssuedToken:
    with database.write() as transaction:
        return accounts.enroll(transaction, invitation, name)


def authenticate(database: Database, token: str) -> tuple[Principal, bool]:
    with database.read() as transaction:
        return accounts.authenticate(transaction, token)


def use(database: Database, token: str) -> Principal:
    """What a request does with a token."""
    principal, new = authenticate(database, token)
    if new:
        with database.write() as transaction:
            accounts.confirm(transaction, principal, token)
    return principal


def test_invitation_gives_a_device_and_is_spent_by_the_first_use(place: Place) -> None:
    invitation = place.invitation(tenant := place.tenant())
    assert invitation.startswith(f"{tenant}_")
    given = enroll(place.database, f"  {invitation}\n")  # as it is pasted
    assert (given.tenant, given.token.split("_")[:2]) == (tenant, ["emrl", tenant])
    assert 89 * DAY_MS < given.expires_ms - now_ms() <= 90 * DAY_MS
    again = enroll(place.database, invitation)
    assert (again.device, again.token == given.token) == (given.device, False)
    # Which of the two answers arrived, only the device knows.
    assert authenticate(place.database, given.token)[1]
    assert authenticate(place.database, again.token)[1]
    principal = use(place.database, again.token)
    with pytest.raises(InvalidTokenError):
        authenticate(place.database, given.token)
    assert (principal.tenant, principal.device, principal.push) == (tenant, given.device, 0)
    assert not authenticate(place.database, again.token)[1]
    with pytest.raises(InvalidInvitationError, match="admin invitations create"):
        enroll(place.database, invitation)


@pytest.mark.parametrize("wrong", ["", "_", "t1", "t1_", "T1_x", "nobody_abc", "'; --_x", "\ud800"])
def test_wrong_invitation_is_rejected(place: Place, wrong: str) -> None:
    with pytest.raises(InvalidInvitationError):
        enroll(place.database, wrong)


def test_expired_invitation_is_rejected_and_cleared_away(place: Place) -> None:
    tenant = place.tenant()
    with place.database.write() as transaction:
        late = accounts.create_invitation(transaction, tenant, life_ms=0)
    with pytest.raises(InvalidInvitationError):
        enroll(place.database, late)
    place.invitation(tenant)
    with place.database.read() as transaction:
        (row,) = transaction.rows("SELECT count(*) AS n FROM codes WHERE tenant = ?", tenant)
    assert row["n"] == 1


@pytest.mark.parametrize(
    "wrong", ["", "emrl", "emrl_", "emrl_t1", "emrl_t1_x", "x_t1_y", "emrl_é_x"]
)
def test_wrong_token_is_rejected(place: Place, wrong: str) -> None:
    with pytest.raises(InvalidTokenError):
        authenticate(place.database, wrong)


def test_expired_token_is_rejected(place: Place) -> None:
    given = enroll(place.database, place.invitation(tenant := place.tenant()))
    use(place.database, given.token)
    with place.database.write() as transaction:
        transaction.run("UPDATE tokens SET expires_ms = ? WHERE tenant = ?", now_ms(), tenant)
    with pytest.raises(InvalidTokenError):
        authenticate(place.database, given.token)


def test_rotated_token_leaves_the_present_one_until_it_is_used(place: Place) -> None:
    first = enroll(place.database, place.invitation(place.tenant()))
    principal = use(place.database, first.token)
    with place.database.write() as transaction:
        second = accounts.rotate(transaction, principal)
    assert use(place.database, first.token) == principal
    assert use(place.database, second.token) == principal
    with pytest.raises(InvalidTokenError):
        authenticate(place.database, first.token)


def test_revoked_device_has_no_tokens_and_does_not_count(place: Place) -> None:
    tenant = place.tenant()
    with place.database.write() as transaction:
        accounts.set_limits(transaction, tenant, {"devices": 1})
    first = enroll(place.database, place.invitation(tenant))
    second = place.invitation(tenant)
    with pytest.raises(LimitReachedError, match="may have 1 devices: revoke one"):
        enroll(place.database, second)
    with place.database.write() as transaction:
        assert accounts.revoke(transaction, tenant, first.device)
        assert not accounts.revoke(transaction, tenant, first.device)
        assert not accounts.revoke(transaction, tenant, "0" * 16)
    with pytest.raises(InvalidTokenError):
        authenticate(place.database, first.token)
    assert enroll(place.database, second).device != first.device


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a_b", "a" * 41, "é"])
def test_tenant_needs_a_name_that_fits_into_a_token(place: Place, name: str) -> None:
    with pytest.raises(UsageError, match="expected 1 to 40"), place.database.write() as transaction:
        accounts.create_tenant(transaction, name)


def test_tenant_is_made_once(place: Place) -> None:
    tenant = place.tenant()
    with place.database.write() as transaction:
        assert not accounts.ensure_tenant(transaction, tenant)
    with pytest.raises(UsageError, match="already"), place.database.write() as transaction:
        accounts.create_tenant(transaction, tenant)
    with place.database.read() as transaction:
        assert accounts.get_tenant(transaction, "nobody") is None
        with pytest.raises(UsageError, match="no tenant nobody"):
            accounts.require_tenant(transaction, "nobody")


def test_limits_are_merged_and_taken_away(place: Place) -> None:
    tenant = place.tenant()
    with place.database.write() as transaction:
        accounts.set_limits(transaction, tenant, {"documents": 5, "devices": 2})
        changed = accounts.set_limits(transaction, tenant, {"documents": None, "devices": 3})
    assert (changed.limit("documents"), changed.limit("devices")) == (None, 3)
    for wrong in ({"size": 1.0}, {"devices": 0.0}, {"devices": float("nan")}):
        with (
            pytest.raises(UsageError, match="expected a number above 0"),
            place.database.write() as transaction,
        ):
            accounts.set_limits(transaction, tenant, wrong)


def test_new_epoch_numbers_changes_beyond_all_that_were_given_out(place: Place) -> None:
    tenant, other = place.tenant(), place.tenant()
    given = enroll(place.database, place.invitation(tenant))
    with place.database.write() as transaction:
        sql = "UPDATE devices SET push = 7 WHERE tenant = ? AND device = ?"
        transaction.run(sql, tenant, given.device)
        before = accounts.require_tenant(transaction, tenant)
        beside = accounts.require_tenant(transaction, other)
        assert accounts.renew_epochs(transaction, tenant) == 1
        after = accounts.require_tenant(transaction, tenant)
        assert accounts.require_tenant(transaction, other) == beside
        assert accounts.renew_epochs(transaction, tenant) == 1
        last = accounts.require_tenant(transaction, tenant)
    assert len({before.epoch, after.epoch, last.epoch}) == 3
    assert before.change == 0
    assert after.change >= before.created_ms * 1_000
    assert last.change >= after.change
    assert use(place.database, given.token).kept == 7


def test_totals_count_what_there_is(place: Place) -> None:
    with place.database.read() as transaction:
        before = accounts.totals(transaction)
    given = enroll(place.database, place.invitation(tenant := place.tenant()))
    with place.database.write() as transaction:
        sql = "UPDATE tenants SET documents = 3, passages = 5 WHERE tenant = ?"
        transaction.run(sql, tenant)
        after = accounts.totals(transaction)
        accounts.revoke(transaction, tenant, given.device)
        last = accounts.totals(transaction)
        transaction.run("UPDATE tenants SET documents = 0, passages = 0 WHERE tenant = ?", tenant)
    grown = {name: after[name] - before[name] for name in before}
    assert grown == {"tenants": 1, "devices": 1, "documents": 3, "passages": 5}
    assert last["devices"] == before["devices"]


def test_devices_are_listed_with_what_they_were_named(place: Place) -> None:
    tenant = place.tenant()
    made = [enroll(place.database, place.invitation(tenant), name) for name in ("a", "b" * 200)]
    with place.database.write() as transaction:
        sql = "UPDATE devices SET pulled_ms = ?, pulled = 4 WHERE device = ?"
        transaction.run(sql, now_ms() + DAY_MS, made[0].device)
        first, second = accounts.list_devices(transaction, tenant)
        assert len(accounts.list_devices(transaction, tenant, limit=1)) == 1
    assert (first["device"], first["name"], first["pulled"]) == (made[0].device, "a", 4)
    assert (second["device"], second["name"]) == (made[1].device, "b" * 100)
    assert (second["pulled"], second["pulled_ms"], second["revoked_ms"]) == (0, None, None)
