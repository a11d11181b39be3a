"""Faces that load nothing, and names that have moved."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings

import pytest

import edge_mrl
from edge_mrl.lazy import lazily, moved


def test_name_of_a_face_is_that_of_its_module() -> None:
    get = lazily("edge_mrl.search", {"fusion": ("fuse",)})
    assert get("fuse") is importlib.import_module("edge_mrl.search.fusion").fuse
    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        get("other")


def test_former_name_gives_the_new_one_and_warns() -> None:
    get = lazily("edge_mrl.search", {"fusion": ("fuse",)}, renamed={"blend": "fuse"})
    with pytest.warns(DeprecationWarning, match="edge_mrl.search.blend is called fuse now"):
        assert get("blend") is get("fuse")


def test_former_name_is_kept_and_says_what_to_use() -> None:
    get = lazily("edge_mrl.search", {}, retired={"fusion": {"fuse": "use something else"}})
    with pytest.warns(DeprecationWarning, match="search.fuse goes with the .*: use something else"):
        assert get("fuse") is importlib.import_module("edge_mrl.search.fusion").fuse


def test_moved_name_is_found_and_says_where_it_is() -> None:
    get = moved("edge_mrl.old", {"edge_mrl.search": ("Hit",)})
    with pytest.warns(DeprecationWarning, match="edge_mrl.old.Hit has moved: .*edge_mrl.search"):
        assert get("Hit") is edge_mrl.Hit
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        get("other")


@pytest.mark.parametrize(
    ("statement", "home"),
    [
        ("from edge_mrl.index import Hit", "edge_mrl.search"),
        ("from edge_mrl.documents import read_documents", "edge_mrl.sources"),
    ],
)
def test_imports_of_former_documentation_work_and_warn_where_they_stand(
    statement: str, home: str
) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "always", "-c", statement],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "<string>:1: DeprecationWarning" in run.stderr
    assert f"import it from {home}" in run.stderr


def test_every_public_name_is_found_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(getattr(edge_mrl, name) is not None for name in edge_mrl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Store'"):
        edge_mrl.Store  # noqa: B018 - looking it up is the test
