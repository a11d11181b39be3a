"""The frames that bind every runtime say what they said when they were written."""

from __future__ import annotations

import base64
import json

from tests.golden.make_wire import WIRE, describe_frame, golden


def test_golden_frames_are_read_as_before() -> None:
    kept = json.loads(WIRE.read_text(encoding="utf-8"))
    assert kept == json.loads(json.dumps(golden()))
    refused = [one["name"] for one in kept["frames"] if one["says"] is None]
    readable = [one["name"] for one in kept["frames"] if one["says"] and one["says"]["items"]]
    assert len(refused) > 10
    assert len(readable) > 5


def test_changed_golden_frame_is_noticed() -> None:
    kept = json.loads(WIRE.read_text(encoding="utf-8"))
    for one in kept["frames"][:1]:
        data = bytearray(base64.b64decode(one["data"]))
        data[-1] ^= 1
        assert describe_frame(bytes(data)) != one["says"]
