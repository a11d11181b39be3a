"""The operator's page: tenants, devices and how far behind they are, counts, errors; and /metrics.

It is read-only, has no scripts, and is served on a port of its own that is bound to loopback: only who
may log in to the machine can reach it, and there is no password to lose. ``ssh -L`` brings it to a desk.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

import anyio.to_thread
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_mrl import __version__
from edge_mrl.wire import now_ms
from edge_mrl_server.errors import DatabaseError, UnavailableError
from edge_mrl_server.storage import Database, Tenant, accounts, clock_behind_ms

__all__ = ["create_operator_app"]

#: Rows of one table; the command line lists more.
MOST = 200
#: Answers that begin an exchange in which nothing is wrong: the device sends what the server asks for.
_USUAL = ("head_unknown",)
_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"))

_STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8882; --bad: #b3261e; --good: #146c2e; }
@media (prefers-color-scheme: dark) { :root { --bad: #f2b8b5; --good: #7fd99a; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem; }
dl div { background: var(--soft); border-radius: .5rem; padding: .5rem .75rem; }
dt { font-size: .85rem; opacity: .8; } dd { margin: 0; font-size: 1.2rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; opacity: .8; padding-bottom: .25rem; }
th, td { text-align: left; padding: .35rem 1rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th:last-child, td:last-child { padding-right: 0; }
.w { overflow-wrap: anywhere; min-width: 8rem; } span { min-width: 0; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.bad { color: var(--bad); } .good { color: var(--good); }
code { font-size: .9em; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  thead { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden; }
  tr { display: block; border: 1px solid var(--line); border-radius: .5rem; margin: .5rem 0;
    padding: .25rem .75rem; }
  td, th { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .15rem 0;
    text-align: right; }
  td::before, th[scope=row]::before { content: attr(data-name); opacity: .8; text-align: left;
    font-weight: normal; flex: none; }
}
"""
_POLICY = (
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
    "style-src "
    f"'sha256-{b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
)


@dataclass(frozen=True, slots=True)
class _Cell:
    """A table's cell: its text, and how it is shown."""

    text: str
    kind: str = ""
    link: str = ""


def create_operator_app(database: Database, registry: CollectorRegistry) -> Starlette:
    """The page at /, and Prometheus's format at /metrics.

    Args:
        database: The same as the devices'.
        registry: What was counted, by all processes.
    """

    async def page(request: Request) -> Response:
        name = request.query_params.get("tenant")
        body = await anyio.to_thread.run_sync(_page, database, registry, name)
        return _respond(body, "text/html")

    async def metrics(request: Request) -> Response:  # noqa: ARG001
        clock = await anyio.to_thread.run_sync(_clock, database)
        return _respond(generate_latest(registry) + clock, CONTENT_TYPE_LATEST)

    # A page elsewhere may point a name of its own at loopback; it cannot choose what Host says then.
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    return Starlette(routes=[Route("/", page), Route("/metrics", metrics)], middleware=[hosts])


def _respond(body: bytes, kind: str) -> Response:
    headers = {
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    return Response(body, media_type=kind, headers=headers)


def _clock(database: Database) -> bytes:
    """How far this clock is behind the newest stamp, for Prometheus; nothing where it cannot be read."""
    try:
        behind_s = clock_behind_ms(database) / 1000
    except (DatabaseError, UnavailableError):
        return b""
    name = "edge_mrl_clock_behind_seconds"
    return (
        f"# HELP {name} How far the clock is behind the newest stamp, if more than five minutes.\n"
        f"# TYPE {name} gauge\n{name} {behind_s}\n"
    ).encode()


def _page(database: Database, registry: CollectorRegistry, name: str | None) -> bytes:
    try:
        return _document("".join(_parts(database, registry, name)), database.name)
    except (DatabaseError, UnavailableError) as error:
        problem = f'<p class="bad">{escape(str(error))}</p>'
        return _document(problem + _errors(registry), database.name)


def _parts(database: Database, registry: CollectorRegistry, name: str | None) -> list[str]:
    with database.read() as transaction:
        tenants = accounts.list_tenants(transaction, limit=MOST)
        totals = accounts.totals(transaction)
        chosen = accounts.get_tenant(transaction, name) if name else None
        if chosen is None and len(tenants) == 1:
            chosen = tenants[0]
        devices = accounts.list_devices(transaction, chosen.name, limit=MOST) if chosen else []
    parts = [_counts(totals, database), _tenants(tenants, totals["tenants"])]
    behind_ms = clock_behind_ms(database)
    if behind_ms:
        parts.insert(
            0,
            '<p class="bad">The clock of this server is behind the newest document by '
            f"{_span(behind_ms)}: it is wrong now, or was ahead once. See "
            "<code>edge-mrl admin restamp</code>.</p>",
        )
    slow = [tenant.name for tenant in tenants if database.lacks_index(tenant)]
    if slow:
        parts.insert(
            0,
            '<p class="bad">Each search compares all vectors of '
            f"{escape(', '.join(slow))}: see <code>edge-mrl admin index create</code>.</p>",
        )
    if chosen is not None:
        parts.append(_devices(chosen, devices))
    elif name:
        parts.append(f"<p>There is no tenant {escape(name)}.</p>")
    parts.append(_errors(registry))
    return parts


def _document(body: str, name: str) -> bytes:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="refresh" content="30"><link rel="icon" href="data:,">'
        f"<title>edge-mrl server</title><style>{_STYLE}</style></head><body>"
        f"<h1>edge-mrl server</h1><main>{body}</main>"
        f"<footer><p>Database <code>{escape(name)}</code>, edge-mrl {escape(__version__)}. "
        "This page reads only, and loads itself again every 30 seconds.</p></footer></body></html>"
    ).encode("utf-8", "replace")


def _counts(totals: dict[str, int], database: Database) -> str:
    size = sum(database.sizes().values())
    rows = [(name, f"{value:,}") for name, value in totals.items()]
    rows.append(("on disk", f"{size / 1e6:,.1f} MB"))
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows)
    return f"<dl>{cells}</dl>"


def _tenants(tenants: Sequence[Tenant], total: int) -> str:
    rows = [
        (
            _Cell(tenant.name, link=f"/?tenant={quote(tenant.name)}"),
            _Cell(f"{tenant.documents:,}", "n"),
            _Cell(f"{tenant.passages:,}", "n"),
            _Cell(f"{tenant.tombstones:,}", "n"),
            _Cell(f"{tenant.change:,}", "n"),
            _Cell((tenant.space_id or "none yet")[:12]),
        )
        for tenant in tenants
    ]
    names = ("tenant", "documents", "passages", "tombstones", "last change", "space")
    more = f", the first {MOST} of {total:,}" if total > MOST else ""
    return f"<h2>Tenants{more}</h2>" + _table("Who shares this server", names, rows)


def _devices(tenant: Tenant, devices: Sequence[dict[str, object]]) -> str:
    rows = []
    for device in devices:
        behind = int(str(device["behind"]))
        if device["revoked_ms"]:
            state = _Cell("revoked", "n bad")
        elif device["pulled_ms"] is None:
            state = _Cell("never pulled", "n")
        elif device["anew"]:
            state = _Cell("pulls everything", "n")
        else:
            plus = "+" if behind >= accounts.MOST_BEHIND else ""
            state = _Cell(f"{behind:,}{plus}", "n" if behind else "n good")
        notes = _notes(device)
        rows.append(
            (
                _Cell(_plain(str(device["name"])) or "without a name", "w"),
                _Cell(str(device["device"])),
                state,
                _Cell(_ago(device["pulled_ms"])),
                _Cell(_ago(device["pushed_ms"])),
                _Cell(_ago(device["created_ms"])),
                _Cell(notes or "none", "w bad" if notes else "w"),
            )
        )
    names = ("device", "id", "documents behind", "pulled", "pushed", "enrolled", "notes")
    more = f", the {MOST} seen last" if len(devices) == MOST else ""
    caption = "A device says how far it is when it pulls"
    return f"<h2>Devices of {escape(tenant.name)}{more}</h2>" + _table(caption, names, rows)


def _notes(device: dict[str, object]) -> str:
    """What an operator should know of a device."""
    notes = ["read-only"] if device["read_only"] else []
    if device["cloned_ms"]:
        notes.append("its store was copied: enroll the copies anew")
    if device["doubts"]:
        notes.append(
            f"said {device['doubts']} times without proof that this database was restored: if it was, "
            "run edge-mrl admin restored"
        )
    return "; ".join(notes)


def _errors(registry: CollectorRegistry) -> str:
    found = []
    for metric in registry.collect():
        for sample in metric.samples:
            code = sample.labels.get("code")
            if sample.name != "edge_mrl_requests_total" or code in (None, "", *_USUAL):
                continue
            if sample.value:
                labels = sample.labels
                found.append((int(sample.value), labels["route"], labels["status"], code))
    rows = [
        (_Cell(route), _Cell(status), _Cell(code), _Cell(f"{count:,}", "n"))
        for count, route, status, code in sorted(found, reverse=True)[:MOST]
    ]
    caption = "Since this server was started; its log has each of them"
    names = ("request", "status", "error", "times")
    return "<h2>Refused requests</h2>" + _table(caption, names, rows)


def _table(caption: str, names: Sequence[str], rows: Iterable[Sequence[_Cell]]) -> str:
    rows = list(rows)
    if not rows:
        return "<p>None.</p>"
    body = "".join(_row(names, row) for row in rows)
    kinds = [' class="n"' if cell.kind.startswith("n") else "" for cell in rows[0]]
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>'
        for name, kind in zip(names, kinds, strict=True)
    )
    return (
        f"<table><caption>{escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _row(names: Sequence[str], row: Sequence[_Cell]) -> str:
    cells = []
    for place, (name, cell) in enumerate(zip(names, row, strict=True)):
        tag, scope = ("th", ' scope="row"') if place == 0 else ("td", "")
        text = escape(cell.text)
        if cell.link:
            text = f'<a href="{escape(cell.link)}">{text}</a>'
        kind = f' class="{cell.kind}"' if cell.kind else ""
        cells.append(f'<{tag}{scope}{kind} data-name="{escape(name)}"><span>{text}</span></{tag}>')
    return f"<tr>{''.join(cells)}</tr>"


def _ago(ms: object) -> str:
    if not isinstance(ms, int):
        return "never"
    passed = max(now_ms() - ms, 0)
    return f"{_span(passed)} ago" if passed >= 1000 else "now"


def _span(ms: int) -> str:
    for size, unit in _UNITS:
        if ms >= size:
            return f"{ms // size} {unit}"
    return f"{ms} ms"


def _plain(text: str) -> str:
    """A name without characters that control how the page's text is shown."""
    return "".join(c if c.isprintable() else "?" for c in text)
