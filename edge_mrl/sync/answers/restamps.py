"""What a page of changes says of stamps that were brought back."""

from __future__ import annotations

from edge_mrl.errors import NetworkError, WireError
from edge_mrl.store import replica
from edge_mrl.wire import parse_stamp

__all__ = ["read_restamp"]


def read_restamp(said: object) -> replica.Restamp | None:
    """Read the field ``restamped`` of a page; None if it is not there.

    Raises:
        NetworkError: It is not what FORMAT.md describes.
    """
    if not isinstance(said, dict):
        return None
    epochs = said.get("epochs")
    if not isinstance(epochs, list) or not all(isinstance(epoch, str) for epoch in epochs):
        raise NetworkError("restamped: expected a list of epochs")
    try:
        return replica.Restamp(
            parse_stamp(said.get("from")), parse_stamp(said.get("to")), tuple(epochs)
        )
    except WireError as error:
        raise NetworkError(f"restamped: {error}") from error
