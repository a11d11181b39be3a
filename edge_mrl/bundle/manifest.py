"""The bundle: a folder with a graph, a tokenizer and a manifest that says what they are.

FORMAT.md, section "Bundle", is the specification. This module is its only reader, and checks everything.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mrl.bundle.files import read_bounded, require_sizes
from edge_mrl.bundle.jsontext import build, parse_json
from edge_mrl.codes import kind_fits
from edge_mrl.errors import (
    BundleError,
    EdgeMrlError,
    FormatError,
    HashError,
    ManifestError,
    MissingFileError,
    OutOfMemoryError,
    UsageError,
    brief,
    reason,
)
from edge_mrl.machine import ran_out

if TYPE_CHECKING:
    from edge_mrl.codes import Packing

__all__ = [
    "FORMAT",
    "GOLDEN",
    "GRAPH",
    "HEAD",
    "KINDS",
    "MANIFEST",
    "SIGNATURE",
    "TOKENIZER",
    "WEIGHTS",
    "Dims",
    "FileEntry",
    "Head",
    "Manifest",
    "Padding",
    "Precision",
    "Signed",
    "SourceModel",
    "bundle_error",
    "dump_manifest",
    "expected_outputs",
    "lowest_version",
    "make_code",
    "parse_manifest",
    "read_manifest",
    "read_signed",
]

FORMAT = "edge-mrl-bundle"
#: Version 2 says how stores pack codes, in the keys of CODE_KEYS; in version 1 they keep int8 codes.
#: Version 3 has 2-bit codes and random heads. A bundle has the lowest version that can describe it.
VERSIONS = (1, 2, 3)
CODE_KEYS = ("stored", "step", "centre")
#: The rules for making codes, as manifests name them.
INT8_RULE = "clip(round_half_even(127*x/scale),-127,127)"
BIT_RULE = "code>0,msb_first"
MANIFEST = "edge_mrl.json"
SIGNATURE = "edge_mrl.sig"
GRAPH = "model.onnx"
WEIGHTS = "model.onnx.data"
TOKENIZER = "tokenizer.json"
GOLDEN = "golden.json"
HEAD = "head.npy"
#: How a head was made. All kinds except the prefix are matrices, in a file of their own.
HEAD_KINDS = ("prefix", "pca", "rotation", "linear", "random", "matrix")
KINDS = ("document", "query")
#: More than any model has, and little enough that nothing overflows.
MOST_DIMENSIONS, MOST_TOKENS, MOST_PROMPT_CHARS = 65_536, 1_000_000, 10_000

_ZEROS = "0" * 64
_OWN_HASH = re.compile(rb'"manifest_sha256": "([0-9a-f]{64})"')


@dataclass(frozen=True, slots=True)
class Dims:
    """Dimensions of the two outputs; ``full`` is None in a bundle that gives codes only."""

    coarse: int
    full: int | None


@dataclass(frozen=True, slots=True)
class Code:
    """How coarse codes are made from unit-length vectors.

    Attributes:
        id: SHA-256 that names the code, see ``make_code``. A store is bound to it.
        scale: The value that 127 stands for in int8 codes.
        int8: The name of the rule for int8 codes.
        bit: The name of the rule for 1-bit codes.
        stored: The kind of code that a store keeps of documents: one of ``codes.CODE_KINDS``.
        step: See ``codes.Packing``.
        centre: See ``codes.Packing``.
    """

    id: str
    scale: float
    int8: str
    bit: str
    stored: str = "int8"
    step: float | None = None
    centre: list[int] | None = None

    @property
    def packing(self) -> Packing:
        """How a store packs the int8 codes of documents."""
        from edge_mrl.codes import Packing

        centre = None if self.centre is None else tuple(self.centre)
        return Packing(self.stored, self.step, centre)


@dataclass(frozen=True, slots=True)
class Head:
    """The linear map from ``full`` to what is truncated and quantised.

    Attributes:
        id: SHA-256 of the head; equal matrices have equal ids, however they were made.
        kind: "prefix" for no matrix, or how the matrix in head.npy was made: one of HEAD_KINDS.
        layer_norm: Whether vectors are centred first (layer norm before truncation).
    """

    id: str
    kind: str
    layer_norm: bool


@dataclass(frozen=True, slots=True)
class Padding:
    """How a batch is padded: on the right, with token ``id`` and attention mask 0."""

    side: str
    id: int


@dataclass(frozen=True, slots=True)
class Precision:
    """How the graph computes.

    Attributes:
        weights: "fp32", "int8", "int4", or "uint8": int8 with zero point 128, for x86-64 without VNNI.
        activations: "fp32"; "int8 per block"; or for uint8 activations how their step is chosen:
            "fixed", "per token", or for each input one of both ("fixed and per token").
        integer_products: Number of matrix products that run on integers.
        smoothed_products: Number of groups of products whose input is smoothed.
    """

    weights: str
    activations: str
    integer_products: int
    smoothed_products: int


@dataclass(frozen=True, slots=True)
class SourceModel:
    """Where the weights come from."""

    model: str
    architecture: str
    licence: str


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Size and SHA-256 of one file of the bundle."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All that a runtime must know in addition to the graph and the tokenizer.

    Attributes:
        format: Always "edge-mrl-bundle".
        version: Version of the format, one of VERSIONS.
        manifest_sha256: SHA-256 of the manifest's own bytes with these 64 digits as zeros.
        name: Short name, for people.
        source: Where the weights come from.
        space_id: SHA-256 that names the embedding space of ``full``.
        dims: Dimensions of the outputs.
        inputs: The graph's inputs, int64[texts, tokens] each.
        outputs: The graph's outputs and their types.
        code: How coarse codes are made.
        head: The linear map before truncation.
        prompts: Text to put in front of the input, by kind.
        max_tokens: Longest input in tokens, special tokens included.
        padding: How a batch is padded.
        precision: How the graph computes.
        quality: What was measured at export, by name.
        tools: Versions of the tools that made the bundle.
        files: The bundle's other files.
    """

    format: str
    version: int
    manifest_sha256: str
    name: str
    source: SourceModel
    space_id: str
    dims: Dims
    inputs: list[str]
    outputs: dict[str, str]
    code: Code
    head: Head
    prompts: dict[str, str]
    max_tokens: int
    padding: Padding
    precision: Precision
    quality: dict[str, float]
    tools: dict[str, str]
    files: dict[str, FileEntry]

    @property
    def dim(self) -> int:
        """Dimensions of the coarse code."""
        return self.dims.coarse

    @property
    def full_dim(self) -> int | None:
        """Dimensions of the full vector, or None if the bundle gives codes only."""
        return self.dims.full

    @property
    def code_id(self) -> str:
        """SHA-256 that names the code. A store is bound to it, and to the space."""
        return self.code.id

    @property
    def size_bytes(self) -> int:
        """Total size of the files that the manifest names, in bytes."""
        return sum(entry.size_bytes for entry in self.files.values())


@dataclass(frozen=True, slots=True)
class Signed:
    """A manifest, and who vouches for it.

    Attributes:
        manifest: The manifest.
        digest: SHA-256 of its file's bytes, which name every other file's.
        signer: The id of the trusted key that vouches for it; None if no keys were asked for.
    """

    manifest: Manifest
    digest: str
    signer: str | None


def read_manifest(
    bundle: str | os.PathLike[str], *, trust: str | os.PathLike[str] | None = None
) -> Manifest:
    """Read and check the manifest of the bundle in a folder.

    Args:
        bundle: The bundle's folder.
        trust: A file of keys, of which one must have signed the bundle; None for the file that the
            environment variable EDGE_MRL_TRUST names, if it is set.

    Raises:
        UsageError: The folder does not exist.
        MissingFileError: The folder has no manifest.
        SignatureError: No trusted key has signed the bundle.
        BundleError: The manifest is damaged or unknown; the class says how.
    """
    return read_signed(bundle, trust=trust).manifest


def read_signed(
    bundle: str | os.PathLike[str], *, trust: str | os.PathLike[str] | None = None
) -> Signed:
    """Read a manifest as ``read_manifest`` does, with what is known of its bytes."""
    from edge_mrl.bundle.trust import vouch

    folder = Path(bundle)
    there = False
    with suppress(OSError):  # a name that is too long, say
        there = folder.is_dir()
    if not there:
        raise UsageError(f"no bundle at {folder}: expected a folder made by `edge-mrl export`")
    try:
        data = read_bounded(folder, MANIFEST)
    except MissingFileError as error:
        raise MissingFileError(
            f"{folder} has no {MANIFEST}: it is not a bundle, or the copy is incomplete"
        ) from error
    signer = vouch(folder, data, trust)  # before anything is parsed
    return Signed(parse_manifest(data), hashlib.sha256(data).hexdigest(), signer)


def parse_manifest(data: bytes) -> Manifest:
    """Parse and check a manifest's bytes.

    Raises:
        FormatError: The bytes are not a bundle's manifest, or its version is unknown.
        HashError: The bytes are not those that were written.
        ManifestError: A key is missing, unknown or of the wrong type.
    """
    parsed = parse_json(data, MANIFEST)
    if not isinstance(parsed, dict) or parsed.get("format") != FORMAT:
        found = parsed.get("format") if isinstance(parsed, dict) else type(parsed).__name__
        raise FormatError(f"{MANIFEST}: format is {brief(repr(found))}, expected {FORMAT!r}")
    if type(parsed.get("version")) is not int or parsed["version"] not in VERSIONS:
        raise FormatError(
            f"bundle format version {brief(repr(parsed.get('version')))}, this edge-mrl reads 1 to 3: "
            "update edge-mrl, or export the bundle again"
        )
    if parsed["version"] == 1 and isinstance(parsed.get("code"), dict):
        if unknown := sorted(parsed["code"].keys() & set(CODE_KEYS)):
            raise ManifestError(f"{MANIFEST}: unknown {', '.join(unknown)} in code")
        parsed["code"] |= {"stored": "int8", "step": None, "centre": None}
    manifest: Manifest = build(Manifest, parsed, MANIFEST)
    _check_own_hash(data, manifest)
    _check_values(manifest)
    return manifest


def dump_manifest(manifest: Manifest) -> bytes:
    """Serialise a manifest, and fill in its own hash."""
    values = dataclasses.asdict(dataclasses.replace(manifest, manifest_sha256=_ZEROS))
    if manifest.version == 1:
        values["code"] = {k: v for k, v in values["code"].items() if k not in CODE_KEYS}
    data = (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()
    return data.replace(_ZEROS.encode(), hashlib.sha256(data).hexdigest().encode(), 1)


def _check_own_hash(data: bytes, manifest: Manifest) -> None:
    match = _OWN_HASH.search(data)
    blanked = (
        b"" if match is None else data[: match.start(1)] + _ZEROS.encode() + data[match.end(1) :]
    )
    if hashlib.sha256(blanked).hexdigest() != manifest.manifest_sha256:
        raise HashError(
            f"{MANIFEST} is damaged or was edited: its SHA-256 is not the one that it names"
        )


def _check_values(manifest: Manifest) -> None:
    code = manifest.code
    checks = {
        "dims.coarse": 1 <= manifest.dims.coarse <= MOST_DIMENSIONS,
        "dims.full": manifest.dims.full is None or 1 <= manifest.dims.full <= MOST_DIMENSIONS,
        "max_tokens": 1 <= manifest.max_tokens <= MOST_TOKENS,
        "code.scale": 0 < code.scale < float("inf"),
        "code.stored": manifest.version == lowest_version(code.stored, manifest.head.kind)
        and kind_fits(code.stored, code.step, code.centre, manifest.dims.coarse),
        "padding.side": manifest.padding.side == "right",
        "padding.id": 0 <= manifest.padding.id < 1 << 31,
        "head.kind": manifest.head.kind in HEAD_KINDS,
        "prompts": set(manifest.prompts) == set(KINDS)
        and all(len(text) <= MOST_PROMPT_CHARS for text in manifest.prompts.values()),
        "inputs": manifest.inputs == ["input_ids", "attention_mask"],
        "outputs": manifest.outputs == expected_outputs(manifest.dims),
        "files": {GRAPH, WEIGHTS, TOKENIZER, GOLDEN} <= set(manifest.files)
        and (HEAD in manifest.files) == (manifest.head.kind != "prefix")
        and all(_plain(name, entry) for name, entry in manifest.files.items()),
    }
    if wrong := [key for key, good in checks.items() if not good]:
        raise ManifestError(f"{MANIFEST}: invalid value of {', '.join(wrong)}")
    require_sizes(manifest)


def _plain(name: str, entry: FileEntry) -> bool:
    """Whether a file has a name in the bundle's own folder, a size, and a hash."""
    return (
        re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII) is not None
        and name not in (MANIFEST, SIGNATURE)
        and entry.size_bytes >= 0
        and re.fullmatch(r"[0-9a-f]{64}", entry.sha256) is not None
    )


def lowest_version(stored: str, head_kind: str) -> int:
    """The version of the format that a bundle with such codes and such a head has."""
    if stored == "2bit" or head_kind == "random":
        return 3
    return 1 if stored == "int8" else 2


def make_code(head_id: str, dim: int, *, scale: float, packing: Packing | None = None) -> Code:
    """Describe the code of a head's first dimensions, with the id that names it (FORMAT.md, "Space").

    Args:
        head_id: The id of the head.
        dim: Dimensions of the code.
        scale: The value that 127 stands for in int8 codes.
        packing: How stores pack codes; None for int8.
    """
    named = {"head": head_id, "dim": dim, "scale": scale, "int8": INT8_RULE, "bit": BIT_RULE}
    stored, step, centre = "int8", None, None
    if packing is not None and packing.kind != stored:
        stored, step = packing.kind, packing.step
        centre = None if packing.centre is None else list(packing.centre)
        named |= {"stored": stored, "step": step, "centre": centre}
    digest = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
    return Code(digest, scale, INT8_RULE, BIT_RULE, stored, step, centre)


def expected_outputs(dims: Dims) -> dict[str, str]:
    """The outputs of a graph with these dimensions, and their types."""
    return {"coarse": "int8"} | ({} if dims.full is None else {"full": "float32"})


def bundle_error(error: BaseException, bundle: Path) -> EdgeMrlError:
    """The error to raise in place of a library's error as it opened a file of a bundle."""
    if ran_out(error):
        return OutOfMemoryError(
            f"there is not enough memory to open the bundle {bundle}: close other programs, raise this "
            "process's memory limit, or use --low-memory and --threads 1"
        )
    return BundleError(f"the bundle {bundle} cannot be opened: {reason(error)}")
