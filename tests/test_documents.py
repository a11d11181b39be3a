"""What a document may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_mrl import documents, sources
from edge_mrl.documents import Document, clean
from edge_mrl.errors import UsageError


@pytest.mark.parametrize("name", ["", "a\x00b", "\ud800"])
def test_document_id_that_cannot_be_kept_is_an_error(name: str) -> None:
    with pytest.raises(UsageError, match="document id"):
        Document(name, "text")


def test_document_of_something_else_than_text_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="int"):
        Document("1", 3)  # type: ignore[arg-type]


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_clean_keeps_offsets_and_makes_utf8(text: str) -> None:
    cleaned = clean(text)
    assert len(cleaned) == len(text)
    assert cleaned.encode().decode() == cleaned
    assert all(a == b for a, b in zip(text, cleaned, strict=True) if not "\ud800" <= a <= "\udfff")


@pytest.mark.parametrize("name", ["find_sources", "read_documents"])
def test_names_that_have_moved_are_found_with_a_warning(name: str) -> None:
    with pytest.warns(DeprecationWarning, match="import it from edge_mrl.sources"):
        assert getattr(documents, name) is getattr(sources, name)
