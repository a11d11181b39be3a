"""Little memory: take less of it, notice when it runs out, and then say one clear thing.

Libraries answer a failed allocation in many ways: Python and numpy raise MemoryError, ONNX Runtime an
exception of its own, the loader an ImportError, and the tokenizer ends the process. For that last one
room is asked for before it is needed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from edge_mrl.errors import EdgeMrlError, OutOfMemoryError

__all__ = [
    "CODE_BYTES",
    "START_BYTES",
    "as_error",
    "one_thread_each",
    "ran_out",
    "reporting_memory",
    "require_room",
    "require_room_for_products",
]

#: What numpy, the tokenizer and ONNX Runtime take before there is a bundle: memory that is written,
#: and address space beside it for their code. Measured with wheels for x86-64 and a network of 40 kB:
#: it works from 66 and 166 MB on, so nothing is refused that would have worked.
START_BYTES, CODE_BYTES = 55_000_000, 85_000_000
#: What OpenBLAS maps at the first product of matrices, where it ends the process if it cannot, and what a
#: search takes beside that for the codes it scores. Measured with one thread; more may take more.
BLAS_BYTES, SCORE_BYTES = 34_000_000, 16_000_000
#: What keeps numpy and the tokenizer from starting a thread for each core, with a stack and an arena
#: each. A single tokenizer's thread would still fight for its arena where address space is short: ten
#: times slower at 256 MB.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_SIGNS = (
    "bad_alloc",
    "annot allocate memory",
    "ailed to allocate memory",
    "failed to map segment from shared object",
    "Resource temporarily unavailable",
    "can't start new thread",
)
_ADVICE = (
    "what was committed is safe; end other programs, raise this process's limit, or use --low-memory "
    "and --threads 1"
)


def one_thread_each() -> None:
    """Have libraries that are loaded from now on start no threads of their own, unless told otherwise.

    On two cores this saves 40 MB of memory and 170 MB of address space.
    """
    for name, value in _ONE_THREAD.items():
        os.environ.setdefault(name, value)


def require_room(size_bytes: int, *, code_bytes: int = 0) -> None:
    """Check that so much memory could be had now, within this process's limits.

    It sees what RLIMIT_AS and RLIMIT_DATA leave, and overcommitment that is off; not what a control
    group allows, whose kernel kills instead.

    Raises:
        OutOfMemoryError: It could not.
    """
    import mmap

    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
        return
    own = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        # Nothing is touched, so nothing is used: it takes some microseconds.
        with mmap.mmap(-1, size_bytes, flags=own):
            if code_bytes:
                # Code and files count as address space only, and so does shared memory.
                mmap.mmap(-1, code_bytes).close()
    except (OSError, MemoryError) as error:
        space = f", {code_bytes / 1e6:.0f} MB of address space beside" if code_bytes else ""
        raise OutOfMemoryError(
            f"there is not enough memory: {size_bytes / 1e6:.0f} MB more are needed{space}; {_ADVICE}"
        ) from error


@cache
def require_room_for_products() -> None:
    """Check once that numpy can multiply a query and the codes.

    Raises:
        OutOfMemoryError: It cannot; the next call checks again.
    """
    require_room(BLAS_BYTES + SCORE_BYTES)


def ran_out(error: BaseException) -> bool:
    """Whether an error, from whatever library, says that memory ran out."""
    if isinstance(error, EdgeMrlError):
        return isinstance(error, OutOfMemoryError)
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return any(sign in str(error) for sign in _SIGNS)


def as_error(error: BaseException) -> OutOfMemoryError:
    """The one error for what ``ran_out`` recognises."""
    if isinstance(error, OutOfMemoryError):
        return error
    return OutOfMemoryError(f"memory ran out; {_ADVICE}")


@contextmanager
def reporting_memory() -> Iterator[None]:
    """Turn what libraries raise when memory runs out into OutOfMemoryError; leave the rest alone."""
    try:
        yield
    except BaseException as error:
        # A panic in Rust arrives as a BaseException: it has no threads, for example.
        known = isinstance(error, Exception) or type(error).__name__ == "PanicException"
        if known and ran_out(error) and not isinstance(error, OutOfMemoryError):
            raise as_error(error) from error
        raise
