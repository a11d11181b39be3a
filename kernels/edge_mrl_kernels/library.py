"""The shared library through ctypes. Calls release the GIL; nothing here imports numpy."""

from __future__ import annotations

import ctypes
import sys
from array import array
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

from edge_mrl_kernels.calls import ROOM, KernelError, checked
from edge_mrl_kernels.searching import Searching, declare

__all__ = ["Kernels", "Model", "load"]

#: The version of emrl.h that this module was written for.
API_VERSION = 1
FILES = {"win32": "emrl.dll", "darwin": "libemrl.dylib"}


class _File(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("data", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Shape(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_int32) for name in ("coarse", "full", "max_tokens", "vocabulary")
    )


class _Buffer(ctypes.Structure):
    """Py_buffer of Python's C API: the way to the bytes of what may not be written to."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


class Kernels(Searching):
    """The library, with the kernels of one name.

    Attributes:
        name: Their name, such as "avx512vnni".
    """

    def open(self, graph: bytes, files: Mapping[str, Any]) -> Model:
        """Open a bundle's graph.

        Args:
            graph: The bytes of model.onnx.
            files: The files that its weights lie in, by name: bytes or maps, which are kept until the
                model is closed.

        Raises:
            ForeignGraphError: The kernels do not know such a graph.
            MemoryError: There is not enough memory.
        """
        return Model(self._library, graph, files, self.name)


class Model:
    """A bundle's graph that is ready to run. Safe to share between threads.

    Attributes:
        dim: Dimensions of a code.
        full_dim: Dimensions of a full vector; None where the bundle gives codes only.
        max_tokens: Most tokens of a text; None where the graph sets no limit.
        vocabulary: Token ids are below this.
    """

    def __init__(
        self, library: ctypes.CDLL, graph: bytes, files: Mapping[str, Any], kernel: str
    ) -> None:
        self._library = library
        self._views = [_Buffer() for _ in files]
        self._handle = ctypes.c_void_p()
        entries = (_File * len(files))()
        for entry, view, (name, data) in zip(entries, self._views, files.items(), strict=True):
            _get_buffer(ctypes.py_object(data), ctypes.byref(view), 0)
            entry.name, entry.data, entry.size = name.encode(), view.buf, view.len
        try:
            with checked() as outcome:
                outcome.code = library.emrl_open(
                    graph,
                    len(graph),
                    entries,
                    len(entries),
                    kernel.encode(),
                    ctypes.byref(self._handle),
                    outcome.text,
                    ROOM,
                )
        except BaseException:
            self.close()
            raise
        shape = library.emrl_shape_of(self._handle)
        self.dim: int = shape.coarse
        self.full_dim: int | None = shape.full or None
        self.max_tokens: int | None = shape.max_tokens or None
        self.vocabulary: int = shape.vocabulary

    def encode(self, rows: Sequence[Sequence[int]]) -> tuple[bytearray, bytearray]:
        """Encode texts.

        Args:
            rows: The token ids of each text.

        Returns:
            The codes, int8[n, dim], and the full vectors, float32[n, full_dim], which are empty where
            the bundle gives none.

        Raises:
            KernelError: A token id is beyond the table, or a text is too long.
            MemoryError: There is not enough memory.
        """
        try:
            ids = array("i", chain.from_iterable(rows))
        except OverflowError as error:
            raise KernelError("a token id has more than 31 bits") from error
        starts = array("q", accumulate(map(len, rows), initial=0))
        coarse = bytearray(len(rows) * self.dim)
        full = bytearray(4 * len(rows) * (self.full_dim or 0))
        with checked() as outcome:
            outcome.code = self._library.emrl_encode(
                self._handle,
                _address(ids),
                _address(starts),
                len(rows),
                _address(coarse),
                _address(full),
                outcome.text,
                ROOM,
            )
        return coarse, full

    def close(self) -> None:
        """Free the model. No call may be running, and none may follow."""
        handle, self._handle = self._handle, ctypes.c_void_p()
        self._library.emrl_close(handle)
        views, self._views = self._views, []
        for view in views:
            _release_buffer(ctypes.byref(view))

    def __del__(self) -> None:
        if getattr(self, "_views", None):
            self.close()


def _address(data: bytearray | array[int]) -> Any:
    """A pointer to the bytes of what may be written to; None where there are none."""
    return (ctypes.c_char * len(memoryview(data).cast("B"))).from_buffer(data) if data else None


def load(name: str = "", path: Path | None = None) -> Kernels:
    """Load the library.

    Args:
        name: The kernels' name; empty for the fastest of this processor.
        path: The library; None for the one of this package.

    Raises:
        KernelError: This processor has no kernels of the name, or the library is of another version.
        OSError: The library is missing, or made for another machine.
    """
    file = path or Path(__file__).with_name(FILES.get(sys.platform, "libemrl.so"))
    library = ctypes.CDLL(str(file))
    found = library.emrl_api_version()
    if found != API_VERSION:
        raise KernelError(f"{file} has version {found} of the interface, expected {API_VERSION}")
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    library.emrl_kernel.argtypes, library.emrl_kernel.restype = [ctypes.c_char_p], ctypes.c_char_p
    library.emrl_open.argtypes = [
        *(pointer, size, ctypes.POINTER(_File), size, ctypes.c_char_p),
        *(ctypes.POINTER(pointer), ctypes.c_char_p, size),
    ]
    library.emrl_close.argtypes, library.emrl_close.restype = [pointer], None
    library.emrl_shape_of.argtypes, library.emrl_shape_of.restype = [pointer], _Shape
    library.emrl_encode.argtypes = [
        *(pointer, pointer, pointer, size, pointer, pointer, ctypes.c_char_p, size)
    ]
    declare(library)
    kernel = library.emrl_kernel(name.encode())
    if kernel is None:
        raise KernelError(f"there are no kernels {name!r} for this processor")
    return Kernels(library, kernel.decode())


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = [ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int]
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = [ctypes.POINTER(_Buffer)]
_release_buffer.restype = None
