"""Calls of huggingface_hub, with its errors as ours: one line each, and no token in any of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from edge_mrl._version import __version__
from edge_mrl.bundle.hub.names import HubName
from edge_mrl.errors import (
    EdgeMrlError,
    MissingDependencyError,
    NetworkError,
    ServerError,
    reason,
)

__all__ = ["ENTRY", "asking", "client", "is_of_network", "library"]

#: What the library says of us to the hub.
ENTRY = {"library_name": "edge-mrl", "library_version": __version__}
#: Packages whose errors mean that the hub was not reached.
_OF_NETWORK = {"requests", "urllib3", "httpx", "httpx2", "httpcore", "httpcore2"}
_SECRET = re.compile(r"hf_\w{8,}|(?<=//)[^/@\s]+@", re.ASCII)
_SAID_BY_STATUS = {
    403: "{host} does not let you {act} {what} (403): ask its owner, or use a token that may",
    404: "{host} has no {what} (404): check name and revision",
    409: "{host} says that {what} is being changed by somebody else (409): try again",
    410: "{what} is gone from {host} (410): name another one",
    412: "somebody else has pushed to {what} meanwhile (412): nothing was changed; push again",
    413: "{host} takes no file as large as one of {what} (413)",
}


def library() -> ModuleType:
    """The package huggingface_hub.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            'bundles on a hub need huggingface_hub: pip install "edge-mrl[hub]"'
        ) from error
    found: ModuleType = huggingface_hub
    return found


def client(token: str | None = None) -> Any:
    """A client of the hub of HF_ENDPOINT, with this token, or that of HF_TOKEN or `hf auth login`."""
    return library().HfApi(token=token, **ENTRY)


def host() -> str:
    """The hub's address, without names and passwords."""
    return _SECRET.sub("", str(library().constants.ENDPOINT))


@contextmanager
def asking(name: HubName, *, act: str = "read") -> Iterator[None]:
    """Turn what goes wrong between this machine and a hub into errors of ours.

    Args:
        name: What is asked for.
        act: "read" or "change".

    Raises:
        ServerError: The hub has refused.
        NetworkError: It was not reached, or has answered what no hub answers.
    """
    try:
        yield
    except EdgeMrlError:
        raise
    except Exception as error:
        found = _as_ours(error, name, act)
        if found is None:
            raise
        raise found from error


def _as_ours(error: BaseException, name: HubName, act: str) -> EdgeMrlError | None:
    kinds = library().errors
    chain = _causes(error)
    for one in chain:
        if isinstance(one, kinds.OfflineModeIsEnabled):
            return NetworkError(
                f"{name} must be fetched, and HF_HUB_OFFLINE forbids it: pull it where there is a network"
            )
        if (status := getattr(getattr(one, "response", None), "status_code", None)) is not None:
            return _refusal(chain, one, int(status), name, act)
        if is_of_network(one):
            return NetworkError(
                f"{host()} cannot be reached for {name}: {_said(one)}: try again where there is a network"
            )
    if isinstance(error, OSError) and error.errno is not None:
        return None  # a full disk, say
    if isinstance(error, OSError | ValueError | LookupError | TypeError | AttributeError):
        return NetworkError(
            f"{host()} gave an answer for {name} that is no hub's: {_said(error)}: try again; a proxy or "
            "a login page may have answered"
        )
    return None


def is_of_network(error: BaseException) -> bool:
    """Whether it says that a hub was not reached, whatever HTTP client the hub's library is built on."""
    if isinstance(error, ValueError):  # of an answer that is no JSON
        return False
    known = type(error).__module__.partition(".")[0] in _OF_NETWORK
    return known or isinstance(error, ConnectionError | TimeoutError)


def _causes(error: BaseException) -> list[BaseException]:
    """The innermost first: what the library makes of a failure hides it."""
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return chain[::-1]


def _refusal(
    chain: list[BaseException], refused: BaseException, status: int, name: HubName, act: str
) -> ServerError:
    kinds = library().errors
    headers = getattr(getattr(refused, "response", None), "headers", {})
    wait = _seconds(headers.get("Retry-After"))
    what = f"{name.repository} at {name.revision}"
    if any(isinstance(one, kinds.GatedRepoError) for one in chain):
        said = (
            f"{name.repository} asks for its conditions to be accepted ({status}): do so at "
            f"{host()}/{name.repository}, and set HF_TOKEN"
        )
    elif any(isinstance(one, kinds.RevisionNotFoundError) for one in chain):
        said = f"{name.repository} has no revision {name.revision} ({status}): check its name"
    elif status == 401 or any(isinstance(one, kinds.RepositoryNotFoundError) for one in chain):
        said = (
            f"{host()} has no repository {name.repository}, or does not let you {act} it ({status}): "
            "check its name; if it is private, set HF_TOKEN or run `hf auth login`"
        )
    elif status == 429:
        later = "later" if wait is None else f"in {wait:.0f} s"
        said = f"{host()} has had too many requests (429): try again {later}"
    elif status in _SAID_BY_STATUS:
        said = _SAID_BY_STATUS[status].format(host=host(), what=what, act=act)
    elif status >= 500:
        said = f"{host()} failed ({status}): try again later"
    else:
        said = f"{host()} refuses {what} ({status}): {_said(refused)}"
    return ServerError(said, status=status, retry_after_s=wait)


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and re.fullmatch(r"\d{1,6}", header) else None


def _said(error: BaseException) -> str:
    return _SECRET.sub("", reason(error))
