"""Files, folders and JSON Lines as documents, and the names that begin their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.sources.facts import line_in_file
    from edge_mrl.sources.files import Scan, Search, SourceFile, as_name, find_sources
    from edge_mrl.sources.formats import Part, Reader, Unreadable, extra_reads
    from edge_mrl.sources.found import find_in_roots, move_ids, note_roots
    from edge_mrl.sources.gone import Pruning, RunFacts, what_is_gone
    from edge_mrl.sources.kinds import LINES_SUFFIXES, kind_of
    from edge_mrl.sources.lines import BadLineError
    from edge_mrl.sources.looking import Look, folders_of, look_at
    from edge_mrl.sources.places import Places, ids_of_paths, shown_path, split_name
    from edge_mrl.sources.reading import read_documents
    from edge_mrl.sources.rows import namespace_of, read_rows
    from edge_mrl.sources.text import check_encoding

__all__ = [
    "LINES_SUFFIXES",
    "BadLineError",
    "Look",
    "Part",
    "Places",
    "Pruning",
    "Reader",
    "RunFacts",
    "Scan",
    "Search",
    "SourceFile",
    "Unreadable",
    "as_name",
    "check_encoding",
    "extra_reads",
    "find_in_roots",
    "find_sources",
    "folders_of",
    "ids_of_paths",
    "kind_of",
    "line_in_file",
    "look_at",
    "move_ids",
    "namespace_of",
    "note_roots",
    "read_documents",
    "read_rows",
    "shown_path",
    "split_name",
    "what_is_gone",
]

__getattr__ = lazily(
    __name__,
    {
        "facts": ("line_in_file",),
        "files": ("as_name", "Scan", "Search", "SourceFile", "find_sources"),
        "formats": ("Part", "Reader", "Unreadable", "extra_reads"),
        "found": ("find_in_roots", "move_ids", "note_roots"),
        "gone": ("Pruning", "RunFacts", "what_is_gone"),
        "kinds": ("LINES_SUFFIXES", "kind_of"),
        "lines": ("BadLineError",),
        "looking": ("Look", "folders_of", "look_at"),
        "places": ("Places", "ids_of_paths", "shown_path", "split_name"),
        "reading": ("read_documents",),
        "rows": ("namespace_of", "read_rows"),
        "text": ("check_encoding",),
    },
)
