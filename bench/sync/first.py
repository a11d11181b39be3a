"""What a new device's first sync brings, in bytes a document: ``python -m bench.sync.first``.

A real server holds documents of one passage of 384 dimensions, without text. Asked for are 128 dimensions
of int8, and 256 of int4 and of 2 bits, as a device asks that knows packed codes and as one that does not;
by pages of changes, and by a snapshot. Bodies are counted as they come over HTTP. ``codes`` is what the
vectors take of them; the rest is ids, stamps, and what a page says once.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bench.support.machine import save
from edge_mrl.bundle import head_id
from edge_mrl.codes import plain_packing
from edge_mrl.sync.pulls.forms import PAGE_ITEMS, CodeKey
from edge_mrl.wire import decode_message
from tests.support.serving import Caller, enroll, item, serving

WIDTH, DOCUMENTS, PUSHED = 384, 5_000, 250
#: Dimensions, code, and whether the device asks for packed codes.
FORMS = (
    (128, "int8", True),
    (256, "int8", True),
    (256, "int4", False),
    (256, "int4", True),
    (256, "2bit", False),
    (256, "2bit", True),
)


def main() -> int:
    """Measure, print a table, write bench/results/first.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    args = parser.parse_args()
    results = measure(args.documents)
    settings = {"documents": args.documents, "passages": 1, "full_dim": WIDTH, "text": False}
    path = save("first", settings, results)
    print(f"{'code':<12}{'packed':<8}{'codes':>7}{'pages':>9}{'snapshot':>10}   bytes a document")
    for row in results:
        packed = "yes" if row["packed"] else "no"
        print(
            f"{row['code']:<12}{packed:<8}{row['codes']:>7}{row['pages']:>9.1f}{row['snapshot']:>10.1f}"
        )
    print(f"written to {path.name}")
    return 0


def measure(documents: int) -> list[dict[str, Any]]:
    """Bytes a document of each form."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(
            Path(folder) / "server.db", "--device-rate", "1e6", "--tenant-rate", "1e6"
        ) as server,
    ):
        device = enroll(server.url, str(server.invitation))
        for first in range(0, documents, PUSHED):
            names = range(first, min(first + PUSHED, documents))
            items = [item(f"notes@k3v9q2xw/{n:06}.md", seed=n, dim=WIDTH) for n in names]
            assert set(device.statuses(*items, dim=WIDTH)) == {"applied"}
        rows = [_row(device, documents, dim, kind, packed=packed) for dim, kind, packed in FORMS]
        device.close()
    return rows


def _row(device: Caller, documents: int, dim: int, kind: str, *, packed: bool) -> dict[str, Any]:
    packing = plain_packing(kind, dim)
    query = CodeKey(head_id(None, layer_norm=False), dim, 1.0, packing).query
    if not packed:  # as a device that knows no packed codes
        query = {name: query[name] for name in ("head", "dim", "scale")}
    pages, since, seen, codes = 0, 0, 0, 0
    while seen < documents:
        asked = {"since": since, "vectors": "coarse", "limit": PAGE_ITEMS, **query}
        reply = device.call("GET", f"/v1/pull?{urlencode(asked)}")
        assert reply.status == 200, reply.body
        message = decode_message(reply.body)
        pages += len(reply.body)
        codes += message.vectors.nbytes
        seen += len(message.vectors)
        assert message.header["cursor"] > since
        since = message.header["cursor"]
    snapshot = device.call("GET", f"/v1/snapshot/coarse?{urlencode(query)}")
    assert snapshot.status == 200, snapshot.body
    return {
        "code": f"{dim} {kind}",
        "packed": packed and kind != "int8",
        "codes": round(codes / documents),
        "pages": round(pages / documents, 1),
        "snapshot": round(len(snapshot.body) / documents, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
