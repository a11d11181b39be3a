"""Signed bundles in Kotlin: Ed25519 as RFC 8032 and another library have it, and Python's refusals."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge_mrl.bundle.manifest import GRAPH, MANIFEST, SIGNATURE, read_manifest
from edge_mrl.bundle.trust import TrustedKeys, make_key, sign_bundle
from edge_mrl.errors import EdgeMrlError
from tests.android.probe import KotlinError, Probe
from tests.support.bundles import copy_bundle

pytestmark = pytest.mark.test

#: The order of the base point, and the field's prime.
L = 2**252 + 27742317777372353535851937790883648493
P = 2**255 - 19
#: RFC 8032, 7.1: private key, message; public key and signature follow.
VECTORS = [  # each signature in two halves
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
            "d25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
            "387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
            "4a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]
Case = tuple[bytes, bytes, bytes]


def verdicts(kotlin: Probe, cases: list[Case]) -> list[bool]:
    sent = [[base64.b64encode(part).decode() for part in case] for case in cases]
    return list(kotlin("ed25519", cases=sent))


def by_cryptography(case: Case) -> bool:
    key, data, signature = case
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def test_vectors_of_the_rfc(kotlin: Probe) -> None:
    cases = [tuple(map(bytes.fromhex, case)) for case in VECTORS]
    assert verdicts(kotlin, cases) == [True] * len(cases)  # type: ignore[arg-type]


def test_verdicts_are_those_of_another_implementation(kotlin: Probe) -> None:
    rng = np.random.default_rng(11)
    cases: list[Case] = []
    for size in (0, 1, 31, 32, 33, 127, 128, 1_000):
        private = Ed25519PrivateKey.from_private_bytes(rng.bytes(32))
        key, data = private.public_key().public_bytes_raw(), rng.bytes(size)
        good = private.sign(data)
        cases += [(key, data, good), (key, data + b"\0", good), (rng.bytes(32), data, good)]
        for place in rng.integers(0, 512, 6).tolist():
            flipped = bytearray(good)
            flipped[place // 8] ^= 1 << place % 8
            cases.append((key, data, bytes(flipped)))
        s = int.from_bytes(good[32:], "little")
        for other in (s + L, 0, L, 2**256 - 1, L - s):
            if other < 2**256:
                cases.append((key, data, good[:32] + other.to_bytes(32, "little")))
        cases.append((key, data, bytes(64)))
        # R as the neutral point, and in a form with another y of the same point.
        cases.append((key, data, (1).to_bytes(32, "little") + good[32:]))
        cases.append((key, data, (P + 1).to_bytes(32, "little") + good[32:]))
    found = verdicts(kotlin, cases)
    assert found == [by_cryptography(case) for case in cases]
    assert found.count(True) == 8


def test_what_is_no_key_or_no_signature_verifies_nothing(kotlin: Probe) -> None:
    key, data, good = (bytes.fromhex(part) for part in VECTORS[2])
    wrong: list[Case] = [
        *((key, data, part) for part in (b"", good[:63], good + b"\0")),
        *((part, data, good) for part in (b"", key[:31], key + b"\0", b"\xff" * 32)),
        (P.to_bytes(32, "little"), data, good),  # y is not below the prime
        ((2).to_bytes(32, "little"), data, good),  # on no point
        ((1 | 1 << 255).to_bytes(32, "little"), data, good),  # minus zero
    ]
    assert verdicts(kotlin, wrong) == [False] * len(wrong)


def open_there(kotlin: Probe, bundle: Path, trust: Path, *, hashes: bool = False) -> str:
    """The signer, or the refusal."""
    try:
        found = kotlin("bundle.open", path=str(bundle), hashes=hashes, trust=str(trust))
    except KotlinError as error:
        return f"{error.kind}: {error}"
    return str(found["signer"])


def open_here(bundle: Path, trust: Path) -> str:
    from edge_mrl.bundle.manifest import read_signed

    try:
        return str(read_signed(bundle, trust=trust).signer)
    except EdgeMrlError as error:
        return str(error)


def test_bundles_are_opened_and_refused_as_in_python(kotlin: Probe, tmp_path: Path) -> None:
    bundle = copy_bundle(tmp_path / "bundle")
    own, keys = make_key(tmp_path / "fleet.key")
    other, others = make_key(tmp_path / "other.key")
    signature, manifest = bundle / SIGNATURE, bundle / MANIFEST

    def refused(words: str, trust: Path = keys) -> None:
        for said in (open_there(kotlin, bundle, trust), open_here(bundle, trust)):
            assert words in said, said

    refused("is not signed")
    sign_bundle(bundle, tmp_path / "fleet.key")
    assert open_there(kotlin, bundle, keys) == open_here(bundle, keys) == own
    assert kotlin("bundle.open", path=str(bundle), hashes=True)["signer"] is None
    refused(f"its key {own} is not one of", others)
    sign_bundle(bundle, tmp_path / "other.key")  # keys take turns
    assert [open_there(kotlin, bundle, one) for one in (keys, others)] == [own, other]
    both = tmp_path / "both.pem"
    both.write_text(f"# two keys\n{others.read_text()}\n{keys.read_text()}")
    assert kotlin("bundle.keys", path=str(both)) == sorted(TrustedKeys.read(both).keys)
    revoked = tmp_path / "revoked.pem"
    digest = kotlin("bundle.open", path=str(bundle), hashes=True)["digest"]
    revoked.write_text(f"{keys.read_text()}revoke {digest}\n")
    refused("is revoked in", revoked)
    data = manifest.read_bytes()
    for changed in (data + b" ", data[:-1], b"", b"not even JSON"):  # unparsed
        manifest.write_bytes(changed)
        refused("was changed after it was signed")
    manifest.write_bytes(data)
    lines = signature.read_bytes()
    head = b"edge-mrl-signature 1\n"
    for damaged in (
        b"",
        head,
        lines[:-1],
        lines + b"\n",
        lines.replace(b" 1\n", b" 2\n"),
        head + lines[len(head) :] * 5,
    ):
        signature.write_bytes(damaged)
        refused("is not a signature of edge-mrl")
    signature.write_bytes(lines)
    # Every file counts, though hashes were not asked for.
    for name in (GRAPH, next(iter(read_manifest(bundle).files))):
        whole = (bundle / name).read_bytes()
        (bundle / name).write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        assert "HashException" in open_there(kotlin, bundle, keys)
        (bundle / name).write_bytes(whole)
    assert open_there(kotlin, bundle, keys) == own


def test_files_of_keys_are_read_as_in_python(kotlin: Probe, tmp_path: Path) -> None:
    _, keys = make_key(tmp_path / "fleet.key")
    good = keys.read_text()
    block = good.splitlines()[1]
    path = tmp_path / "keys.pem"
    for text in (
        "", "# nothing\n", good + "and a word\n", good + "revoke 12\n", good.replace(block, "AAAA"),
        good.replace(block, block[:-4] + "!!!="), good.replace("MCowBQYDK2Vw", "MCowBQYDK2Vu"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(KotlinError, match="UsageException"):
            kotlin("bundle.keys", path=str(path))
        with pytest.raises(EdgeMrlError):
            TrustedKeys.read(path)
    with pytest.raises(KotlinError, match="UsageException"):
        kotlin("bundle.keys", path=str(tmp_path))
    path.write_bytes(good.replace("\n", "\r\n").encode() + b"  # comment\r\n")
    assert kotlin("bundle.keys", path=str(path)) == sorted(TrustedKeys.read(path).keys)
