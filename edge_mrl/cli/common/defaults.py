"""The store and the bundle of commands that name none: from the environment, or a file of settings."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from edge_mrl.errors import NoStoreError, UsageError, reason

__all__ = ["bundle_of_new", "fill_defaults"]

#: Environment variables; the last names the file of settings.
STORE, BUNDLE, CONFIG = "EDGE_MRL_STORE", "EDGE_MRL_BUNDLE", "EDGE_MRL_CONFIG"
#: What the file may set.
KEYS = ("store", "bundle")
#: A file of settings has a few lines.
MOST_BYTES = 65_536


def fill_defaults(args: argparse.Namespace) -> None:
    """Give a command the store and the bundle that it needs and that its options do not name.

    Options come first, then the environment, then the file of settings, then, for bundles, the only one
    that is installed.

    Raises:
        UsageError: There is no store or bundle to be found, or the file of settings is wrong.
    """
    if getattr(args, "fills_store", False) and args.store is None:
        args.store = _default("store", STORE)
        if args.store is None:
            raise UsageError(
                "no store was named: name its file with --store FILE, or for all commands with "
                f'{STORE} or with a line store = "FILE" in {_config_file() or CONFIG}'
            )
    if getattr(args, "fills_bundle", False) and args.bundle is None:
        args.bundle = _default_bundle()


def bundle_of_new(args: argparse.Namespace) -> str | None:
    """The bundle to open a store with: what --bundle names, or the default one if there is no store.

    Raises:
        UsageError: There is neither a store nor a bundle to be found.
    """
    if args.bundle is not None or os.path.lexists(args.store):  # a store remembers its own
        return None if args.bundle is None else str(args.bundle)
    try:
        return _default_bundle()
    except UsageError as error:
        raise NoStoreError(
            f"no store at {args.store}, and a new one needs a bundle: {error}"
        ) from error


def _config_file() -> Path | None:
    """Where the file of settings is, if there is one; None for a user without a home."""
    if named := os.environ.get(CONFIG):
        return Path(named)
    base = os.environ.get("XDG_CONFIG_HOME") or os.environ.get("APPDATA")
    if base and Path(base).is_absolute():
        return Path(base) / "edge-mrl" / "config.toml"
    try:
        return Path.home() / ".config" / "edge-mrl" / "config.toml"
    except RuntimeError:
        return None


def _default(key: str, variable: str) -> str | None:
    return os.environ.get(variable) or _settings().get(key)


def _default_bundle() -> str:
    from edge_mrl.bundle import installed_bundle

    return _default("bundle", BUNDLE) or str(installed_bundle())


def _settings() -> dict[str, str]:
    """The file's settings; paths are seen from its folder.

    Raises:
        UsageError: It cannot be read, or sets something else.
    """
    file = _config_file()
    if file is None:
        return {}
    try:
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.environ.get(CONFIG):
            raise UsageError(f"no file {file}, which {CONFIG} names") from error
        return {}
    if len(data) > MOST_BYTES:
        raise UsageError(f"{file} has more than {MOST_BYTES:,} bytes, expected a few settings")
    import tomllib

    try:
        found = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is not valid TOML: {reason(error)}") from error
    for key, value in found.items():
        if key not in KEYS:
            raise UsageError(f"{file} sets {key!r}, expected {' or '.join(KEYS)}")
        if not isinstance(value, str) or not value or "\0" in value:
            raise UsageError(f"{file}: {key} is {value!r}, expected text")
    return {key: _seen_from(file.parent, key, value) for key, value in found.items()}


def _seen_from(folder: Path, key: str, value: str) -> str:
    from edge_mrl.bundle import is_hub_name

    if key == "bundle" and is_hub_name(Path(value)):
        return value
    path = folder / Path(value).expanduser()
    named = key == "bundle" and not path.exists() and Path(value).name == value
    return value if named else str(path)  # the name of an installed bundle is no path
