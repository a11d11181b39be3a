"""Whatever byte of a store's file is wrong, each command answers rightly or says what is damaged."""

from __future__ import annotations

import json
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.flipping import PAGE, Said, Spot, command, damaged_copy, spots
from tests.support.keys import KEY

BUNDLE = Path(__file__).parents[1] / "golden" / "tiny-bert-16"
WORDS = ("ferry", "boat", "harbour", "bread", "oven", "garden", "tomato", "letter", "stone")
IDS = [f"n{number}" for number in range(40)]
#: What is said to do about damage; each error has one of them.
ADVICE = ("restore a copy", "repairs what can be", "make the store again", "name another file")
#: Damaged places that are tried before each merge, and each night.
FEW, MANY = 4, 200
#: Spots of which each run has one.
TRIED = ("root of documents", "root of keywords", "header: user version", "header: write version")


def text_of(number: int, seed: int = 0) -> str:
    chance = random.Random(1000 * seed + number)
    words = chance.choices(WORDS, k=20 if number % 7 else 700)
    return f"note {number}: {' '.join(words)}"


def write_lines(path: Path, numbers: range, seed: int = 0) -> Path:
    rows = [
        {"id": f"n{n}", "text": text_of(n, seed), "n": n, "tags": ["x", str(n)]} for n in numbers
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@dataclass(frozen=True)
class Stores:
    """A whole store, what it answers, lines with two new texts, and the options that open it."""

    whole: Path
    new: Path
    key: tuple[object, ...]

    def run(self, path: Path, name: object, *arguments: object) -> Said:
        return command(name, *arguments, "--store", path, *self.key)

    def texts(self, path: Path) -> tuple[Said, dict[str, str]]:
        said = self.run(path, "get", *IDS, "--json")
        rows = [json.loads(line) for line in said.out.splitlines()]
        return said, {row["id"]: row["text"] for row in rows if "id" in row}

    def hits(self, path: Path) -> tuple[Said, list[tuple[str, float]]]:
        options = ("--mode", "hybrid", "-k", 3, "--json", "--quiet")
        said = self.run(path, "search", "boat and harbour", *options)
        rows = [json.loads(line) for line in said.out.splitlines()]
        return said, [(hit["id"], hit["score"]) for row in rows for hit in row.get("hits", [])]


@pytest.fixture(scope="module", params=["plain", "encrypted"])
def stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stores:
    folder = tmp_path_factory.mktemp("whole")
    key: tuple[object, ...] = ()
    if request.param == "encrypted":
        pytest.importorskip("sqlcipher3")
        file = tmp_path_factory.mktemp("keys") / "key"
        file.write_bytes(KEY())
        file.chmod(0o600)
        key = ("--key-file", file)
    path = folder / "s.db"
    lines = write_lines(folder / "lines.jsonl", range(40))
    gone = write_lines(folder / "gone.jsonl", range(40, 60))
    found = Stores(path, write_lines(folder / "new.jsonl", range(38, 40), 1), key)
    for file in (lines, gone):
        assert found.run(path, "index", file, "--bundle", BUNDLE, "--quiet").code == 0
    assert found.run(path, "delete", *(f"n{n}" for n in range(40, 60))).code == 0
    return found


def places(stores: Stores) -> list[Spot]:
    """Spots of a plain file; of an encrypted one, which shows none, some in each of its pages."""
    if not stores.key:
        return list(spots(stores.whole))
    pages = range(stores.whole.stat().st_size // PAGE)
    return [
        Spot(f"page {page + 1}: {name}", page * PAGE + at, length)
        for page in pages
        for name, at, length in (("beginning", 16, 64), ("middle", 2000, 64), ("seal", 4040, 56))
    ]


def judge(stores: Stores, path: Path, name: str, damage: Callable[[], bool]) -> list[str]:
    """What a command says or does that is not right; each command has a copy of its own."""
    verbs: dict[str, Callable[[], tuple[Said, str | None]]] = {
        "get": lambda: _get(stores, path),
        "search": lambda: _search(stores, path),
        "index": lambda: _change(stores, path, ("index", stores.new, "--quiet"), {"n38", "n39"}),
        "delete": lambda: _change(stores, path, ("delete", "n3", "n7"), set()),
        "compact": lambda: _change(stores, path, ("compact", "--quiet"), set()),
        "stats": lambda: (stores.run(path, "stats"), None),
        "check": lambda: _check(stores, path),
        "repair": lambda: _repair(stores, path),
    }
    wrong = []
    for verb, run in verbs.items():
        if not damage():
            continue
        said, problem = run()
        if said.code not in (0, 1, 2, 5):
            problem = "ended with an exception"
        elif "another process" in said.err:
            problem = "said that it is busy"
        elif said.code == 2 and not any(one in said.err for one in ADVICE):
            problem = "gave no advice"
        if problem is not None:
            wrong.append(f"{verb}, {name}: {problem}: {said}")
    return wrong


def _right(seed: int = 0) -> dict[str, str]:
    return {name: text_of(int(name[1:]), seed) for name in IDS}


def _named(stores: Stores, path: Path, said: Said) -> bool:
    """Whether what is missing is said to be damaged: here, or by a check."""
    return "damaged" in said.err or stores.run(path, "check", "--quiet").code != 0


def _get(stores: Stores, path: Path) -> tuple[Said, str | None]:
    said, texts = stores.texts(path)
    if any(text != _right()[name] for name, text in texts.items()):
        return said, "gave another text"
    if said.code != 2 and len(texts) < len(IDS) and not _named(stores, path, said):
        return said, "left a document out"
    return said, None


def _search(stores: Stores, path: Path) -> tuple[Said, str | None]:
    said, hits = stores.hits(path)
    wrong = said.code == 0 and hits != stores.hits(stores.whole)[1]
    return said, "other hits" if wrong and not _named(stores, path, said) else None


def _change(
    stores: Stores, path: Path, arguments: tuple[object, ...], changed: set[str]
) -> tuple[Said, str | None]:
    said = stores.run(path, *arguments)
    after, texts = stores.texts(path)
    gone = {"n3", "n7"} if arguments[0] == "delete" and said.code == 0 else set()
    for name, text in texts.items():
        one = {_right()[name], _right(1)[name]} if name in changed else {_right()[name]}
        if text not in one:
            return said, "changed another text"
    if gone & texts.keys():
        return said, "deleted nothing"
    missing = set(IDS) - gone - texts.keys()
    if said.code == 0 and missing and not _named(stores, path, after):
        return said, f"lost {missing}"
    return said, None


def _check(stores: Stores, path: Path) -> tuple[Said, str | None]:
    said = stores.run(path, "check", "--quiet")
    right = (
        stores.texts(path)[1] == _right() and stores.hits(path)[1] == stores.hits(stores.whole)[1]
    )
    return said, None if said.code or right else "called it sound"


def _repair(stores: Stores, path: Path) -> tuple[Said, str | None]:
    said = stores.run(path, "check", "--repair")
    if said.code:
        return said, None
    if stores.run(path, "check", "--quiet").code:
        return said, "repaired it, and it is not sound"
    after, texts = stores.texts(path)
    if any(text != _right()[name] for name, text in texts.items()):
        return said, "gave another text"
    lost = set(IDS) - texts.keys()
    named = "are gone" in said.out or "have lost their ids" in said.out
    return said, f"lost documents: {after}" if lost and not named else None


def try_spots(stores: Stores, path: Path, some: list[Spot], seed: int) -> list[str]:
    chance = random.Random(seed)
    data, wrong = stores.whole.read_bytes(), []
    for spot in some:
        at = spot.at + chance.randrange(spot.length)
        byte = chance.choice([0, 255, data[at] ^ 1 << chance.randrange(8)])
        place = f"{spot.name}, byte {at}: {data[at]} is {byte}"
        wrong += judge(
            stores, path, place, lambda a=at, b=byte: damaged_copy(stores.whole, path, a, b)
        )  # type: ignore[misc]
    return wrong


@pytest.mark.test
def test_whole_store_is_right(stores: Stores) -> None:
    said, texts = stores.texts(stores.whole)
    assert (said.code, texts) == (0, _right())
    assert len(stores.hits(stores.whole)[1]) == 3


@pytest.mark.test
def test_damaged_places_are_named(stores: Stores, tmp_path: Path) -> None:
    known = {spot.name: spot for spot in places(stores)}
    chance = random.Random(1)
    some = [known[name] for name in TRIED if name in known] or chance.sample([*known.values()], FEW)
    assert try_spots(stores, tmp_path / "s.db", some, 1) == []


@pytest.mark.nightly
def test_many_damaged_places_are_named(stores: Stores, tmp_path: Path) -> None:
    # SQLite's own indexes have no checksums: a check does not see every wrong entry of one.
    known = [spot for spot in places(stores) if not spot.name.startswith("sqlite_autoindex")]
    some = random.Random(2).sample(known, min(MANY, len(known)))
    kinds = Counter(spot.name.rpartition(": ")[2] for spot in some)
    assert len(kinds) >= 3
    assert try_spots(stores, tmp_path / "s.db", some, 2) == []


@pytest.mark.test
@pytest.mark.parametrize("command_line", [("index", "--quiet"), ("check", "--repair")])
@pytest.mark.parametrize("prefix", ["other/", "\udcff/"])
@pytest.mark.parametrize("stores", ["plain"], indirect=True)
def test_root_with_another_name_is_found_again(
    stores: Stores, prefix: str, command_line: tuple[str, ...], tmp_path: Path
) -> None:
    """It has the path of the right one, and no other process is at work."""
    path = tmp_path / "s.db"
    damaged_copy(stores.whole, path, 92, 1)
    with closing(sqlite3.connect(path)) as connection, connection:
        raw = prefix.encode("utf-8", "surrogateescape")
        connection.execute("UPDATE roots SET prefix = CAST(? AS TEXT)", (raw,))
    assert stores.run(path, "check", "--quiet").code == 1
    extra = (stores.new,) if command_line[0] == "index" else ()
    assert stores.run(path, *command_line, *extra).code == 0
    assert stores.run(path, "check", "--quiet").code == 0
    assert stores.run(path, "index", stores.new, "--quiet").code == 0
    assert stores.texts(path)[1] == _right() | {name: _right(1)[name] for name in ("n38", "n39")}


@pytest.mark.test
@pytest.mark.parametrize("stores", ["plain"], indirect=True)  # an encrypted page is sealed
def test_text_that_nobody_checks_is_noticed_here(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sabotage twin: with the checksums of texts off, a flipped letter comes out as it is."""
    at = stores.whole.read_bytes().index(text_of(1).encode()) + 9

    def damage() -> bool:
        return damaged_copy(stores.whole, tmp_path / "s.db", at, ord("Q"))

    assert judge(stores, tmp_path / "s.db", "a letter", damage) == []
    monkeypatch.setattr("edge_mrl.store.view.sound_document", lambda *_: True)
    assert [
        one for one in judge(stores, tmp_path / "s.db", "a letter", damage) if "another text" in one
    ]
