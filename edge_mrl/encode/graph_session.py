"""A bundle's graph in ONNX Runtime: one thread per batch, several batches at the same time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle import (
    GRAPH,
    HEAD,
    WEIGHTS,
    Identity,
    Manifest,
    bundle_error,
    check_files,
    map_file,
    read_file,
    read_graph,
)
from edge_mrl.errors import BundleError, EncoderError, GraphError, UsageError, reason
from edge_mrl.machine import ran_out, require_room_for_runtime

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = ["GraphSession", "Outputs", "Rows", "available_threads", "check_outputs"]

Rows: TypeAlias = Sequence[Sequence[int]]
Outputs: TypeAlias = list[NDArray[Any]]

#: ONNX Runtime's name for the folder that holds the weights of a graph that it gets as bytes.
FOLDER_OPTION = "session.model_external_initializers_file_folder_path"
#: How far the length of a full vector may be from 1: graphs divide by it in float32.
LENGTH_ERROR = 0.01
#: A single batch of texts of so many tokens or more is worth splitting between threads. With fewer,
#: waking the threads costs more than they save.
WIDE_TOKENS = 128


def available_threads() -> int:
    """Number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class GraphSession:
    """The graph, ready to run. Safe to share between threads.

    A batch runs on one thread, so that threads never wait for each other within a batch. On two cores
    that gives 13 % more documents a second than two threads for each batch, and a query wakes one thread
    only. A single long batch is split between threads by a second session, which is opened when it is
    first needed (48 % faster). ``python -m bench.encode.streams`` measures both.

    ONNX Runtime gets the graph as bytes that were compared with their hash, and checked to read nothing
    but the bundle's own weights.

    Args:
        folder: The bundle's folder.
        manifest: Its manifest.
        threads: Use at most so many threads; None for one per core.
        low_memory: Use no memory arena: slower, with the smallest RSS.
        files: Identities of the bundle's files, whose hashes were compared.
        checked: Whether the graph's bytes have been checked before.

    Raises:
        BundleError: The graph cannot be opened, or differs from what the manifest says.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        threads: int | None,
        *,
        low_memory: bool,
        files: Mapping[str, Identity],
        checked: bool,
    ) -> None:
        self.threads = threads or available_threads()
        self.engine = "onnxruntime"
        self._folder = folder
        self._manifest = manifest
        self._files = files
        self._checked = checked
        self._padding = manifest.padding.id
        self._names = list(manifest.outputs)
        self._low_memory = low_memory
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._wide: ort.InferenceSession | None = None
        self._narrow: ort.InferenceSession | None = self._open(1)
        _check_graph(self._narrow, manifest)

    def run(self, rows: Rows) -> Outputs:
        """Run token ids as one batch, padded on the right.

        Returns:
            coarse int8[n, dim] and, unless the bundle gives codes only, full float32[n, D].

        Raises:
            EncoderError: The graph cannot take the token ids, or gives no vectors for them.
            UsageError: The session is closed.
        """
        return self._run(self._session(), rows)

    def run_all(self, batches: Sequence[Rows]) -> Iterator[Outputs]:
        """Run batches, several at the same time; the outputs are in the order of the batches.

        Raises:
            UsageError: The session is closed.
        """
        narrow = self._session()
        longest = max((len(row) for rows in batches for row in rows), default=0)
        if len(batches) < self.threads and longest >= WIDE_TOKENS:
            wide = self._widened()
            return (self._run(wide, rows) for rows in batches)
        if len(batches) < 2 or self.threads < 2:
            return (self._run(narrow, rows) for rows in batches)
        return self._workers().map(lambda rows: self._run(narrow, rows), batches)

    def close(self) -> None:
        """Free the weights and end the threads. Running a closed session is a UsageError."""
        with self._lock:
            pool, self._pool = self._pool, None
            self._narrow = self._wide = None
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    def _session(self) -> ort.InferenceSession:
        session = self._narrow
        if session is None:
            raise UsageError("the encoder is closed: open it again")
        return session

    def _widened(self) -> ort.InferenceSession:
        with self._lock:
            if self._wide is None:
                # The folder may have been written to since: what has changed is compared again.
                self._files = self._compare()
                self._wide = self._open(self.threads)
            return self._wide

    def _workers(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="edge-mrl")
            return self._pool

    def _run(self, session: ort.InferenceSession, rows: Rows) -> Outputs:
        longest = max(1, *map(len, rows)) if rows else 1
        ids = np.full((len(rows), longest), self._padding, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, values in enumerate(rows):
            ids[row, : len(values)] = values
            mask[row, : len(values)] = 1
        try:
            outputs: Outputs = session.run(self._names, {"input_ids": ids, "attention_mask": mask})
        except Exception as error:  # ONNX Runtime's own errors share no narrower public base
            if ran_out(error):
                raise
            raise EncoderError(
                f"the bundle's graph cannot read this text: {reason(error)}"
            ) from error
        check_outputs(outputs)
        return outputs

    def _compare(self) -> dict[str, Identity]:
        return check_files(self._folder, self._manifest, hashes=True, known=self._files)

    def _open(self, threads: int) -> ort.InferenceSession:
        require_room_for_runtime()
        import onnxruntime as ort

        files = self._manifest.files
        graph = read_file(self._folder, GRAPH, files[GRAPH])
        if not self._checked:
            read_graph(graph, {name: files[name].size_bytes for name in self._weights()})
            self._checked = True
        options = ort.SessionOptions()
        # The graph was optimised at export. Optimising it at each start would cost more than it gains.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        # Threads that spin between batches drain the battery.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self._low_memory:
            options.enable_cpu_mem_arena = False
            options.enable_mem_pattern = False
        kept = self._give_weights(options)
        try:
            session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own errors share no narrower public base
            raise bundle_error(error, self._folder) from error
        if not kept:
            self._require_same_weights()
        del kept  # ONNX Runtime has copied it
        return session

    def _weights(self) -> list[str]:
        """Names of the files that the graph may read."""
        return [name for name in (WEIGHTS, HEAD) if name in self._manifest.files]

    def _give_weights(self, options: ort.SessionOptions) -> list[Any]:
        """Say where the weights are; what is returned must live until the session is made.

        ONNX Runtime maps the files of the bundle's folder. It refuses links, so that these are mapped
        here, and it copies them: about 18 MB more memory for a bundle of 23 MB.
        """
        linked = [name for name in self._weights() if (self._folder / name).is_symlink()]
        if not linked:
            options.add_session_config_entry(FOLDER_OPTION, str(self._folder))
            return []
        data = [map_file(self._folder, n, self._manifest.files[n]) for n in self._weights()]
        sizes = [len(one) for one in data]
        options.add_external_initializers_from_files_in_memory(self._weights(), data, sizes)
        return data

    def _require_same_weights(self) -> None:
        """Check that the weights that ONNX Runtime opened are the files that were compared.

        A file that takes another's place meanwhile, and even one that was moved away and back, has
        another time of change.

        Raises:
            BundleError: They may not be.
        """
        found = self._compare()
        changed = [name for name in self._weights() if found[name] != self._files.get(name)]
        if changed:
            raise BundleError(
                f"{', '.join(changed)} of the bundle {self._folder} was replaced while it was opened: "
                "open it again"
            )


def check_outputs(outputs: Outputs) -> None:
    """Check that vectors are finite and of unit length or zero, and codes in their range.

    Raises:
        EncoderError: They are not. Nothing that was computed with them could be found again.
    """
    coarse, *rest = outputs
    wrong = "codes out of range" if coarse.size and coarse.min() < -127 else ""
    for full in rest:
        squares = np.einsum("nd,nd->n", full, full)
        # Not "> LENGTH_ERROR": a comparison with NaN is false.
        if not (np.abs(np.where(squares == 0, 1, squares) - 1) <= 2 * LENGTH_ERROR).all():
            wrong = "vectors that are not finite or not of unit length"
    if wrong:
        raise EncoderError(
            f"the bundle's graph gives {wrong} for this text: `edge-mrl verify` checks the bundle"
        )


def _check_graph(session: ort.InferenceSession, manifest: Manifest) -> None:
    """Compare the graph's inputs and outputs with the manifest's."""
    types = {"tensor(int8)": "int8", "tensor(float)": "float32"}
    inputs = [i.name for i in session.get_inputs()]
    outputs = {o.name: types.get(o.type, o.type) for o in session.get_outputs()}
    widths = {o.name: o.shape[-1] for o in session.get_outputs()}
    promised = {"coarse": manifest.dims.coarse, "full": manifest.dims.full}
    if inputs != manifest.inputs or outputs != manifest.outputs:
        raise GraphError(
            f"the graph has {inputs} -> {outputs}, expected {manifest.inputs} -> {manifest.outputs}"
        )
    wrong = {name: width for name, width in widths.items() if width != promised[name]}
    if wrong:
        raise GraphError(f"the graph's outputs are {wrong} wide, the manifest says {promised}")
