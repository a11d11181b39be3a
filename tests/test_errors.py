"""The tree of errors: what its drawing says is what the classes are."""

from __future__ import annotations

import re

import pytest

from edge_mrl import errors
from edge_mrl.errors import EdgeMrlError, NetworkError, NotEnrolledError, ServerError, reason

CLASSES = {name: getattr(errors, name) for name in errors.__all__ if name[0].isupper()}


def drawn() -> list[tuple[str, str, int | None]]:
    """Each class of the drawing, its parent, and its exit code where one is written."""
    path: list[str] = []
    found = []
    for bars, name, code in re.findall(
        r"^([│├└─ ]*)(\w+Error)(?: +exit (\d))?", errors.__doc__ or "", re.MULTILINE
    ):
        depth = len(bars) // 4
        path[depth:] = [name]
        found.append((name, path[depth - 1] if depth else "", int(code) if code else None))
    return found


def test_drawing_has_every_class_under_its_parent() -> None:
    tree = {name: parent for name, parent, _ in drawn()}
    assert set(tree) == set(CLASSES)
    for name, parent in tree.items():
        assert CLASSES[name].__base__.__name__ == (parent or "Exception"), name


def test_exit_codes_are_the_drawn_ones_and_inherited() -> None:
    codes: dict[str, int] = {}
    for name, parent, code in drawn():
        codes[name] = code if code is not None else codes.get(parent, 2)
        assert CLASSES[name].exit_code == codes[name], name


def test_every_error_has_a_description() -> None:
    assert all((found.__doc__ or "").strip() for found in CLASSES.values())


def test_store_that_is_not_enrolled_says_what_to_type() -> None:
    with pytest.raises(errors.UsageError, match=r"edge-mrl enroll .*--store notes\.db"):
        raise NotEnrolledError("notes.db")


def test_refusal_of_a_server_keeps_what_it_said() -> None:
    error = ServerError("busy", status=503, code="busy", details={"a": 1}, retry_after_s=2.0)
    assert isinstance(error, NetworkError)
    assert isinstance(error, EdgeMrlError)
    assert (error.status, error.code, error.details) == (503, "busy", {"a": 1})
    assert error.retry_after_s == 2.0


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no such file.\nand more"), "no such file"),
        (ValueError(""), "ValueError"),
        (OSError(2, "gone"), "[Errno 2] gone"),
    ],
)
def test_reason_is_one_line_and_never_empty(error: Exception, said: str) -> None:
    assert reason(error) == said
