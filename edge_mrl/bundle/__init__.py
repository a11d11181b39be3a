"""The bundle that an export makes: its manifest, files and head, read and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.bundle.head import derive_codes, head_id, head_inputs, read_head
    from edge_mrl.bundle.manifest import (
        FORMAT,
        GOLDEN,
        GRAPH,
        HEAD,
        KINDS,
        MANIFEST,
        TOKENIZER,
        WEIGHTS,
        Dims,
        FileEntry,
        Head,
        Manifest,
        Padding,
        Precision,
        SourceModel,
        bundle_error,
        check_files,
        dump_manifest,
        expected_outputs,
        lowest_version,
        make_code,
        parse_manifest,
        read_manifest,
    )

__all__ = [
    "FORMAT",
    "GOLDEN",
    "GRAPH",
    "HEAD",
    "KINDS",
    "MANIFEST",
    "TOKENIZER",
    "WEIGHTS",
    "Dims",
    "FileEntry",
    "Head",
    "Manifest",
    "Padding",
    "Precision",
    "SourceModel",
    "bundle_error",
    "check_files",
    "derive_codes",
    "dump_manifest",
    "expected_outputs",
    "head_id",
    "head_inputs",
    "lowest_version",
    "make_code",
    "parse_manifest",
    "read_head",
    "read_manifest",
]

__getattr__ = lazily(
    __name__,
    {
        "head": ("derive_codes", "head_id", "head_inputs", "read_head"),
        "manifest": (
            "FORMAT",
            "GOLDEN",
            "GRAPH",
            "HEAD",
            "KINDS",
            "MANIFEST",
            "TOKENIZER",
            "WEIGHTS",
            "Dims",
            "FileEntry",
            "Head",
            "Manifest",
            "Padding",
            "Precision",
            "SourceModel",
            "bundle_error",
            "check_files",
            "dump_manifest",
            "expected_outputs",
            "lowest_version",
            "make_code",
            "parse_manifest",
            "read_manifest",
        ),
    },
)
