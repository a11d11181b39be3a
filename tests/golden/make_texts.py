"""Golden answers that bind every runtime: tokens, passages and searches of the bundles in this folder.

    python -m tests.golden.make_texts

The texts are made, not stored: of pieces in several scripts, by a generator that is written out here, so
that any language can make them. Of their tokens and passages the file has SHA-256 alone. Searches are of
int8 codes that are made the same way, so they do not depend on how floats are rounded.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_mrl.codes import Packing
from edge_mrl.documents import Document, PassageRule
from edge_mrl.encode import Encoder, split_passages
from edge_mrl.search import QueryVectors, SearchOptions, answer
from edge_mrl.store import Binding, Entry, Store

__all__ = [
    "BUNDLES",
    "DOCUMENTS",
    "GOLDEN",
    "LONG_TEXTS",
    "QUERIES",
    "SEARCHES",
    "TEXTS",
    "binding",
    "codes",
    "digest",
    "entries",
    "make",
    "rule",
    "texts",
]

GOLDEN = Path(__file__).parent / "texts.json"
BUNDLES = ("tiny-bert-16", "tiny-static-16")
TEXTS, LONG_TEXTS, DOCUMENTS = 10_000, 200, 600
DIM = 72
PIECES = (
    *(
        "the quick brown fox ",
        "naïve café. ",
        "Привет, мир! ",
        "שלום עולם ",
        "你好世界。",
        "かな カナ ",
    ),
    *(
        "안녕하세요 ",
        "नमस्ते ",
        "\n\n",
        "\t",
        "aaaaaaaa",
        "🙂👩‍👩‍👧 ",
        "[SEP] ",
        "word\u00a0word ",
        "e\u0301\u0323",
    ),
    *(
        "1234567890 ",
        "...---... ",
        "\u2028",
        "ﬁnd ",
        "x\u200dy ",
        "old harbour ",
        "ferry ",
        "Straße ",
        "½ ",
    ),
)
#: How documents are split, and the modes and options of the searches.
rule = PassageRule(30, 7)
SEARCHES: tuple[dict[str, Any], ...] = (
    {}, {"exact": True}, {"width": 40}, {"filter": {"n": {"$lt": 5}}}, {"diversity": 0.3},
    {"mode": "hybrid"}, {"mode": "keyword"}, {"mode": "keyword", "filter": {"$match": "ferry"}},
)  # fmt: skip
QUERIES = ("old harbour", "ferry naïve", "strasse 你好世界", "fox")


def numbers(seed: int) -> Iterator[int]:
    """Numbers of 32 bits: the high half of a linear congruential generator (Knuth's MMIX)."""
    state = seed
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield state >> 32


def texts(seed: int, count: int, most: int) -> list[str]:
    """Texts of up to so many pieces; some are empty."""
    source = numbers(seed)
    return [
        "".join(PIECES[next(source) % len(PIECES)] for _ in range(next(source) % (most + 1)))
        for _ in range(count)
    ]


def codes(seed: int, count: int) -> NDArray[np.int8]:
    """int8[count, DIM], from -60 to 60."""
    source = numbers(seed)
    values = [next(source) % 121 - 60 for _ in range(count * DIM)]
    return np.array(values, np.int8).reshape(count, DIM)


def digest(rows: Iterable[Iterable[int]]) -> str:
    """SHA-256 of numbers as int32, little-endian, with -1 behind each row."""
    found = hashlib.sha256()
    for row in rows:
        found.update(np.array([*row, -1], "<i4").tobytes())
    return found.hexdigest()


def binding() -> Binding:
    """Of a store whose codes no bundle made."""
    return Binding("space", "code", DIM, 1.0, "/bundle", None, Packing())


def entries() -> list[Entry]:
    """Documents ``d0`` and so on with one passage each, which is the whole text."""
    made = texts(3, DOCUMENTS, 9)
    return [
        Entry(
            Document(f"d{n}", text or "none", {"n": n % 9}), [(0, len(text or "none"))], row[None]
        )
        for n, (text, row) in enumerate(zip(made, codes(4, DOCUMENTS), strict=True))
    ]


def _searches(path: Path) -> Iterator[list[tuple[str, float]]]:
    """Ids and scores for each query and each of SEARCHES."""
    with Store.create(path, binding(), rule) as store:
        store.put(entries())
        store.delete([f"d{n}" for n in range(0, DOCUMENTS, 11)])
        for query, code in zip(QUERIES, codes(5, len(QUERIES)), strict=True):
            for options in SEARCHES:
                vectors = None if options.get("mode") == "keyword" else QueryVectors(code, None)
                with store.reading() as view:
                    (hits,) = answer(view, [query], [vectors], SearchOptions(**options))
                yield [(hit.id, hit.score) for hit in hits]


def make() -> dict[str, Any]:
    """What the file holds."""
    found: dict[str, Any] = {"tokens": {}, "passages": {}, "searches": []}
    for name in BUNDLES:
        with Encoder.open(GOLDEN.parent / name, untried=True) as encoder:
            found["tokens"][name] = digest(encoder.tokenize(texts(1, TEXTS, 12)))
            splits = (split_passages(encoder, text, rule) for text in texts(2, LONG_TEXTS, 300))
            found["passages"][name] = digest(
                [i for span in spans for i in span] for spans in splits
            )
    with tempfile.TemporaryDirectory() as folder:
        found["searches"] = list(_searches(Path(folder) / "s.db"))
    return found


if __name__ == "__main__":
    golden = make()
    lines = ",\n".join(json.dumps(one) for one in golden.pop("searches"))
    rest = json.dumps(golden, indent=1)[1:]
    GOLDEN.write_text(f'{{\n "searches": [\n{lines}\n ],{rest}\n', encoding="utf-8")
