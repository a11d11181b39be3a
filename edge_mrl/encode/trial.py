"""Letting a bundle in: its hashes are compared, and an unknown bundle is tried in a process of its own.

A graph can take any time and memory, and a library can end its process. So a bundle that this machine
does not know runs first where that does no harm: in a process that reads a job, one JSON object, from
standard input. It writes the line "ready" as soon as it can work, and its answer, another JSON object,
behind it.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_mrl.bundle import Identity, Manifest, check_files, read_signed, recall, remember
from edge_mrl.errors import BundleError, EdgeMrlError, EncoderError, GraphError, brief
from edge_mrl.machine import limit_process, reporting_memory, require_room_for_runtime
from edge_mrl.native import kernel_version

__all__ = ["Admitted", "admit", "run_apart"]

#: Seconds that a trial may take: a base, and more for each million bytes of the bundle. A board of the
#: slowest kind opens 2 MB a second.
TRIAL_S, TRIAL_S_PER_MB = 120.0, 1.0
#: Bytes that it may use: a base, and so many for each byte of the bundle.
TRIAL_BYTES, TRIAL_BYTES_PER_BYTE = 1_500_000_000, 6
#: Version of the checks: a bundle that older ones let in is tried again.
CHECKS = "1"
READY = "ready"
#: The engine that runs what no kernels know.
ONNX_RUNTIME = "onnxruntime"


@dataclass(frozen=True, slots=True)
class Admitted:
    """A bundle that may be opened.

    Attributes:
        folder: Its folder.
        manifest: Its manifest.
        digest: SHA-256 of the manifest's file.
        files: Identities of its files, whose hashes were compared.
        checked: Whether tokenizer and graph have been checked part by part.
    """

    folder: Path
    manifest: Manifest
    digest: str
    files: Mapping[str, Identity]
    checked: bool

    def remember_tried(self, engine: str) -> None:
        """Remember that the bundle was tried on this machine, with the engine of a name."""
        remember(self.digest, self.folder.resolve(), self.files, _versions(engine))


def admit(
    folder: Path, *, trust: str | os.PathLike[str] | None, verify_hashes: bool, untried: bool
) -> Admitted:
    """Compare a bundle's hashes where they are not known, and try it if it is not known.

    Args:
        folder: The bundle's folder.
        trust: The file of trusted keys; None for EDGE_MRL_TRUST's.
        verify_hashes: Compare the hashes of files that are known, too.
        untried: Do not try it.

    Raises:
        BundleError: The bundle is damaged, or failed its trial.
    """
    signed = read_signed(folder, trust=trust)
    place, known = folder.resolve(), recall(signed.digest)
    again = verify_hashes or signed.signer is not None
    files = check_files(
        folder, signed.manifest, hashes=True, known=None if again else known.files(place)
    )
    tried = _was_tried(known.tried)
    versions = known.tried if tried else None
    if not tried and not untried:
        versions = _versions(_try(folder, signed.digest, signed.manifest.size_bytes))
    if not untried or known.tried is not None:
        remember(signed.digest, place, files, None if untried else versions)
    return Admitted(folder, signed.manifest, signed.digest, files, checked=tried or not untried)


def _was_tried(versions: Mapping[str, str] | None) -> bool:
    """Whether a trial with these versions holds today; loads ONNX Runtime only if that ran it."""
    if versions is None:
        return False
    return versions == _versions(ONNX_RUNTIME if ONNX_RUNTIME in versions else "")


def _versions(engine: str) -> dict[str, str]:
    """What the result of a trial depends on, by the engine that ran the graph."""
    require_room_for_runtime()
    import numpy as np
    import tokenizers

    versions = {
        "checks": CHECKS,
        "machine": platform.machine(),
        "numpy": np.__version__,
        "tokenizers": tokenizers.__version__,
    }
    if (kernels := kernel_version()) is not None:
        versions["kernels"] = kernels
    if engine == ONNX_RUNTIME:
        import onnxruntime as ort

        versions[ONNX_RUNTIME] = ort.__version__
    return versions


def _try(folder: Path, digest: str, size_bytes: int) -> str:
    """Try a bundle, in a process of its own if there can be one; returns the engine that ran it."""
    engine = run_apart(folder, digest, size_bytes=size_bytes, step="try", threads=1)
    if engine is None:
        from edge_mrl.encode.verification import try_here

        engine = _as_bundle_error(lambda: try_here(folder))
    return str(engine)


def run_apart(
    folder: Path, digest: str, *, size_bytes: int, step: str, threads: int | None
) -> Any | None:
    """Run a step of a trial in a process of its own.

    Args:
        folder: The bundle's folder.
        digest: SHA-256 of its manifest, which the process compares.
        size_bytes: Size of the bundle.
        step: "try" or "verify".
        threads: Threads to use; None for one per core.

    Returns:
        The step's answer; None if no process can be started here, as in a program that was frozen.

    Raises:
        BundleError: The bundle failed, took too long, or ended the process.
    """
    if getattr(sys, "frozen", False) or not sys.executable:
        return None
    limit_s = TRIAL_S + TRIAL_S_PER_MB * size_bytes / 1e6
    job = {
        "bundle": str(folder),
        "digest": digest,
        "step": step,
        "threads": threads,
        "seconds": limit_s,
        "bytes": TRIAL_BYTES + TRIAL_BYTES_PER_BYTE * size_bytes,
    }
    # What this process imports from, and nothing else: the working folder may be anybody's.
    paths = [path or str(Path.cwd()) for path in sys.path]
    code = f"import sys; sys.path[:] = sys.argv[1:]; from {__name__} import main; main()"
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter
            [sys.executable, "-P", "-c", code, *paths],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=limit_s,
        )
    except subprocess.TimeoutExpired as error:
        raise BundleError(
            f"the bundle {folder} took more than {limit_s:.0f} s to encode a few short texts: it is not "
            "opened; get another copy, or try again on a machine with less to do"
        ) from error
    except OSError:
        return None
    return _answer(folder, done)


def _answer(folder: Path, done: subprocess.CompletedProcess[str]) -> Any | None:
    started, _, text = done.stdout.partition("\n")
    if started != READY:
        return None  # this interpreter cannot run a program, or not this one
    try:
        answer = json.loads(text)
    except ValueError:
        raise BundleError(
            f"the bundle {folder} ended the process that tried it ({_end(done.returncode)}): it is not "
            "opened; get another copy"
        ) from None
    if "error" in answer:
        from edge_mrl import errors

        kind = getattr(errors, answer["error"]["kind"])
        raise kind(answer["error"]["message"])
    return answer["answer"]


def _end(code: int) -> str:
    import signal

    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _as_bundle_error(step: Any) -> Any:
    """Run a step; a text that cannot be encoded is a fault of the bundle here."""
    try:
        return step()
    except EncoderError as error:
        raise GraphError(str(error)) from error


def main() -> None:
    """Do the job on standard input, and answer on standard output."""
    job = json.load(sys.stdin)
    print(READY, flush=True)
    try:
        answer = {"answer": _as_bundle_error(lambda: _do(job))}
    except EdgeMrlError as error:
        answer = {"error": {"kind": type(error).__name__, "message": brief(error, 2000)}}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)  # what a library does as it ends says nothing about the bundle


def _do(job: dict[str, Any]) -> Any:
    import dataclasses

    from edge_mrl.encode.verification import try_here, verify_here

    limit_process(cpu_s=job["seconds"], data_bytes=job["bytes"])
    folder = Path(job["bundle"])
    if read_signed(folder, trust="").digest != job["digest"]:
        raise BundleError(f"the bundle {folder} was replaced while it was opened: open it again")
    with reporting_memory():
        if job["step"] == "verify":
            return dataclasses.asdict(verify_here(folder, threads=job["threads"]))
        return try_here(folder)
