"""Golden vectors: results of the exporting machine, which every other machine must reproduce."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_mrl.encode import GOLDEN_FORMAT, Encoder, encode_vector
from edge_mrl_export.source import Source

__all__ = ["GOLDEN_TEXTS", "golden_vectors"]

_LONG = (
    "The lighthouse keeper wrote down the weather four times a day: wind, cloud, swell, and whether "
    "the mainland could be seen. In forty years he missed nine entries, and could say why for each. "
    "After the lamp was automated the books went to a museum, where a student noticed that the fog "
    "came earlier every decade. "
)
#: Kind and text: ordinary ones, and those on which runtimes are likely to differ (emoji, accents,
#: scripts, control characters, no text, text that is too long).
GOLDEN_TEXTS: tuple[tuple[str, str], ...] = (
    ("query", "how do I back up my photos"),
    ("query", "symptoms of iron deficiency"),
    ("query", ""),
    (
        "document",
        "Water boils at a lower temperature on a mountain, because the air presses less on it.",
    ),
    ("document", "for i in range(10):\n\tprint(i ** 2)  # squares"),
    ("document", "Größe und Maß: naïve café, łódź, İstanbul, Ærø — 50 % für 3,99 €"),
    ("document", "猫は暖かい場所で眠るのが好きです。 今天天气很好。 Привет, мир! مرحبا بالعالم"),
    ("document", "🚀 launch 👩‍🚀 at 09:30 UTC, see https://example.org/a?b=c&d=1#e"),
    ("document", "tab\tand\u00a0no-break\u200bzero-width\x00nul"),
    ("document", _LONG),
    ("document", _LONG * 12),
)


def golden_vectors(
    encoder: Encoder, source: Source, texts: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
    """The contents of golden.json (FORMAT.md, "Golden vectors")."""
    entries = []
    for kind, text in texts:
        encoding = encoder.encode([text], kind=kind)
        exact = source.encode([text], kind=kind, max_tokens=encoder.manifest.max_tokens)[0]
        full = None if encoding.full is None else encode_vector(encoding.full[0], "<f4")
        entries.append(
            {
                "kind": kind,
                "text": text,
                "ids": encoder.tokenize([text], kind=kind)[0],
                "coarse": encode_vector(encoding.coarse[0], "i1"),
                "full": full,
                "source": encode_vector(np.asarray(exact), "<f2"),
            }
        )
    return {"format": GOLDEN_FORMAT, "version": 1, "texts": entries}
