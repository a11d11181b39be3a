"""What a push says that its device misses here."""

from __future__ import annotations

from edge_mrl.errors import WireError
from edge_mrl.wire import Version, check_id, parse_stamp
from edge_mrl_server.http.refusals import Refusal
from edge_mrl_server.storage import MAX_LOST

__all__ = ["lost_versions"]


def lost_versions(rows: object) -> list[tuple[str, Version]]:
    """Versions that a device misses here, as a push names them."""
    if not isinstance(rows, list) or len(rows) > MAX_LOST:
        raise Refusal(400, "malformed", f"lost: expected a list of at most {MAX_LOST}")
    found = []
    for row in rows:
        try:
            name, stamp, by = check_id(row["id"]), parse_stamp(row["v"]), row["by"]
        except (WireError, TypeError, KeyError) as error:
            raise Refusal(400, "malformed", "lost: expected id, v and by") from error
        if not isinstance(by, str):
            raise Refusal(400, "malformed", "lost: by: expected text")
        found.append((name, Version(stamp, by)))
    return found
