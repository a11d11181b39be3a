"""The recipes for other tools, run as they stand, and compared with edge-mrl's own answers."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.support.bundles import TINY
from tests.support.fresh import Fresh, build, install
from tests.support.models import build_model
from tests.support.pythons import UnreachableError

pytestmark = pytest.mark.nightly
PAGE = (ROOT / "docs" / "recipes.md").read_text("utf-8")
PACKAGES = ("duckdb", "faiss-cpu", "pyarrow", "qdrant-client", "sqlite-vec")
TEXTS = ("The ferry leaves at dawn.", "Water the tomatoes every evening.", "A cat and a dog.")
#: SQLite of this Python loads extensions.
LOADS = "import sqlite3; sqlite3.connect(':memory:').enable_load_extension(True)"


def programs() -> dict[str, str]:
    """The page's program of each heading; "" is the reader that they share."""
    parts = re.split(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    named = {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}
    return {
        name: re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[0]
        for name, text in named.items()
    }


def interpreter() -> Path | None:
    for path in (Path("/usr/bin/python3"), Path("/usr/local/bin/python3")):
        if (
            path.exists()
            and not subprocess.run([path, "-c", LOADS], capture_output=True, check=False).returncode
        ):
            return path
    return None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """An environment with all packages, and a dump of three notes."""
    folder = tmp_path_factory.mktemp("recipes")
    wheel = build(ROOT, folder / "dist")
    assert build_model(folder / "model", TINY).returncode == 0
    (model,) = (folder / "model").glob("*.whl")
    wanted = (str(wheel), str(model), *PACKAGES)
    try:
        place = install(folder, *wanted, constraints=None, python=interpreter())
    except UnreachableError as error:
        pytest.skip(f"no network to install from: {error}")
    (folder / "notes").mkdir()
    for number, text in enumerate(TEXTS):
        (folder / "notes" / f"{number}.txt").write_text(text, "utf-8")
    (shell,) = re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for line in shell.splitlines():
        place.run(*line.split()[1:])
    (folder / "passages.py").write_text(programs()[""], "utf-8")
    return place


def own(place: Fresh) -> list[tuple[float, str]]:
    found = place.run("search", "when does the boat go?", "--store", "notes.db", "--json")
    return [(hit["score"], hit["id"]) for hit in json.loads(found.splitlines()[0])["hits"]]


@pytest.mark.parametrize("name", [name for name in programs() if name])
def test_a_recipe_gives_the_answers_of_the_store(place: Fresh, name: str) -> None:
    if name == "sqlite-vec" and interpreter() is None:
        pytest.skip("NOT TRIED: no Python here whose SQLite loads extensions")
    file = place.folder / f"{name.split(maxsplit=1)[0]}.py"
    file.write_text(programs()[name], "utf-8")
    lines = place.run("python", file.name).splitlines()
    found = [(float(score), id_) for score, id_ in (line.split() for line in lines)]
    expected = own(place)
    assert [id_ for _, id_ in found] == [id_ for _, id_ in expected]
    # A store compares codes of int8; others the same codes as numbers of 32 bits.
    assert [score for score, _ in found] == pytest.approx([s for s, _ in expected], abs=0.01)


def test_the_parquet_file_is_one_for_others_too(place: Fresh) -> None:
    (place.folder / "duck.py").write_text(programs()["DuckDB and Parquet"], "utf-8")
    place.run("python", "duck.py")
    read = "import pyarrow.parquet as p; print(p.read_table('notes.parquet')['part'].to_pylist())"
    said = place.run("python", "-c", read)
    assert all(text in said for text in TEXTS)
