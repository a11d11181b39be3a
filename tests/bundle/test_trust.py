"""Signatures: a bundle that no trusted key vouches for is refused before anything of it is parsed."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl.bundle import trust as trusting
from edge_mrl.bundle.known import recall
from edge_mrl.bundle.manifest import GRAPH, MANIFEST, SIGNATURE, WEIGHTS, read_manifest, read_signed
from edge_mrl.bundle.trust import TrustedKeys, make_key, sign_bundle, signers
from edge_mrl.cli import main
from edge_mrl.codes.packing import INT8
from edge_mrl.documents import Document
from edge_mrl.encode.encoder import Encoder
from edge_mrl.encode.verification import verify
from edge_mrl.errors import HashError, MissingDependencyError, SignatureError, UsageError
from edge_mrl.heads.adaptation import adapt
from edge_mrl.heads.bundle import NewHead, with_head
from edge_mrl.index import Index
from tests.support.bundles import ROOT, TINY, copy_bundle, refresh_file

FORMAT = (ROOT / "FORMAT.md").read_text("utf-8")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_key(tmp_path / "fleet.key")
    return tmp_path / "fleet.key"


@pytest.fixture
def keys(key: Path) -> Path:
    return key.with_suffix(".key.pub")


@pytest.fixture
def bundle(tmp_path: Path, key: Path) -> Path:
    folder = copy_bundle(tmp_path / "bundle")
    sign_bundle(folder, key)
    return folder


@pytest.mark.test
def test_signed_bundle_opens(bundle: Path, keys: Path) -> None:
    signer = next(iter(TrustedKeys.read(keys).keys))
    assert read_signed(bundle, trust=keys).signer == signer
    assert signers(bundle) == [signer]
    with Encoder.open(bundle, trust=keys) as encoder:
        assert len(encoder.encode(["a"])) == 1
    assert verify(bundle, trust=keys).passed
    assert Encoder.open(bundle).manifest == read_manifest(TINY)  # and without any keys


def test_bundle_without_signature_is_refused_unparsed(bundle: Path, keys: Path) -> None:
    (bundle / SIGNATURE).unlink()
    (bundle / MANIFEST).write_bytes(b"not even JSON")
    with pytest.raises(SignatureError, match="is not signed"):
        Encoder.open(bundle, trust=keys)


def test_changed_manifest_is_refused_unparsed(bundle: Path, keys: Path) -> None:
    data = (bundle / MANIFEST).read_bytes()
    for changed in (data + b" ", data[:-1], data.replace(b"48", b"47"), b"", b"not even JSON"):
        (bundle / MANIFEST).write_bytes(changed)
        with pytest.raises(SignatureError, match="was changed after it was signed"):
            Encoder.open(bundle, trust=keys)


def test_every_byte_of_every_file_counts(bundle: Path, keys: Path) -> None:
    Encoder.open(bundle, trust=keys).close()
    for name, entry in read_manifest(bundle).files.items():
        data = (bundle / name).read_bytes()
        for place in (0, entry.size_bytes // 2, entry.size_bytes - 1):
            flipped = bytearray(data)
            flipped[place] ^= 1
            (bundle / name).write_bytes(flipped)
            with pytest.raises(HashError, match=re.escape(name)):
                Encoder.open(bundle, trust=keys)
        (bundle / name).write_bytes(data)


def test_hashes_are_compared_even_where_files_look_the_same(
    bundle: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of files is only used without keys: a medium can change bytes without a trace."""
    Encoder.open(bundle).close()
    data = bytearray((bundle / WEIGHTS).read_bytes())
    data[5] ^= 1
    (bundle / WEIGHTS).write_bytes(data)
    monkeypatch.setattr("edge_mrl.bundle.files.identity", lambda _: (1, 1, 1, 1))
    with pytest.raises(HashError):
        Encoder.open(bundle, trust=keys)


def test_another_key_is_not_trusted(bundle: Path, tmp_path: Path) -> None:
    make_key(tmp_path / "other.key")
    with pytest.raises(SignatureError, match=r"its key [0-9a-f]{16} is not one of"):
        Encoder.open(bundle, trust=tmp_path / "other.key.pub")


def test_key_id_of_another_key_gains_nothing(bundle: Path, keys: Path, tmp_path: Path) -> None:
    named, _ = make_key(tmp_path / "other.key")
    (own,) = signers(bundle)
    sign_bundle(bundle, tmp_path / "other.key")
    lines = (bundle / SIGNATURE).read_text().splitlines(keepends=True)
    (bundle / SIGNATURE).write_text(lines[0] + lines[2].replace(named, own))
    with pytest.raises(SignatureError):
        Encoder.open(bundle, trust=keys)


def test_keys_take_turns(bundle: Path, keys: Path, tmp_path: Path) -> None:
    old = signers(bundle)
    new, public = make_key(tmp_path / "next.key")
    sign_bundle(bundle, tmp_path / "next.key")
    assert signers(bundle) == [*old, new]
    for trusted in (keys, public):
        assert read_signed(bundle, trust=trusted).signer is not None
    both = tmp_path / "both.pem"
    both.write_text(f"# two keys\n{keys.read_text()}\n{public.read_text()}")
    assert read_signed(bundle, trust=both).signer == old[0]
    sign_bundle(bundle, tmp_path / "next.key")
    assert signers(bundle) == [*old, new]


def test_revoked_bundle_is_refused(bundle: Path, keys: Path, tmp_path: Path) -> None:
    listed = tmp_path / "listed.pem"
    listed.write_text(f"{keys.read_text()}revoke {read_signed(bundle).digest}\n")
    with pytest.raises(SignatureError, match="is revoked in"):
        Encoder.open(bundle, trust=listed)


def test_environment_asks_for_a_signature_everywhere(
    bundle: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "s.db"
    with Index.open(store, bundle) as index:
        index.put([Document("a", "one note")])
    monkeypatch.setenv("EDGE_MRL_TRUST", str(keys))
    with Index.open(store) as index:
        assert index.search("note")[0].id == "a"
    (bundle / SIGNATURE).unlink()
    with Index.open(store) as index, pytest.raises(SignatureError):
        index.search("note")
    with pytest.raises(SignatureError):
        Index.open(store, bundle)
    monkeypatch.delenv("EDGE_MRL_TRUST")
    with Index.open(store, trust=keys) as index, pytest.raises(SignatureError):
        index.search("note")
    with Index.open(store) as index:
        assert len(index.search("note")) == 1


@pytest.mark.test
def test_commands_take_keys(
    bundle: Path, keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trusted = ["--trust", str(keys)]
    assert main(["verify", str(bundle), *trusted]) == 0
    assert main(["inspect", str(bundle), "--json", *trusted]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["signed_by"] == signers(bundle)
    (bundle / SIGNATURE).unlink()
    for command in ("verify", "inspect"):
        assert main([command, str(bundle), "--json", *trusted]) == 2
        said = capsys.readouterr()
        assert json.loads(said.out)["error"]["kind"] == "SignatureError"
        assert said.err.count("\n") == 1
    assert main(["verify", str(bundle)]) == 0
    assert "signed by" not in capsys.readouterr().out
    assert main(["inspect", str(bundle)]) == 0  # the option held for its own command only
    assert re.search(r"signed by +nobody", capsys.readouterr().out)


def test_sign_command_makes_keys_and_signs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, key = copy_bundle(tmp_path / "bundle"), tmp_path / "my.key"
    assert main(["sign", "--new-key", str(key), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert key.stat().st_mode & 0o777 == 0o600
    assert main(["sign", str(bundle), "--key", str(key), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == made["key"]
    assert read_signed(bundle, trust=made["public"]).signer == made["key"]
    assert main(["verify", str(bundle)]) == 0
    assert re.search(rf"signed by +{made['key']}", capsys.readouterr().out)
    assert main(["verify", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["signed_by"] == [made["key"]]
    assert main(["sign", "--new-key", str(key)]) == 2
    assert main(["sign", str(bundle)]) == 2
    (bundle / GRAPH).write_bytes(bytes((bundle / GRAPH).stat().st_size))
    assert main(["sign", str(bundle), "--key", str(key)]) == 2  # damaged
    assert capsys.readouterr().err.count("edge-mrl: error: ") == 3


@pytest.fixture
def exported(tmp_path: Path, key: Path) -> Path:
    """A signed bundle with a place for a head."""
    from edge_mrl_export.recipe import Recipe
    from tests.export.test_head import rows_of, static_model
    from tests.support.tiny import export

    model = static_model(tmp_path / "model", rows_of([0.1] * 8 + [1.0] * 12 + [0.3] * 12))
    recipe = Recipe(dim=8, precision="fp32", head="prefix")
    folder = export(str(model), tmp_path / "exported", recipe).path
    sign_bundle(folder, key)
    return folder


def local_head(bundle: Path, output: Path) -> Path:
    matrix = np.linalg.qr(np.random.default_rng(3).normal(size=(32, 32)))[0][:, :8]
    with_head(bundle, output, NewHead(matrix.astype(np.float32), "matrix", INT8))
    return output


@pytest.mark.test
def test_head_made_here_from_a_signed_bundle_is_trusted_here(
    exported: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_MRL_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("EDGE_MRL_TRUST", str(keys))
    made = local_head(exported, tmp_path / "made")
    signed = read_signed(made)
    assert signed.signer == signers(exported)[0]
    assert signers(made) == []
    Encoder.open(made).close()
    # Bytes that were changed since are found, and so is a manifest that fits them.
    data = bytearray((made / "head.npy").read_bytes())
    data[-1] ^= 1
    (made / "head.npy").write_bytes(data)
    with pytest.raises(HashError):
        Encoder.open(made)
    refresh_file(made, "head.npy")
    with pytest.raises(SignatureError, match="is not signed"):
        Encoder.open(made)


@pytest.mark.test
def test_head_made_here_ends_with_the_trust_in_its_first_bundle(
    exported: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_MRL_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("EDGE_MRL_TRUST", str(keys))
    made = local_head(exported, tmp_path / "made")
    base = recall(read_signed(made).digest).made
    assert base is not None
    assert base.base == read_signed(exported).digest
    listed = tmp_path / "listed.pem"
    listed.write_text(f"{keys.read_text()}revoke {base.base}\n")
    _, other = make_key(tmp_path / "other.key")
    monkeypatch.setenv("EDGE_MRL_STATE", str(tmp_path / "another machine"))
    with pytest.raises(SignatureError):
        read_signed(made)
    monkeypatch.setenv("EDGE_MRL_STATE", str(tmp_path / "state"))
    for trusted in (listed, other):
        with pytest.raises(SignatureError):
            read_signed(made, trust=trusted)
    sign_bundle(made, tmp_path / "other.key")
    assert read_signed(made, trust=other).signer == signers(made)[0]


@pytest.mark.test
def test_store_that_was_opened_with_keys_adapts_with_them(
    exported: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.export.test_head import sentences

    monkeypatch.setenv("EDGE_MRL_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("EDGE_MRL_TRUST", raising=False)
    path = tmp_path / "notes.db"
    with Index.open(path, exported, trust=keys) as index:
        index.put([Document(str(n), text) for n, text in enumerate(sentences(300))])
        done = adapt(index)
        assert index.search("word", k=1)
    assert signers(done.after) == []
    with Index.open(path, trust=keys) as index:
        assert str(index.encoder.path) == done.after
    with pytest.raises(SignatureError):
        read_signed(done.after, trust=make_key(tmp_path / "other.key")[1])


@pytest.mark.test
def test_head_made_without_keys_is_not_trusted(
    exported: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_MRL_STATE", str(tmp_path / "state"))
    made = local_head(exported, tmp_path / "made")
    with pytest.raises(SignatureError, match="is not signed"):
        Encoder.open(made, trust=keys)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"edge-mrl-signature 1\n",
        b"edge-mrl-signature 2\ned25519 0 0\n",
        b"\xff" * 100,
        b"x" * 16_384,
        b"x" * 20_000,
    ],
)
def test_signature_of_nonsense_is_refused(bundle: Path, keys: Path, data: bytes) -> None:
    good = (bundle / SIGNATURE).read_bytes()
    for wrong in (
        data,
        good + b"\n",
        good + good,
        good.replace(b"\n", b"\r\n"),
        good * 9,
        good[:-1],
    ):
        (bundle / SIGNATURE).write_bytes(wrong)
        with pytest.raises(Exception, match=r"edge_mrl\.sig") as caught:
            Encoder.open(bundle, trust=keys)
        assert type(caught.value).__name__ in ("SignatureError", "BundleError")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no public key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "damaged public key"),
        ("revoke 12\n", "expected public keys in PEM"),
        ("x" * 70_000, "has more than"),
        ("\x00", "expected public keys in PEM"),
    ],
)
def test_file_of_keys_of_nonsense_is_a_usage_error(
    bundle: Path, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "keys.pem"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        Encoder.open(bundle, trust=path)


def test_file_of_keys_that_is_not_there_refuses_everything(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the keys"):
        Encoder.open(bundle, trust=tmp_path / "none.pem")


def test_keys_of_openssl_are_keys(bundle: Path, tmp_path: Path) -> None:
    key, public = tmp_path / "o.key", tmp_path / "o.pub"
    commands = (
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(key)],
        ["openssl", "pkey", "-in", str(key), "-pubout", "-out", str(public)],
    )
    try:
        for command in commands:
            subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs openssl, which this machine has not")
    named = sign_bundle(bundle, key)
    assert read_signed(bundle, trust=public).signer == named


def test_key_of_another_kind_is_a_usage_error(bundle: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import x25519

    private = x25519.X25519PrivateKey.generate()
    pem, raw = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "x.pub").write_bytes(private.public_key().public_bytes(pem, raw))
    with pytest.raises(UsageError, match="expected Ed25519"):
        Encoder.open(bundle, trust=tmp_path / "x.pub")
    kind, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "x.key").write_bytes(private.private_bytes(pem, kind, none))
    with pytest.raises(UsageError, match="expected Ed25519"):
        sign_bundle(bundle, tmp_path / "x.key")


def test_vector_of_the_format_is_what_this_signs() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    shown = re.search(r"^(edge-mrl-signature 1\n.*?)```", FORMAT, re.DOTALL | re.MULTILINE)
    assert shown is not None
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    ((named, value),) = trusting.parse_signature(shown[1].encode())
    assert named == trusting.key_id(private.public_key())
    assert value == private.sign(b"{}\n")
    assert base64.b64encode(value).decode() in FORMAT


def test_reader_without_the_check_of_the_signature_is_found_out(
    bundle: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def believe(_: TrustedKeys, __: bytes, signature: bytes) -> str:
        return trusting.parse_signature(signature)[0][0]

    monkeypatch.setattr(TrustedKeys, "signer", believe)
    with pytest.raises(HashError):  # so it was parsed
        test_changed_manifest_is_refused_unparsed(bundle, keys)


def test_without_the_package_the_message_says_what_to_install(
    bundle: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    hidden: Any = None
    for name in ("cryptography.hazmat.primitives.asymmetric", "cryptography.hazmat.primitives"):
        monkeypatch.setitem(sys.modules, name, hidden)
    with pytest.raises(MissingDependencyError, match=r"edge-mrl\[signed\]"):
        Encoder.open(bundle, trust=keys)
