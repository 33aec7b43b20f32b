# SPDX-License-Identifier: Apache-2.0
"""Signatures of OpenSSF model signing: who is trusted, what is proven, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.provenance import (
    Signer,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.signers import Anchors
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    InvalidOption,
    PolicyRefused,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning import policy_options
from ansible_collections.mlops.triton.plugins.module_utils._delivery.trust.anchors import (
    read_anchors,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.trust.bundle import (
    key_of,
    keys_in,
    read_bundle,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.trust.signatures import verify
from ansible_collections.mlops.triton.plugins.module_utils._delivery.trust.signing import (
    is_signed_by,
    make_signature,
    read_signing_key,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from support.signers import Key, SigningAuthority, sign_with_command

FILES = {
    "model/1/model.onnx": hashlib.sha256(b"weights").hexdigest(),
    "MLmodel": hashlib.sha256(b"mlmodel").hexdigest(),
}
RELEASE = "release@example.com"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("signers")


@pytest.fixture(scope="module")
def key(folder: Path) -> Key:
    return Key(folder, "release")


@pytest.fixture(scope="module")
def authority(folder: Path) -> SigningAuthority:
    return SigningAuthority(folder, "authority")


def sign(options: dict[str, Any], files: dict[str, str] | None = None) -> bytes:
    signing_key = read_signing_key(options)
    assert signing_key is not None
    return make_signature(signing_key, "fraud", FILES if files is None else files)


def trust(**options: Any) -> Anchors:
    required = policy_options.required_signature(options)
    assert required is not None
    return read_anchors(required)


def why_not(body: bytes, anchors: Any) -> str:
    with pytest.raises(PolicyRefused) as refused:
        verify(body, anchors)
    assert refused.value.step == "verify the signature"
    assert refused.value.left == "nothing was changed"
    return refused.value.message


def changed(body: bytes, change: Any, payload: bool = False) -> bytes:
    """The signature's JSON, or the JSON that it signs, with a change."""
    document = json.loads(body)
    if not payload:
        change(document)
        return json.dumps(document).encode()
    envelope = document["dsseEnvelope"]
    inner = json.loads(base64.b64decode(envelope["payload"]))
    change(inner)
    envelope["payload"] = base64.b64encode(json.dumps(inner).encode()).decode()
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=["p256", "p384", "p521"]
)
def test_what_a_key_signed_is_proven_and_the_key_is_named(
    folder: Path, curve: ec.EllipticCurve
) -> None:
    one = Key(folder, f"on-{curve.name}", curve=curve)
    found = verify(sign({"private_key": one.file}), trust(public_keys=[one.public]))
    assert found.files == FILES
    assert found.signer == Signer(one.id)


def test_a_key_is_trusted_from_a_text_too(key: Key) -> None:
    text = Path(key.public).read_text()
    unusual = "".join(text.splitlines()[1:-1])
    other_lines = f"-----BEGIN PUBLIC KEY-----\r\n{unusual}\r\n-----END PUBLIC KEY-----"
    body = sign({"private_key": key.file})
    assert verify(body, trust(public_keys=[text])).signer.key == key.id
    assert verify(body, trust(public_keys=[other_lines])).signer.key == key.id


def test_a_signature_by_somebody_else_is_refused(key: Key, folder: Path) -> None:
    stranger = Key(folder, "stranger")
    said = why_not(sign({"private_key": stranger.file}), trust(public_keys=[key.public]))
    assert stranger.id[:16] in said
    assert "require_signature.public_keys" in said


def test_one_of_several_keys_is_enough(key: Key, folder: Path) -> None:
    other = Key(folder, "other")
    anchors = trust(public_keys=[other.public, key.public])
    assert verify(sign({"private_key": key.file}), anchors).signer.key == key.id
    assert verify(sign({"private_key": other.file}), anchors).signer.key == other.id


def test_a_hint_that_names_a_trusted_key_makes_no_trusted_signature(key: Key, folder: Path) -> None:
    stranger = Key(folder, "impostor")

    def claim(document: Any) -> None:
        document["verificationMaterial"]["publicKey"]["hint"] = key.id

    forged = changed(sign({"private_key": stranger.file}), claim)
    assert "is not a true signature" in why_not(forged, trust(public_keys=[key.public]))


@pytest.mark.parametrize("what", ["add", "remove", "change", "rename", "ignore"])
def test_what_is_signed_cannot_be_changed(key: Key, what: str) -> None:
    def change(payload: Any) -> None:
        resources = payload["predicate"]["resources"]
        if what == "add":
            resources.append({"name": "evil.py", "algorithm": "sha256", "digest": "0" * 64})
        elif what == "remove":
            del resources[0]
        elif what == "change":
            resources[0]["digest"] = "0" * 64
        elif what == "rename":
            resources[0]["name"] = "other"
        else:
            payload["predicate"]["serialization"]["ignore_paths"] = ["model"]

    forged = changed(sign({"private_key": key.file}), change, payload=True)
    assert "is not a true signature" in why_not(forged, trust(public_keys=[key.public]))


def test_a_certificate_is_trusted_by_authority_and_identity(authority: SigningAuthority) -> None:
    key, certificate = authority.issue("signer", RELEASE)
    body = sign({"private_key": key.file, "certificate": certificate})
    found = verify(body, trust(ca_certificates=[authority.file], identities=[RELEASE]))
    assert found.files == FILES
    assert found.signer.key == key.id
    assert found.signer.identities == (RELEASE,)
    assert found.signer.authority == authority.fingerprint
    said = why_not(body, trust(ca_certificates=[authority.file], identities=["ops@example.com"]))
    assert RELEASE in said and "require_signature.identities" in said


def test_a_common_name_counts_where_there_is_no_other_name(authority: SigningAuthority) -> None:
    """Beside others it is often what the owner of the certificate asked for."""
    trusted = trust(ca_certificates=[authority.file], identities=[RELEASE])
    key, certificate = authority.issue(RELEASE, "mallory@example.com")
    said = why_not(sign({"private_key": key.file, "certificate": certificate}), trusted)
    assert "mallory@example.com" in said and "require_signature.identities" in said
    key, certificate = authority.issue(RELEASE, "")
    body = sign({"private_key": key.file, "certificate": certificate})
    assert verify(body, trusted).signer.identities == (RELEASE,)


def test_a_certificate_of_another_authority_is_refused(
    authority: SigningAuthority, folder: Path
) -> None:
    stranger = SigningAuthority(folder, "stranger-authority")
    key, certificate = stranger.issue("pretender", RELEASE)
    body = sign({"private_key": key.file, "certificate": certificate})
    anchors = trust(ca_certificates=[authority.file], identities=[RELEASE])
    assert "by one of require_signature.ca_certificates" in why_not(body, anchors)
    both = trust(ca_certificates=[authority.file, stranger.file], identities=[RELEASE])
    assert verify(body, both).signer.authority == stranger.fingerprint


def test_an_authority_of_the_same_name_is_another_one(
    authority: SigningAuthority, tmp_path: Path
) -> None:
    pretender = SigningAuthority(tmp_path, "authority")
    key, certificate = pretender.issue("signer", RELEASE)
    body = sign({"private_key": key.file, "certificate": certificate})
    assert "is not a true signature" in why_not(
        body, trust(ca_certificates=[authority.file], identities=[RELEASE])
    )


def test_certificates_between_signer_and_authority_can_be_revoked(
    authority: SigningAuthority, folder: Path
) -> None:
    between = SigningAuthority(folder, "between", issuer=authority)
    key, certificate = between.issue("department", RELEASE)
    options = {"private_key": key.file, "certificate": certificate}
    anchors = trust(ca_certificates=[authority.file], identities=[RELEASE])
    said = why_not(sign(options), anchors)
    assert "is not a true signature" in said and "with sign.certificate_chain" in said
    for chain in ([between.file], between.file):
        found = verify(sign({**options, "certificate_chain": chain}), anchors)
        assert found.signer.authority == authority.fingerprint
        assert {between.fingerprint, between.key.id, key.id} <= found.signer.ids
        assert {authority.fingerprint, authority.key.id} <= found.signer.ids
    bundled = folder / "bundled.crt"
    bundled.write_bytes(Path(certificate).read_bytes() + Path(between.file).read_bytes())
    assert verify(sign({**options, "certificate": str(bundled)}), anchors).signer.key == key.id


def test_a_certificate_that_was_valid_when_it_signed_stays_trusted(
    authority: SigningAuthority, folder: Path
) -> None:
    """model-signing looks at the beginning of a certificate; what ends trust is revocation."""
    key, certificate = authority.issue("long-ago", RELEASE, days=0)
    body = sign({"private_key": key.file, "certificate": certificate})
    anchors = trust(ca_certificates=[authority.file], identities=[RELEASE])
    assert verify(body, anchors).signer.key == key.id


def test_a_key_is_not_trusted_for_its_certificate_nor_a_certificate_for_its_key(
    authority: SigningAuthority,
) -> None:
    key, certificate = authority.issue("both", RELEASE)
    by_certificate = sign({"private_key": key.file, "certificate": certificate})
    assert "no ca_certificates" in why_not(by_certificate, trust(public_keys=[key.public]))
    by_key = sign({"private_key": key.file})
    anchors = trust(ca_certificates=[authority.file], identities=[RELEASE])
    assert "require_signature.public_keys" in why_not(by_key, anchors)


def test_a_signature_through_sigstore_is_believed_by_sigstore_alone(
    authority: SigningAuthority, folder: Path
) -> None:
    """What it says of its identity is nothing, where its certificate is not Sigstore's."""
    key, certificate = authority.issue("keyless", RELEASE)
    body = sign({"private_key": key.file, "certificate": certificate})

    def claim(document: Any) -> None:
        material = document["verificationMaterial"]
        chain = material.pop("x509CertificateChain")["certificates"]
        material["certificate"] = chain[0]

    forged = changed(body, claim)
    config = folder / "trust.json"
    config.write_text("{}")
    identity = {"identity": RELEASE, "issuer": "https://issuer.example.com"}
    said = why_not(forged, trust(sigstore=[identity], trust_config=str(config)))
    assert "is not a true signature by one of require_signature.sigstore" in said
    by_authority = trust(ca_certificates=[authority.file], identities=[RELEASE])
    assert "require_signature has no sigstore" in why_not(forged, by_authority)


@pytest.mark.parametrize("how", ["key", "certificate"])
def test_a_signature_that_the_tools_own_command_made_is_accepted(
    tmp_path: Path, authority: SigningAuthority, how: str
) -> None:
    key, certificate = authority.issue(f"command-{how}", RELEASE)
    model = tmp_path / "model"
    (model / "1").mkdir(parents=True)
    (model / "1/model.onnx").write_bytes(b"weights")
    arguments = ["--private_key", key.file]
    if how == "certificate":
        chain = ["--certificate_chain", authority.file]
        arguments += ["--signing_certificate", certificate, *chain]
    signature = sign_with_command(model, *arguments, how=how)
    anchors = (
        trust(public_keys=[key.public])
        if how == "key"
        else trust(ca_certificates=[authority.file], identities=[RELEASE])
    )
    found = verify(signature.read_bytes(), anchors)
    assert found.files == {"1/model.onnx": FILES["model/1/model.onnx"]}
    assert found.signer.key == key.id


def test_the_tools_own_command_accepts_a_signature_of_ours(tmp_path: Path, key: Key) -> None:
    model = tmp_path / "model"
    (model / "1").mkdir(parents=True)
    (model / "1/model.onnx").write_bytes(b"weights")
    signature = tmp_path / "model.sig"
    signature.write_bytes(
        sign({"private_key": key.file}, {"1/model.onnx": FILES["model/1/model.onnx"]})
    )
    command = [str(Path(sys.executable).parent / "model_signing"), "verify", "key", str(model)]
    command += ["--signature", str(signature), "--public_key", key.public]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    (model / "1/model.onnx").write_bytes(b"other weights")
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p["predicate"]["serialization"].update(method="shards"), "over shards"),
        (lambda p: p["predicate"]["serialization"].update(hash_type="blake2"), "with blake2"),
        (lambda p: p["predicate"]["resources"][0].update(algorithm="blake3"), "has no sha256"),
        (lambda p: p["predicate"]["resources"][0].update(name="../evil"), "does not stay inside"),
        (lambda p: p["predicate"]["resources"][0].update(name="a//b"), "no plain path"),
        (lambda p: p["predicate"]["resources"].append(p["predicate"]["resources"][0]), "twice"),
        (lambda p: p["predicate"].update(resources=[]), "covers no file"),
        (lambda p: p.update(predicateType="https://model_signing/Digests/v0.1"), "something else"),
        (lambda p: p.update(subject=[]), "one subject"),
        (lambda p: p.pop("_type"), "_type is missing"),
    ],
)
def test_another_form_of_signature_is_refused_with_a_sentence(
    key: Key, change: Any, said: str
) -> None:
    forged = changed(sign({"private_key": key.file}), change, payload=True)
    assert said in why_not(forged, trust(public_keys=[key.public]))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"dsseEnvelope": {"signatures": [{}], "payload": "%%%"}}',
        b'{"dsseEnvelope": {"signatures": [{}, {}], "payload": ""}}',
    ],
)
def test_what_is_no_signature_is_refused_with_a_sentence(key: Key, body: bytes) -> None:
    assert "sign the model again" in why_not(body, trust(public_keys=[key.public]))


def test_the_library_reads_what_was_read_before(key: Key, folder: Path) -> None:
    """Of a key that comes twice, one reader may take the first value and one the last."""
    mine = json.loads(sign({"private_key": key.file}))
    others = json.loads(sign({"private_key": Key(folder, "twice").file}))
    parts = [f'"{name}":{json.dumps(one[name])}' for one in (others, mine) for name in one]
    bundle = read_bundle(f"{{{','.join(parts)}}}".encode())
    assert json.loads(bundle.body) == mine and bundle.key == key.id
    assert bundle.body.count(b"verificationMaterial") == 1


def test_a_signature_is_not_read_without_end(key: Key) -> None:
    anchors = trust(public_keys=[key.public])
    assert "more than" in why_not(b" " * ((64 << 20) + 1), anchors)
    many = b"[" + b"{}," * 3_000_000 + b"{}]"
    assert "it holds more than 2000000 values" in why_not(many, anchors)

    def sign_many(signed: Any) -> None:
        signed["dsseEnvelope"]["payload"] = base64.b64encode(many).decode()

    body = changed(sign({"private_key": key.file}), sign_many)
    assert "it holds more than 2000000 values" in why_not(body, anchors)


@pytest.fixture(scope="module")
def bodies(key: Key, authority: SigningAuthority) -> tuple[bytes, bytes]:
    signer, certificate = authority.issue("mutated", RELEASE)
    by_certificate = {"private_key": signer.file, "certificate": certificate}
    return sign({"private_key": key.file}), sign(by_certificate)


@settings(deadline=None)
@given(data=st.data())
def test_a_damaged_signature_never_proves_anything_else(
    data: st.DataObject, key: Key, authority: SigningAuthority, bodies: tuple[bytes, bytes]
) -> None:
    """It is refused with a sentence, whatever a byte of it becomes, and nothing is printed."""
    body = data.draw(st.sampled_from(bodies))
    at = data.draw(st.integers(0, len(body) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "insert", "remove"]))
    some = data.draw(st.binary(min_size=1, max_size=4))
    mutated = {
        "flip": body[:at] + bytes([body[at] ^ (some[0] or 1)]) + body[at + 1 :],
        "cut": body[:at],
        "insert": body[:at] + some + body[at:],
        "remove": body[:at] + body[at + len(some) :],
    }[how]
    anchors = trust(
        public_keys=[key.public], ca_certificates=[authority.file], identities=[RELEASE]
    )
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        try:
            found = verify(mutated, anchors)
        except PolicyRefused:
            pass
        else:  # what was changed says nothing, such as a space
            assert found.files == FILES
    assert not printed.getvalue()


def test_the_library_prints_nothing(authority: SigningAuthority) -> None:
    """A module's output is JSON on standard output."""
    key, certificate = authority.issue("quiet", RELEASE)
    program = (
        "import sys; from ansible_collections.mlops.triton.plugins.module_utils._delivery.trust"
        " import signatures, anchors\n"
        "from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.provenance"
        " import RequiredSignature\n"
        "signatures.verify(open(sys.argv[1], 'rb').read(), anchors.read_anchors("
        "RequiredSignature(ca_certificates=(sys.argv[2],), identities=(sys.argv[3],))))"
    )
    file = authority.folder / "quiet.sig"
    file.write_bytes(sign({"private_key": key.file, "certificate": certificate}))
    ran = subprocess.run(
        [sys.executable, "-c", program, str(file), authority.file, RELEASE],
        capture_output=True,
        check=True,
    )
    assert (ran.stdout, ran.stderr) == (b"", b"")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"public_keys": ["/nowhere/key.pub"]}, "/nowhere/key.pub cannot be read"),
        ({"public_keys": ["PRIVATE"]}, "BEGIN PUBLIC KEY"),
        ({"public_keys": ["CA"]}, "BEGIN PUBLIC KEY"),
        ({"public_keys": ["TEXT"]}, "BEGIN PUBLIC KEY"),
        ({"public_keys": ["COMMENT"]}, "BEGIN PUBLIC KEY"),
        ({"public_keys": ["KEY"], "trust_config": 5}, "trust_config is not the path"),
        ({"public_keys": ["-----BEGIN PUBLIC KEY-----\nMFk=="]}, "BEGIN PUBLIC KEY"),
        ({"ca_certificates": ["KEY"], "identities": ["me"]}, "BEGIN CERTIFICATE"),
        ({"sigstore": [{"identity": "m", "issuer": "i"}], "trust_config": "/nowhere"}, "nowhere"),
    ],
)
def test_a_key_that_cannot_be_trusted_is_named_and_not_shown(
    key: Key, authority: SigningAuthority, options: dict[str, Any], said: str
) -> None:
    files = {"KEY": key.public, "PRIVATE": key.file, "CA": authority.file}
    files |= {"TEXT": key.text, "COMMENT": f"# mine\n{key.text}"}
    filled = {
        name: [files.get(one, one) if isinstance(one, str) else one for one in value]
        if isinstance(value, list)
        else value
        for name, value in options.items()
    }
    with pytest.raises(InvalidOption, match="require_signature") as refused:
        trust(**filled)
    assert said in str(refused.value)
    assert key.text.splitlines()[1] not in str(refused.value)


def test_by_whom_a_signature_says_that_it_is_is_known_without_the_library(
    key: Key, authority: SigningAuthority
) -> None:
    signer, certificate = authority.issue("revoked", RELEASE)
    by_key = sign({"private_key": key.file})
    by_certificate = sign({"private_key": signer.file, "certificate": certificate})
    der = x509.load_pem_x509_certificate(Path(certificate).read_bytes())
    fingerprint = der.fingerprint(hashes.SHA256()).hex()
    keys = ((by_certificate, fingerprint), (by_certificate, signer.id))
    for body, named in ((by_key, key.id), *keys):
        assert named in keys_in(body)
    assert keys_in(by_key) == (key.id,) and keys_in(b"no signature") == ()


def test_the_key_of_a_certificate_is_found_in_it(authority: SigningAuthority) -> None:
    for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()):
        signer = Key(authority.folder, f"on-{curve.name}", curve=curve)
        made = authority.certify(signer, RELEASE)
        assert key_of(made) == signer.id
        for end in range(0, len(made) // 2, 7):
            key_of(made[:end])
            key_of(made[end:])
    assert key_of(b"") is None and key_of(b"\x30\x84\xff\xff\xff\xff") is None


def test_a_signature_is_known_again_by_what_it_signs_and_brings(
    authority: SigningAuthority, folder: Path
) -> None:
    """A publication does not leave alone what nobody would trust."""
    between = SigningAuthority(folder, "between-again", issuer=authority)
    signer, certificate = between.issue("again", RELEASE)
    manifest = hashlib.sha256(b"manifest").hexdigest()
    files = {**FILES, "triton-manifest.json": manifest}
    options = {"private_key": signer.file, "certificate": certificate}
    for named in (
        {"private_key": signer.file},
        options,
        {**options, "certificate_chain": [between.file]},
    ):
        made = read_signing_key(named)
        assert made is not None
        body = make_signature(made, "fraud", files)
        assert is_signed_by(made, body, manifest)
        assert not is_signed_by(made, body, "0" * 64)

        def add(document: Any) -> None:
            document["predicate"]["resources"][0]["digest"] = "0" * 64

        assert not is_signed_by(made, changed(body, add, payload=True), manifest)

    def shorten(document: Any) -> None:
        del document["verificationMaterial"]["x509CertificateChain"]["certificates"][1:]

    assert not is_signed_by(made, changed(body, shorten), manifest)


def test_no_rule_reads_nothing() -> None:
    assert policy_options.required_signature(None) is None
    assert read_signing_key(None) is None


# --- keys -----------------------------------------------------------------------------------------


def test_a_key_comes_from_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, key: Key
) -> None:
    locked = Key(folder, "locked", password="correct horse battery")
    monkeypatch.setenv("MY_KEY", locked.text)
    monkeypatch.setenv("MY_PASSWORD", "correct horse battery")
    body = sign({"private_key_env": "MY_KEY", "password_env": "MY_PASSWORD"})
    assert verify(body, trust(public_keys=[locked.public])).signer.key == locked.id
    body = sign({"private_key": locked.file, "password": "correct horse battery"})
    assert verify(body, trust(public_keys=[locked.public])).signer.key == locked.id


def test_an_encrypted_key_signs_with_a_certificate(authority: SigningAuthority) -> None:
    """model-signing itself takes no password with a certificate."""
    from cryptography.hazmat.primitives import serialization

    key, certificate = authority.issue("locked-signer", RELEASE)
    encrypted = key.private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret enough"),
    )
    Path(key.file).write_bytes(encrypted)
    options = {"private_key": key.file, "password": "secret enough", "certificate": certificate}
    anchors = trust(ca_certificates=[authority.file], identities=[RELEASE])
    assert verify(sign(options), anchors).signer.key == key.id


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "needs one of"),
        ({"private_key": "KEY", "private_key_env": "X"}, "needs one of"),
        ({"private_key": "/nowhere.pem"}, "/nowhere.pem cannot be read"),
        ({"private_key_env": "NOT_SET"}, "the variable NOT_SET, which is not set"),
        ({"private_key": "TEXT"}, "was given a text in place of the path"),
        ({"private_key": "/no/\0"}, "was given a text in place of the path"),
        ({"private_key": "KEY", "certificate": "TEXT"}, "was given a text in place of the path"),
        ({"private_key_env": "TEXT"}, "a variable that is not set"),
        ({"private_key": "KEY", "password_env": "wrong password"}, "a variable that is not set"),
        ({"private_key": "LOCKED"}, "is encrypted"),
        ({"private_key": "LOCKED", "password": "wrong password"}, "its password is another one"),
        ({"private_key": "PUBLIC"}, "no private key"),
        ({"private_key": "RSA"}, "prime256v1"),
        ({"private_key": "KEY", "certificate": "OTHERS"}, "of another key"),
        ({"private_key": "UNFIT", "certificate": "UNFIT_CRT"}, "digitalSignature"),
        ({"private_key": "KEY", "certificate": "PUBLIC"}, "BEGIN CERTIFICATE"),
        ({"private_key": "KEY", "certificate_chain": ["CA"]}, "needs sign.certificate"),
        ({"private_key": "KEY", "keyfile": "x"}, "has no key keyfile"),
        ({"identity_token_env": "TOKEN", "password": "password"}, "alone"),
        ("KEY", "is not a mapping"),
    ],
)
def test_a_key_that_cannot_sign_is_named_and_not_shown(
    folder: Path, key: Key, authority: SigningAuthority, options: Any, said: str
) -> None:
    locked = Key(folder, "locked-2", password="correct horse battery")
    rsa_key = folder / "rsa.pem"
    if not rsa_key.exists():
        subprocess.run(
            ["openssl", "genrsa", "-out", str(rsa_key), "2048"], check=True, capture_output=True
        )
    unfit, unfit_certificate = authority.issue("unfit", RELEASE, may_sign=False)
    names = {
        "KEY": key.file,
        "TEXT": key.text,
        "PUBLIC": key.public,
        "LOCKED": locked.file,
        "RSA": str(rsa_key),
        "OTHERS": authority.issue("others", RELEASE)[1],
        "UNFIT": unfit.file,
        "UNFIT_CRT": unfit_certificate,
        "CA": authority.file,
    }
    if isinstance(options, dict):
        options = {
            k: names.get(v, v) if isinstance(v, str) else [names.get(one, one) for one in v]
            for k, v in options.items()
        }
    with pytest.raises(InvalidOption) as refused:
        read_signing_key(options)
    assert said in str(refused.value)
    assert refused.value.left == "nothing was published"
    assert refused.value.__cause__ is None
    for secret in ("wrong password", "BEGIN", key.text.splitlines()[1]):
        if secret != "BEGIN" or "BEGIN CERTIFICATE" not in said:
            assert secret not in str(refused.value)


def test_a_key_is_in_no_text_of_its_value(key: Key) -> None:
    made = read_signing_key({"private_key": key.file})
    assert key.text.splitlines()[1] not in repr(made)
    assert "PRIVATE" not in repr(made)


def test_no_file_of_this_host_ever_holds_a_decrypted_key(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library reads a path; it is one in memory, and nothing is open afterwards."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    locked = Key(folder, "in-memory", password="correct horse battery")
    before = set(os.listdir("/proc/self/fd"))
    opened: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and watching and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            opened.append(str(arguments[0]))

    watching = True
    # A number is a file in memory that is open already.
    sys.addaudithook(watch)
    body = sign({"private_key": locked.file, "password": "correct horse battery"})
    watching = False
    assert verify(body, trust(public_keys=[locked.public])).signer.key == locked.id
    assert set(os.listdir("/proc/self/fd")) == before
    assert not [path for path in opened if not re.fullmatch(r"(/proc/self/fd/)?\d+", path)]
    assert not list(tmp_path.iterdir())
