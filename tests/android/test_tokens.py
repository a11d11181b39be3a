"""The tokenizer of the core in Kotlin gives the ids and places of the library `tokenizers`."""

from __future__ import annotations

import base64
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from android_demo.tools.unicode_tables import TABLES, make
from tests.android.probe import KotlinError, Probe
from tests.support.bundles import ROOT, TINY, TINY_STATIC

pytestmark = pytest.mark.test

#: More tokens than any text here has, so that nothing is cut off.
MOST = 1_000_000
#: Each code point alone, and within letters.
FORM = "* a*b "
#: Code points in one text, and texts of which one sum is made.
TOGETHER, BLOCK = 64, 16
SCRIPTS = (
    *((0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE00)),
    *((0xE00, 0x1200), (0x1100, 0x1200), (0x1E00, 0x2000), (0x2000, 0x2100), (0x2100, 0x2C00)),
    *((0x3000, 0x3200), (0x4E00, 0x4F00), (0xAC00, 0xAD00), (0xF900, 0xFB50), (0xFE00, 0xFFFF)),
    *((0x1D400, 0x1D500), (0x1F300, 0x1F700), (0x10000, 0x10FFFF)),
)


def in_python(path: Path) -> Any:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def checksum(rows: Sequence[Sequence[int]]) -> int:
    found = 0
    for row in rows:
        found = zlib.crc32(struct.pack(f"<{len(row) + 1}i", *row, -1), found)
    return found


def all_points() -> Iterator[list[str]]:
    """Texts with every code point, in blocks."""
    points = [*range(0xD800), *range(0xE000, 0x110000)]
    texts = [
        "".join(FORM.replace("*", chr(point)) for point in points[at : at + TOGETHER])
        for at in range(0, len(points), TOGETHER)
    ]
    for at in range(0, len(texts), BLOCK):
        yield texts[at : at + BLOCK]


def compare_all_points(kotlin: Probe, path: Path) -> None:
    tokenizer = in_python(path)
    got = kotlin("tokens.sums", path=str(path), max_tokens=MOST, form=FORM, sizes=[TOGETHER, BLOCK])
    wrong, blocks = [], 0
    for sum_, texts in zip(got, all_points(), strict=True):
        blocks += 1
        rows = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
        if checksum(rows) != sum_:
            ids = kotlin("tokens.ids", path=str(path), max_tokens=MOST, texts=texts)
            wrong += [t for t, a, b in zip(texts, ids, rows, strict=True) if a != b]
    assert blocks > 1000
    assert not wrong, [hex(ord(text[0])) for text in wrong]


def mixed(rng: random.Random, *, special: Sequence[str] = ()) -> str:
    """A text of random characters of a few scripts."""
    picked = rng.sample(SCRIPTS, 3)
    parts = []
    for _ in range(rng.choice((0, 3, 10, 40))):
        kind = rng.random()
        if kind < 0.2:
            parts.append(
                rng.choice((" ", "  ", "\n", "\t", "\u00a0", "\u3000", " \u0301", *special))
            )
        elif kind < 0.6:
            parts.append(
                rng.choice(("the", "Über", "don't", "x86-64", "naïve", "ΣΑΣ", "İ", "1,000"))
            )
        else:
            start, end = rng.choice(picked)
            word = (chr(rng.randrange(start, end)) for _ in range(rng.randrange(1, 8)))
            parts.append("".join(c for c in word if not 0xD800 <= ord(c) < 0xE000))
    return "".join(parts)


def real_texts() -> list[str]:
    lines = (ROOT / "demo" / "corpus.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def compare_texts(kotlin: Probe, path: Path, texts: Sequence[str]) -> None:
    tokenizer = in_python(path)
    for at in range(0, len(texts), 500):
        some = texts[at : at + 500]
        ids = kotlin("tokens.ids", path=str(path), max_tokens=MOST, texts=some)
        expected = [encoding.ids for encoding in tokenizer.encode_batch_fast(some)]
        assert [t for t, a, b in zip(some, ids, expected, strict=True) if a != b] == []


def compare_places(kotlin: Probe, path: Path, texts: Sequence[str]) -> None:
    tokenizer = in_python(path)
    for text in texts:
        ids, starts, words = kotlin("tokens.places", path=str(path), max_tokens=MOST, text=text)
        encoding = tokenizer.encode(text, add_special_tokens=False)
        assert ids == encoding.ids, text
        assert starts == [start for start, _ in encoding.offsets], text
        assert same_word(words) == same_word(encoding.word_ids), text


def same_word(words: Sequence[int]) -> list[bool]:
    return [words[i] == words[i - 1] for i in range(1, len(words))]


def compare(kotlin: Probe, path: Path, count: int) -> None:
    """Ids of many texts, and the places of some."""
    rng = random.Random(2026)
    special = [token.content for token in in_python(path).get_added_tokens_decoder().values()]
    texts = [mixed(rng, special=special[:8]) for _ in range(count)]
    compare_texts(kotlin, path, texts)
    compare_places(kotlin, path, texts[:300])


@pytest.mark.nightly
def test_tables_are_what_the_installed_library_knows() -> None:
    assert make() == TABLES.read_bytes(), "run python -m android_demo.tools.unicode_tables"


@pytest.mark.parametrize("folder", [TINY, TINY_STATIC], ids=lambda path: path.name)
def test_committed_bundles(kotlin: Probe, folder: Path) -> None:
    compare(kotlin, folder / "tokenizer.json", 1000)


def test_minilm_over_all_code_points(kotlin: Probe, minilm_bundle: Path) -> None:
    compare_all_points(kotlin, minilm_bundle / "tokenizer.json")


def test_minilm_over_ten_thousand_texts(kotlin: Probe, minilm_bundle: Path) -> None:
    path = minilm_bundle / "tokenizer.json"
    real = real_texts()
    joined = [" ".join(real[i : i + 40]) for i in range(0, 400, 40)]
    compare_texts(kotlin, path, [*real, *joined])
    compare(kotlin, path, 10_000 - len(real))


def changed(tmp_path: Path, change: dict[str, Any]) -> Path:
    data = json.loads((TINY / "tokenizer.json").read_bytes()) | change
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    "options",
    [
        {
            "clean_text": False,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": False,
        },
        {
            "clean_text": True,
            "handle_chinese_chars": False,
            "strip_accents": True,
            "lowercase": False,
        },
        {
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": False,
            "lowercase": True,
        },
    ],
)
def test_words_of_any_character(kotlin: Probe, tmp_path: Path, options: dict[str, Any]) -> None:
    """A vocabulary of thousands of single characters shows what normalisation makes of a text."""
    points = [*range(0x21, 0x3100), *range(0xAC00, 0xAD00), *range(0xF900, 0xFB00)]
    tokens = ["<unk>", *(f"{mark}{chr(point)}" for mark in ("", "##") for point in points)]
    model = {"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##"}
    model |= {"max_input_chars_per_word": 100, "vocab": {t: i for i, t in enumerate(tokens)}}
    special = {"special": True, "single_word": False, "normalized": False}
    added = [{"id": 9, "content": "<m>", "lstrip": True, "rstrip": True, **special}]
    added += [{"id": 8, "content": "<m>x", "lstrip": False, "rstrip": False, **special}]
    added += [{"id": 7, "content": "Éa", "lstrip": False, "rstrip": False, **special}]
    added[-1] |= {"normalized": True, "special": False}
    normalizer = {"type": "BertNormalizer", **options}
    path = changed(tmp_path, {"model": model, "added_tokens": added, "normalizer": normalizer})
    compare(kotlin, path, 1500)
    compare_places(kotlin, path, ["a <m> b", "<m><m>x <m>", "éA ÉA", " <m>", "x<m>xy Éa éa"])


def test_texts_are_truncated_as_in_python(kotlin: Probe) -> None:
    path = TINY / "tokenizer.json"
    tokenizer = in_python(path)
    tokenizer.enable_truncation(12)
    texts = ["the training of a model " * n for n in range(8)] + ["x" * 40, "", "word " * 5000]
    expected = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
    assert kotlin("tokens.ids", path=str(path), max_tokens=12, texts=texts) == expected
    assert max(map(len, expected)) == 12


GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(**options: Any) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(**options)
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=["<s>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(real_texts()[:400], trainer)
    return made


def roberta() -> Tokenizer:
    made = byte_level(add_prefix_space=False)
    made.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    made.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    return made


def modern() -> Tokenizer:
    made = byte_level(add_prefix_space=True)
    made.normalizer = normalizers.NFC()
    made.post_processor = processors.ByteLevel(trim_offsets=True)
    return made


def qwen() -> Tokenizer:
    made = byte_level(add_prefix_space=False)
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(GPT4), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return made


def gemma() -> Tokenizer:
    """Characters and bytes, without words: the whole text is one."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<unk>", "<bos>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    made.train_from_iterator(real_texts()[:60], trainer)
    return made


def sentencepiece(scheme: str = "always", *, fallback: bool = False) -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    trainer = trainers.UnigramTrainer(
        vocab_size=1200,
        special_tokens=["<s>", "</s>", "<unk>", *(f"<0x{b:02X}>" for b in range(256 * fallback))],
        unk_token="<unk>",
        show_progress=False,
    )
    made.train_from_iterator(real_texts()[:300], trainer)
    data = json.loads(made.to_str())
    data["model"]["byte_fallback"] = fallback
    return Tokenizer.from_str(json.dumps(data))


def multilingual() -> Tokenizer:
    """A map of characters as XLM-R's tokenizer has it; this one has a few entries."""
    data = json.loads(sentencepiece("first").to_str())
    entries = {"ﬁ": "fi", "é": "e", "e\u0301": "E", "\u200b": "", "ａ": "a", "Ω": "ohm"}
    entries["\t"] = " "
    precompiled = {"type": "Precompiled", "precompiled_charsmap": charsmap(entries)}
    more = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    data["normalizer"] = {"type": "Sequence", "normalizers": [precompiled, more]}
    return Tokenizer.from_str(json.dumps(data))


def charsmap(entries: dict[str, str]) -> str:
    """A double array (Darts): units with a label and the offset of their children."""
    texts, tree = b"", {}
    for key, text in entries.items():
        node: Any = tree
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[-1] = len(texts)
        texts += text.encode() + b"\0"
    units, used = [0] * (1 << 16), {0}

    def place(node: Any, at: int) -> None:
        labels = [max(label, 0) for label in node]
        base = next(
            base
            for base in range(256, 1 << 16, 256)
            if not any((at ^ base ^ label) in used for label in labels)
        )
        used.update(at ^ base ^ label for label in labels)
        units[at] |= base << 10 | (256 if -1 in node else 0)
        for label, child in node.items():
            if label < 0:
                units[at ^ base] = child
            else:
                units[at ^ base ^ label] |= label
                place(child, at ^ base ^ label)

    place(tree, 0)
    size = (max(used) | 255) + 1
    packed = struct.pack(f"<I{size}I", 4 * size, *units[:size])
    return base64.b64encode(packed + texts).decode()


@pytest.mark.parametrize(
    "make_one",
    [
        *(roberta, modern, qwen, gemma, sentencepiece, multilingual),
        lambda: sentencepiece("never", fallback=True),
    ],
    ids=["roberta", "modern", "qwen", "gemma", "sentencepiece", "multilingual", "fallback"],
)
def test_tokenizers_of_other_kinds(
    kotlin: Probe, tmp_path: Path, make_one: Callable[[], Tokenizer]
) -> None:
    path = tmp_path / "tokenizer.json"
    make_one().save(str(path))
    rng = random.Random(7)
    special = [token.content for token in in_python(path).get_added_tokens_decoder().values()]
    real = real_texts()[:500]
    compare_texts(kotlin, path, [*real, *(mixed(rng, special=special[:8]) for _ in range(1500))])
    compare_texts(
        kotlin,
        path,
        ["e\u0301\u0302 ﬁ\u0301 é\u0301 \u200b\u0301 \t\u0301", "\u200bx\u200b", " a  b"],
    )
    compare_texts(
        kotlin, path, ["\n", "don'ſ", "  ", "x<mask> <mask>y", "가\u11a8\u0301 ᄀ\u1161\u0301"]
    )
    compare_places(kotlin, path, real[:150])


@pytest.mark.parametrize(
    ("key", "part", "named"),
    [
        ("normalizer", {"type": "Nmt"}, "Nmt"),
        ("pre_tokenizer", {"type": "UnicodeScripts"}, "UnicodeScripts"),
        ("model", {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}, "WordLevel"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    kotlin: Probe, tmp_path: Path, key: str, part: dict[str, Any], named: str
) -> None:
    path = changed(tmp_path, {key: part})
    with pytest.raises(KotlinError, match=f"TokenizerException.*{named}.*does not support"):
        kotlin("tokens.ids", path=str(path), max_tokens=48, texts=["a"])


def test_other_ids_are_found(kotlin: Probe, tmp_path: Path) -> None:
    """The twin of the comparisons: a tokenizer that keeps case differs somewhere."""
    keeps = {"type": "BertNormalizer", "lowercase": False, "strip_accents": None}
    path = changed(
        tmp_path, {"normalizer": keeps | {"clean_text": True, "handle_chinese_chars": True}}
    )
    ids = kotlin("tokens.ids", path=str(path), max_tokens=MOST, texts=["The"])
    assert ids != [in_python(TINY / "tokenizer.json").encode("The").ids]
