"""A process that puts documents and says what is committed: ``python -m ... STORE FIRST``."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from edge_mrl.store import Store
from tests.android.stores import DIM, batch

if __name__ == "__main__":
    with Store.open(Path(sys.argv[1])) as store:
        for number in count(int(sys.argv[2])):
            store.put(batch(number, DIM))
            if number % 3 == 2:
                store.delete([f"b{number - 1}-0"])
            print(number, flush=True)
