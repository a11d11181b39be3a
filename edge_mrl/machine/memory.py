"""Little memory: use less of it, notice when it runs out, and report that as one clear error.

Libraries answer a failed allocation in many ways. Python and numpy raise MemoryError, ONNX Runtime
raises an exception of its own, the loader an ImportError, and the tokenizer, OpenBLAS and the C library
end the process. So the memory that those last ones will need is checked, or loaded, beforehand.
"""

from __future__ import annotations

import errno
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from edge_mrl.errors import EdgeMrlError, OutOfMemoryError

__all__ = [
    "CODE_BYTES",
    "START_BYTES",
    "as_error",
    "limit_process",
    "load_unwinder",
    "one_thread_each",
    "ran_out",
    "reporting_memory",
    "require_room",
    "require_room_for_products",
    "require_room_for_runtime",
]

#: What numpy, the tokenizer and ONNX Runtime need before a bundle is opened: memory that is written to,
#: and the address space of their code. Measured with the wheels for x86-64 and a network of 40 kB, which
#: work from limits of 66 MB (RLIMIT_DATA) and 166 MB (RLIMIT_AS) on: nothing that works is refused.
START_BYTES, CODE_BYTES = 55_000_000, 85_000_000
#: What loading ONNX Runtime takes of these: memory, and address space for its code. If there is less, the
#: start of its library ends the process. Measured with its wheel for x86-64: 38 MB of address space.
RUNTIME_BYTES, RUNTIME_CODE_BYTES = 7_000_000, 33_000_000
#: What OpenBLAS maps at the first matrix product (it ends the process if it cannot), and what a search
#: needs for the codes that it scores. Measured with one thread; more threads may need more.
BLAS_BYTES, SCORE_BYTES = 34_000_000, 16_000_000
#: Keeps numpy and the tokenizer from starting one thread per core, each with a stack and an arena. Even
#: a single thread of the tokenizer fights for its arena where address space is short: it was ten times
#: slower at 256 MB.
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
#: The GNU C library's name for the library that it loads to unwind a thread's stack.
_UNWINDER = "libgcc_s.so.1"
_ADVICE = (
    "documents that were committed are safe; close other programs, raise this process's memory limit, "
    "or use --low-memory and --threads 1"
)


def one_thread_each() -> None:
    """Keep libraries that are loaded after this call from starting threads of their own.

    Variables that the user has set keep their values. On two cores this saves 40 MB of memory and 170 MB
    of address space.
    """
    for name, value in _ONE_THREAD.items():
        os.environ.setdefault(name, value)


def require_room(size_bytes: int, *, code_bytes: int = 0) -> None:
    """Check that this process can still get so much memory.

    The check sees the limits RLIMIT_AS and RLIMIT_DATA, and a kernel that does not overcommit. It does
    not see the limit of a control group, where the kernel kills a process instead.

    Args:
        size_bytes: Memory that will be written to.
        code_bytes: Address space for code and files, needed at the same time.

    Raises:
        OutOfMemoryError: There is less.
    """
    import mmap

    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
        return
    own = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        # The pages are not touched, so no memory is used, and it takes some microseconds.
        with mmap.mmap(-1, size_bytes, flags=own):
            if code_bytes:
                # Like code and files, shared memory counts as address space only.
                mmap.mmap(-1, code_bytes).close()
    except (OSError, MemoryError) as error:
        space = f" and {code_bytes / 1e6:.0f} MB more address space" if code_bytes else ""
        raise OutOfMemoryError(
            f"there is not enough memory: {size_bytes / 1e6:.0f} MB more are needed{space}; {_ADVICE}"
        ) from error


@cache
def load_unwinder() -> None:
    """Load what the C library needs to unwind a stack, while there is memory to load it.

    The GNU C library loads libgcc_s when a thread ends or is cancelled for the first time. If it
    cannot, it aborts the process with "libgcc_s.so.1 must be installed for pthread_exit to work", so
    that a shortage of memory shows as a crash. ``backtrace`` makes it load and keep the library now
    (backtrace(3), "Notes"). Other C libraries need none of this, and nothing happens there.

    Raises:
        OutOfMemoryError: There is not enough memory for it.
    """
    if sys.platform != "linux":
        return
    try:
        import ctypes

        ctypes.CDLL(_UNWINDER)
        backtrace = getattr(ctypes.CDLL(None), "backtrace", None)
        if backtrace is not None:
            backtrace((ctypes.c_void_p * 1)(), 1)
    except (ImportError, OSError, MemoryError) as error:
        if ran_out(error):
            raise as_error(error) from error


@cache
def require_room_for_runtime() -> None:
    """Check that there is memory to load ONNX Runtime's library; once it passed, never again.

    Raises:
        OutOfMemoryError: There is not enough. The next call checks again.
    """
    require_room(RUNTIME_BYTES, code_bytes=RUNTIME_CODE_BYTES)


@cache
def require_room_for_products() -> None:
    """Check that there is memory to multiply a query with codes in numpy; once it passed, never again.

    Raises:
        OutOfMemoryError: There is not enough. The next call checks again.
    """
    require_room(BLAS_BYTES + SCORE_BYTES)


def ran_out(error: BaseException) -> bool:
    """Whether an error of any library means that memory ran out."""
    if isinstance(error, EdgeMrlError):
        return isinstance(error, OutOfMemoryError)
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return any(sign in str(error) for sign in _SIGNS)


def as_error(error: BaseException) -> OutOfMemoryError:
    """The OutOfMemoryError to raise in place of an error that ``ran_out`` recognises."""
    if isinstance(error, OutOfMemoryError):
        return error
    return OutOfMemoryError(f"memory ran out; {_ADVICE}")


@contextmanager
def reporting_memory() -> Iterator[None]:
    """Raise OutOfMemoryError in place of a library's own error for it; other errors pass unchanged."""
    try:
        yield
    except BaseException as error:
        # A panic in Rust arrives as a BaseException, for example when it cannot start a thread.
        known = isinstance(error, Exception) or type(error).__name__ == "PanicException"
        if known and ran_out(error) and not isinstance(error, OutOfMemoryError):
            raise as_error(error) from error
        raise


def limit_process(*, cpu_s: float, data_bytes: int) -> None:
    """Limit what this process can take; without effect where the system has no such limits.

    Args:
        cpu_s: Seconds of the processor, over all threads.
        data_bytes: Memory that is written to. Lower limits stay.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    cores = os.cpu_count() or 1
    limits = {
        resource.RLIMIT_CPU: math.ceil(cpu_s * cores),
        resource.RLIMIT_DATA: data_bytes,
        resource.RLIMIT_CORE: 0,
    }
    for kind, limit in limits.items():
        soft, hard = resource.getrlimit(kind)
        lowest = min([limit, *(x for x in (soft, hard) if x != resource.RLIM_INFINITY)])
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (lowest, hard))
