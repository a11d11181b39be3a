"""Debian packages for tests, unpacked into a folder: no root, nothing is installed.

apt fetches and checks them with the machine's own sources and keys, but keeps its lists apart.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

__all__ = [
    "DOWNLOAD_TIMEOUT_S",
    "UnavailableError",
    "call",
    "complaint",
    "fetch",
    "fetch_missing",
    "need",
    "unpack",
]

DOWNLOAD_TIMEOUT_S = 420


class UnavailableError(Exception):
    """This machine cannot have what a test needs: a program is missing, or the network."""


def fetch_missing(scratch: Path, package: str) -> list[Path]:
    """Download a package and those of its dependencies that are not installed on this machine."""
    status = Path("/var/lib/dpkg/status")
    if not status.exists():
        raise UnavailableError(f"no dpkg here to get {package} with: install it")
    return fetch(scratch, [package], [f"Dir::State::status={status}"])


def fetch(scratch: Path, packages: Sequence[str], options: Sequence[str]) -> list[Path]:
    """Download packages and what they depend on, checked by apt against the distribution's keys."""
    apt = need("apt-get")
    for name in ("state/lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    own = [
        f"Dir::State={scratch / 'state'}",
        f"Dir::Cache={scratch / 'cache'}",
        "APT::Sandbox::User=root",  # apt's own user cannot write here
        "APT::Install-Recommends=false",
        "Debug::NoLocking=true",
        "Acquire::Retries=1",
        "Acquire::http::Timeout=20",
        "Acquire::https::Timeout=20",
        "Acquire::Languages=none",
    ]
    command = [apt, "-q", "-y", *(part for option in (*own, *options) for part in ("-o", option))]
    # A foreign source that fails is no reason to stop: what is needed is asked for next.
    updated = call([*command, "update"], DOWNLOAD_TIMEOUT_S, check=False)
    done = call(
        [*command, "install", "--download-only", *packages], DOWNLOAD_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise UnavailableError(f"apt-get cannot fetch {packages[0]}: {complaint(updated, done)}")
    return sorted((scratch / "cache" / "archives").glob("*.deb"))


def unpack(deb: Path, target: Path, options: Sequence[str] = ()) -> None:
    target.mkdir(exist_ok=True)
    tar = target.parent / "data.tar"
    with tar.open("wb") as file:
        subprocess.run([need("dpkg-deb"), "--fsys-tarfile", deb], check=True, stdout=file)
    # dpkg-deb's own unpacking would put folders where the links of the merged /usr are. Patterns that
    # match nothing in this package are an error to tar.
    command = [
        need("tar"),
        "-x",
        "--keep-directory-symlink",
        "--no-same-owner",
        "-f",
        tar,
        "-C",
        target,
    ]
    call([*command, *options], 120, check=not options)
    tar.unlink()


@functools.cache
def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise UnavailableError(f"{program} is not installed")
    return found


def call(
    command: Sequence[object],
    timeout_s: float,
    environment: dict[str, str] | None = None,
    *,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    line = [str(part) for part in command]
    try:
        done = subprocess.run(
            line, capture_output=True, text=True, check=False, timeout=timeout_s, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{line[0]} took more than {timeout_s:.0f} s") from error
    if check and done.returncode != 0:
        raise UnavailableError(
            f"{Path(line[0]).name} ended with {done.returncode}: {complaint(done)}"
        )
    return done


def complaint(*runs: subprocess.CompletedProcess[str]) -> str:
    """The last line of what each said that says most."""
    lines = [line for done in runs for line in done.stderr.splitlines() if line.strip()]
    marked = [line for line in lines if re.match(r"(E|ERROR|W|error):", line)]
    return " ".join((marked or lines or ["no word"])[-2:])
