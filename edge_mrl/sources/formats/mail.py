"""Mail: each message of an mbox, or an .eml, is a document."""

from __future__ import annotations

import email
import email.policy
import hashlib
import mailbox
from collections.abc import Iterable
from datetime import UTC
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from edge_mrl.sources.formats.registry import Part, Unreadable, reader_of

__all__ = ["read_mail"]

KEY_DIGITS = 32


def read_mail(path: str, encoding: str | None) -> Iterable[Part]:
    """Each message with its subject before its text; who wrote it to whom and when is metadata.

    Raises:
        Unreadable: There is no message.
    """
    del encoding
    if path.lower().endswith(".eml"):
        part = _part(Path(path).read_bytes(), alone=True)
        if part is None:
            raise Unreadable("holds no text")
        yield part
        return
    box = mailbox.mbox(path, create=False)
    try:
        found = 0
        for name in box.keys():  # noqa: SIM118 - iterating a mailbox gives messages
            part = _part(box.get_bytes(name), alone=False)
            if part is not None:
                found += 1
                yield part
    finally:
        box.close()
    if not found:
        raise Unreadable("holds no message with text")


def _part(data: bytes, *, alone: bool) -> Part | None:
    message = email.message_from_bytes(data, policy=email.policy.default)
    subject, body = _header(message, "subject"), _body(message)
    text = f"{subject}\n{body}".strip().replace("\x00", "")
    if not text:
        return None
    named = _header(message, "message-id")
    key = hashlib.sha256(named.encode("utf-8", "replace") or data).hexdigest()[:KEY_DIGITS]
    facts: dict[str, Any] = {
        "title": subject,
        "from": _header(message, "from"),
        "to": _header(message, "to"),
        "date": _date(message),
    }
    return Part(text, "" if alone else key, {name: value for name, value in facts.items() if value})


def _header(message: EmailMessage, name: str) -> str:
    try:
        return " ".join(str(message.get(name) or "").replace("\x00", "").split())
    except (ValueError, IndexError, AttributeError):  # headers that the parser chokes on
        return ""


def _date(message: EmailMessage) -> str:
    try:
        found = parsedate_to_datetime(_header(message, "date"))
        return found.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, TypeError, OverflowError):
        return ""


def _body(message: EmailMessage) -> str:
    found = message.get_body(preferencelist=("plain", "html"))
    if found is None:
        return ""
    try:
        text = str(found.get_content())
    except (LookupError, ValueError, KeyError):
        return ""
    if found.get_content_type() != "text/html":
        return text
    if reader_of(".html") is None:
        return ""
    from edge_mrl.sources.formats.html import html_text

    try:
        return html_text(text)[0]
    except Unreadable:
        return ""
