"""A bundle's graph in the native kernels: one thread per batch, without padding."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_mrl.bundle import (
    GRAPH,
    HEAD,
    WEIGHTS,
    Identity,
    Manifest,
    map_file,
    read_file,
    read_graph,
)
from edge_mrl.encode.graph_session import (
    GraphSession,
    Outputs,
    Rows,
    available_threads,
    check_outputs,
)
from edge_mrl.errors import EncoderError, UsageError, reason
from edge_mrl.native import kernels

if TYPE_CHECKING:
    from edge_mrl_kernels import Kernels, Model

__all__ = ["KernelSession", "Session", "open_session"]


class KernelSession:
    """The graph in the native kernels. Safe to share between threads.

    Texts lie one behind the other and are never padded, so a vector has the same bits alone and in any
    batch.

    Args:
        model: The opened graph.
        manifest: The bundle's manifest.
        threads: Use at most so many threads; None for one per core.
        name: The kernels' name.
    """

    def __init__(self, model: Model, manifest: Manifest, threads: int | None, name: str) -> None:
        self.threads = threads or available_threads()
        self.engine = f"kernels {name}"
        self._shapes = (manifest.dim, manifest.full_dim)
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._model: Model | None = model

    def run(self, rows: Rows) -> Outputs:
        """Run token ids; see ``GraphSession.run``."""
        return self._run(self._opened(), rows)

    def run_all(self, batches: Sequence[Rows]) -> Iterator[Outputs]:
        """Run batches, several at the same time; see ``GraphSession.run_all``."""
        model = self._opened()
        if len(batches) < 2 or self.threads < 2:
            return (self._run(model, rows) for rows in batches)
        return self._workers().map(lambda rows: self._run(model, rows), batches)

    def close(self) -> None:
        """Let the weights go, and end the threads. Running a closed session is a UsageError."""
        with self._lock:
            pool, self._pool = self._pool, None
            self._model = None  # freed when the last call that runs has returned
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    def _opened(self) -> Model:
        if self._model is None:
            raise UsageError("the encoder is closed: open it again")
        return self._model

    def _workers(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="edge-mrl")
            return self._pool

    def _run(self, model: Model, rows: Rows) -> Outputs:
        from edge_mrl_kernels import KernelError

        try:
            coarse, full = model.encode(rows)
        except KernelError as error:
            raise EncoderError(
                f"the bundle's graph cannot read this text: {reason(error)}"
            ) from error
        dim, full_dim = self._shapes
        outputs: Outputs = [np.frombuffer(coarse, np.int8).reshape(len(rows), dim)]
        if full_dim is not None:
            outputs.append(np.frombuffer(full, np.float32).reshape(len(rows), full_dim))
        check_outputs(outputs)
        return outputs


Session = GraphSession | KernelSession


def open_session(
    folder: Path,
    manifest: Manifest,
    threads: int | None,
    *,
    low_memory: bool,
    files: Mapping[str, Identity],
    checked: bool,
) -> Session:
    """Open a bundle's graph in the native kernels if they know it, else in ONNX Runtime.

    The arguments, and what is raised, are those of ``GraphSession``.
    """
    found = kernels()
    if found is not None:
        model = _open_model(found, folder, manifest, files=files, checked=checked)
        if model is not None:
            return KernelSession(model, manifest, threads, found.name)
    return GraphSession(
        folder, manifest, threads, low_memory=low_memory, files=files, checked=checked
    )


def _open_model(
    found: Kernels,
    folder: Path,
    manifest: Manifest,
    *,
    files: Mapping[str, Identity],
    checked: bool,
) -> Model | None:
    """The graph in the kernels; None where they do not know it."""
    from edge_mrl_kernels import ForeignGraphError

    names = [name for name in (WEIGHTS, HEAD) if name in manifest.files]
    graph = read_file(folder, GRAPH, manifest.files[GRAPH])
    if not checked:
        read_graph(graph, {name: manifest.files[name].size_bytes for name in names})
    data = {
        name: map_file(folder, name, manifest.files[name], known=files.get(name)) for name in names
    }
    try:
        model = found.open(graph, data)
    except ForeignGraphError:
        return None
    # A graph of other shapes than the manifest's is an error, and ONNX Runtime's session says which.
    return model if (model.dim, model.full_dim) == (manifest.dim, manifest.full_dim) else None
