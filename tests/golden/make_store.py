"""Make ``store-2.db`` anew: ``python -m tests.golden.make_store`` from the repository.

``store-1.db`` holds the same and was written by version 1 of the store: it cannot be made any more.
Both are committed so that later versions are tested against them: once released, a store is never
made again, only joined by the next version's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_mrl.documents import Document
from edge_mrl.passages import PassageRule
from edge_mrl.store import Binding, Entry, Store

STORES = [Path(__file__).parent / f"store-{version}.db" for version in (1, 2)]
BINDING = Binding("5" * 64, "c" * 64, 4, 1.0, "/bundles/tiny")
RULE = PassageRule(max_tokens=8, overlap=1)
DOCUMENTS = [
    Document("a", "the cat and a dog", {"lang": "en"}),
    Document("caf\u00e9", "\u732b \U0001f408 NUL \x00 end"),
    Document("blank", "  "),
]
SPANS = [[(0, 10), (8, 17)], [(0, 12)], []]
CODES = np.array([[1, -127, 0, 127], [2, 2, 2, 2], [-3, 0, 0, 5]], np.int8)


def main() -> None:
    STORES[-1].unlink(missing_ok=True)
    with Store.open(STORES[-1], create=lambda: (BINDING, RULE)) as store:
        parts = np.split(CODES, [2, 3])
        rows = zip(DOCUMENTS, SPANS, parts, strict=True)
        store.put([Entry(document, spans, codes) for document, spans, codes in rows])


if __name__ == "__main__":
    main()
