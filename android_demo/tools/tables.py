"""The definitions of a store's tables, as the core reads them: from the migrations of the Python package.

python -m android_demo.tools.tables --write
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from android_demo.tools.kotlin import ROOT

__all__ = ["DEFINITIONS", "definitions"]

DEFINITIONS = ROOT / "android_demo/core/src/main/resources/org/edgemrl/store/tables.json"


def definitions() -> str:
    """JSON with the definitions.

    ``first`` makes the table of migrations. ``migrations`` have a ``name`` each, and ``steps`` in SQL;
    steps that only carry rows over are left out, since a new store has none. ``checks`` are the CRC-32
    of each table and index of the present version.
    """
    from edge_mrl.store.migrations import MIGRATIONS, MIGRATIONS_TABLE
    from edge_mrl.store.schema.tables import CHECKSUMS

    migrations = [
        {"name": name, "steps": [*filter(_is_sql, steps), *_DROPS.get(name[:4], ())]}
        for name, steps in MIGRATIONS
    ]
    made = {"first": MIGRATIONS_TABLE, "migrations": migrations, "checks": sorted(CHECKSUMS)}
    return json.dumps(made, indent=1) + "\n"


#: What migrations drop when they have carried the rows over, by their numbers.
_DROPS = {
    "0002": [f"DROP TABLE old_{name}" for name in ("codes", "passages", "documents", "binding")],
    "0005": ["DROP TABLE old_sync"],
}


def _is_sql(step: Any) -> bool:
    return isinstance(step, str)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the definitions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", required=True)
    parser.parse_args(arguments)
    DEFINITIONS.parent.mkdir(parents=True, exist_ok=True)
    DEFINITIONS.write_text(definitions(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
