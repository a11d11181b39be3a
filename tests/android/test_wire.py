"""The wire format in Kotlin: the same bytes as Python's, and the same refusals."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest

from edge_mrl.wire import format_stamp, next_stamp
from edge_mrl.wire.clock import latest_stamp
from tests.android.probe import Probe
from tests.golden.make_wire import WIRE, describe_frame
from tests.wire.cases import UNSTORABLE, WRONG_FRAMES, WRONG_ITEMS, frame_of, unstorable_frame

pytestmark = pytest.mark.test

#: Frames with some bytes changed: most are refused, and some differ in what they say.
DAMAGED = 1_500


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _same(value: Any) -> bytes:
    """As JSON writes it: integers are no floats, and infinite numbers have a name.

    Halves of characters are question marks: they do not come through the probe.
    """
    return json.dumps(value, sort_keys=True, ensure_ascii=False).encode("utf-8", "replace")


def _read(kotlin: Probe, frames: list[bytes]) -> list[Any]:
    return list(kotlin("wire.frames", frames=[_text(data) for data in frames]))


@pytest.fixture(scope="module")
def kept() -> Any:
    return json.loads(WIRE.read_text(encoding="utf-8"))


def test_golden_frames_are_read_and_written_with_the_same_bytes(kotlin: Probe, kept: Any) -> None:
    found = _read(kotlin, [base64.b64decode(one["data"]) for one in kept["frames"]])
    for one, said in zip(kept["frames"], found, strict=True):
        assert _same(said) == _same(one["says"]), one["name"]


def test_what_python_refuses_is_refused(kotlin: Probe) -> None:
    frames = [data for data, _ in WRONG_FRAMES]
    frames += [frame_of(row, vectors=1) for row, _ in WRONG_ITEMS]
    for data, said in zip(frames, _read(kotlin, frames), strict=True):
        assert _same(said) == _same(describe_frame(data)), data[:80]
    large = [unstorable_frame(content) for content, _ in UNSTORABLE]
    for said in _read(kotlin, large):
        items, unreadable = said["readable"]
        assert ([one["id"] for one in items], [one[0] for one in unreadable]) == (["b"], ["a"])


def test_damaged_frames_are_refused_where_python_refuses_them(kotlin: Probe, kept: Any) -> None:
    rng = random.Random(5)
    good = [base64.b64decode(one["data"]) for one in kept["frames"] if one["says"]]
    frames = []
    for _ in range(DAMAGED):
        data = bytearray(rng.choice(good))
        for _ in range(rng.choice((1, 1, 2))):
            place = rng.randrange(len(data))
            data[place] = rng.choice((rng.randrange(256), *b'0"{}[],:-.eE\\u'))
        frames.append(
            bytes(data[: rng.choice((len(data), len(data), rng.randrange(len(data)))) or 1])
        )
    found = _read(kotlin, frames)
    refused = 0
    for data, said in zip(frames, found, strict=True):
        assert _same(said) == _same(describe_frame(data)), data
        refused += said is None
    assert 0.2 * DAMAGED < refused < 0.95 * DAMAGED


def test_reader_that_accepts_more_is_noticed(kotlin: Probe, kept: Any) -> None:
    """The comparison's own twin: what one side reads of a damaged frame is not what the other says of the
    good one."""
    data = base64.b64decode(kept["frames"][0]["data"])
    (said,) = _read(kotlin, [data[:-1] + bytes([data[-1] ^ 1])])
    assert _same(said) != _same(kept["frames"][0]["says"])


def test_stamps_versions_and_digests(kotlin: Probe, kept: Any) -> None:
    found = kotlin("wire.stamps", stamps=[one["text"] for one in kept["stamps"]])
    assert found == [one["stamp"] for one in kept["stamps"]]
    top = 2**63 - 1
    for last, offset, now in [(5, 0, 9), (2**60, -4, 3), (top, 0, 1), (1, -10, 3), (0, 2**50, 0)]:
        wall = lambda now=now: now  # noqa: E731 - a clock that stands
        stamp = kotlin("wire.next", last=last, offset_ms=offset, now_ms=now)
        assert stamp == format_stamp(next_stamp(last, offset_ms=offset, wall=wall))
        latest = kotlin("wire.latest", offset_ms=offset, now_ms=now)
        assert latest == format_stamp(latest_stamp(offset_ms=offset, wall=wall))
    versions = [[2, "a"], [1, "🙂"], [1, "\uffee"], [1, "b"], [1, "bb"]]
    assert kotlin("wire.order", versions=versions) == sorted(versions)
    for one in kept["digests"]:
        assert kotlin("wire.digest", data=one["data"]) == one["digest"]
    body, good = kept["digests"][1]["data"], kept["digests"][1]["digest"]
    others = [
        None,
        "",
        "sha-256=::",
        "sha-256=:",
        "sha-256=:!:",
        "sha-512=:abc=:",
        kept["digests"][0]["digest"],
    ]
    found = kotlin("wire.matches", data=body, values=[good, f"sha-512=:abc=:, {good}", *others])
    assert found == [True, True] + [False] * len(others)


def test_seen_headers_and_sums(kotlin: Probe, kept: Any) -> None:
    for one in kept["seen"]:
        headers = {name.lower(): value for name, value in one["headers"].items()}
        assert kotlin("wire.seen", headers=headers) == one["seen"]
    sums = kept["sums"]
    versions = [[name, int(stamp, 16), device] for name, stamp, device in sums["versions"]]
    gone = [[sums["gone"][0], int(sums["gone"][1], 16), sums["gone"][2]]]
    found = kotlin("wire.sums", versions=versions, gone=gone)
    assert (found["bytes"], found["total"], found["groups"]) == (
        sums["sums"],
        sums["total"],
        sums["groups"],
    )
    left = {group for group, row in zip(sums["groups"], versions, strict=True) if row != gone[0]}
    assert found["differing"] == sorted(left)
