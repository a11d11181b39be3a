"""A bundle's files: the same bytes for equal exports, aligned weights, all files or none."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_mrl.bundle import GRAPH, HEAD, MANIFEST, WEIGHTS, FileEntry
from edge_mrl.errors import UsageError
from edge_mrl.machine import sync_path

__all__ = [
    "check_output",
    "file_entries",
    "publish",
    "staging",
    "write_graph",
    "write_head",
    "write_json",
]

#: Weights of at least this size are stored outside the graph, where they are memory-mapped.
EXTERNAL_BYTES = 1024
#: One cache line, which is also the widest vector register.
ALIGNMENT = 64


@contextmanager
def staging(output: Path) -> Iterator[Path]:
    """A temporary folder next to ``output``, removed at the end unless it was published.

    Raises:
        UsageError: The folder cannot be created.
    """
    made = [parent for parent in output.parents if not parent.exists()]
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise UsageError(f"cannot write to {output.parent}: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in made:  # the innermost first; one that holds the bundle stays
            with contextlib.suppress(OSError):
                parent.rmdir()


def check_output(output: Path, *, force: bool) -> None:
    """Refuse to overwrite anything, except an earlier bundle with ``force``.

    Raises:
        UsageError: ``output`` exists already.
    """
    if not output.exists():
        return
    if output.is_dir() and not any(output.iterdir()):
        return
    if not (output / MANIFEST).is_file():
        raise UsageError(f"{output} exists and is not a bundle: choose another folder with -o")
    if not force:
        raise UsageError(f"{output} already holds a bundle: pass --force to replace it")


def publish(folder: Path, output: Path) -> None:
    """Move a finished folder into place; an earlier bundle is removed only afterwards."""
    folder.chmod(0o755)
    for path in (*folder.iterdir(), folder):
        sync_path(path)
    if output.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{output.name}.old.", dir=output.parent))
        output.rename(old / output.name)
        folder.rename(output)
        shutil.rmtree(old, ignore_errors=True)
    else:
        folder.rename(output)
    sync_path(output.parent)


def write_graph(model: ir.Model, folder: Path) -> None:
    """Write model.onnx, and its large weights to model.onnx.data, each aligned to 64 bytes.

    The head's matrix is not written again: the graph reads it from head.npy. So a device that writes
    another head.npy changes the graph's head with it.
    """
    offset = 0
    head = _head_values(folder)
    with (folder / WEIGHTS).open("wb") as file:
        for value in list(model.graph.initializers.values()):
            tensor = value.const_value
            if tensor is None:
                continue
            data = tensor.tobytes()
            if data == head:
                at = (folder / HEAD).stat().st_size - len(data)
                value.const_value = _external(tensor, str(value.name), folder, HEAD, at)
            elif len(data) >= EXTERNAL_BYTES:
                file.write(b"\0" * (-offset % ALIGNMENT))
                offset += -offset % ALIGNMENT
                file.write(data)
                value.const_value = _external(tensor, str(value.name), folder, WEIGHTS, offset)
                offset += len(data)
    ir.save(model, folder / GRAPH)


def _head_values(folder: Path) -> bytes | None:
    """The bytes of head.npy behind its header, which ends at a multiple of 64; None without a head."""
    path = folder / HEAD
    return np.load(path).tobytes() if path.exists() else None


def _external(
    tensor: ir.TensorProtocol, name: str, folder: Path, file: str, offset: int
) -> ir.ExternalTensor:
    shape: Any = tensor.shape
    return ir.ExternalTensor(
        file, offset, tensor.nbytes, tensor.dtype, shape=shape, name=name, base_dir=folder
    )


def write_head(matrix: NDArray[np.float32] | None, folder: Path) -> None:
    """Write head.npy, in version 1.0 of NumPy's format; no file for a plain prefix."""
    if matrix is not None:
        with (folder / HEAD).open("wb") as file:
            values = np.ascontiguousarray(matrix, dtype="<f4")
            np.lib.format.write_array(file, values, version=(1, 0), allow_pickle=False)


def write_json(value: Any, path: Path, *, indent: int | None = None) -> None:
    """Write JSON; equal values give equal bytes."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators)
    path.write_bytes((text + "\n").encode("utf-8", "surrogatepass"))


def file_entries(folder: Path) -> dict[str, FileEntry]:
    """Size and SHA-256 of each file except the manifest, sorted by name."""
    entries = {}
    for path in sorted(folder.iterdir()):
        if path.name == MANIFEST:
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        entries[path.name] = FileEntry(digest, path.stat().st_size)
    return entries
