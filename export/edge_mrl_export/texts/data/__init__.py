"""Texts that come with the exporter, in UTF-8, one per line, written for it.

``calibration.txt`` holds short queries, sentences and code in many languages and scripts: the scales
of activations are measured on it. ``passages.txt`` holds some seven hundred English passages, three
quarters of them paragraphs on as many subjects and the rest notes, claims, commands, letters and the
like: a Matryoshka head is fitted on it when an export is given no corpus.
"""

from __future__ import annotations

__all__: list[str] = []
