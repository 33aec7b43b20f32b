# SPDX-License-Identifier: Apache-2.0
"""Who is trusted, of an artifact and of what is deployed already: rules without a library."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts import signed
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import Layout
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import (
    FileEntry,
    Manifest,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.provenance import (
    Claim,
    Provenance,
    RequiredSignature,
    Signature,
    Signer,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import (
    Record,
    read_record,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.signers import (
    Anchor,
    Anchors,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    PolicyRefused,
    RecordRefused,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.policy import Policy

KEY, OTHER, CA = "a" * 64, "b" * 64, "c" * 64
CONFIG = b'backend: "onnxruntime"\n'
ANCHORS = Anchors(
    (Anchor(KEY, b"", b""),),
    (Anchor(CA, b"", b""),),
    ("release@example.com",),
    (("me@example.com", "https://issuer.example.com"),),
)
RULE = Policy(require_signature=RequiredSignature(public_keys=("k",)), anchors=ANCHORS)


def record(**known: Any) -> Record:
    manifest = Manifest.of([FileEntry("1/model.onnx", 10, "1" * 64)]).to_dict()
    return Record(
        "fraud", "id", "u", "u", "s", "triton", (1,), manifest, "d" * 64, "c", {}, "then", "me",
        **known,
    )  # fmt: skip


def why(policy: Policy, there: Record) -> str | None:
    try:
        policy.check_deployed(there, CONFIG)
    except PolicyRefused as error:
        return error.message
    return None


@pytest.mark.parametrize(
    ("signer", "said"),
    [
        (Signer(KEY), None),
        (Signer(OTHER), "public_keys"),
        # A certificate's key is not trusted as a bare one, nor an identity without its authority.
        (Signer(KEY, (), OTHER), "ca_certificates"),
        (Signer(OTHER, ("release@example.com",), CA), None),
        (Signer(OTHER, ("x", "release@example.com"), CA), None),
        (Signer(OTHER, ("release@example.com.evil",), CA), "identities"),
        (Signer(OTHER, (), CA), "identities"),
        (Signer(OTHER, ("release@example.com",), OTHER), "ca_certificates"),
        (Signer(OTHER, ("release@example.com",)), "public_keys"),
        (Signer(OTHER, ("me@example.com",), None, "https://issuer.example.com"), None),
        (Signer(OTHER, ("me@example.com",), None, "https://other.example.com"), "sigstore"),
        (Signer(KEY, ("you@example.com",), CA, "https://issuer.example.com"), "sigstore"),
    ],
)
def test_a_signer_is_trusted_as_what_it_signed(signer: Signer, said: str | None) -> None:
    found = why(RULE, record(signed_by=signer.to_dict()))
    assert found is None if said is None else f"require_signature.{said}" in str(found)
    assert ANCHORS.why_not(Signer.from_dict(json.loads(json.dumps(signer.to_dict())))) == (
        ANCHORS.why_not(signer)
    )


def test_a_rule_whose_keys_nobody_read_trusts_nobody() -> None:
    unread = dataclasses.replace(RULE, anchors=None)
    assert "require_signature.public_keys" in str(
        why(unread, record(signed_by=Signer(KEY).to_dict()))
    )


def test_what_was_deployed_unsigned_is_refused_with_the_remedy() -> None:
    assert why(RULE, record()) == (
        "it was deployed without a signature, and require_signature is set: publish it with"
        " mlflow_publish and sign, and deploy that version"
    )
    assert why(Policy(), record()) is None


@pytest.mark.parametrize(
    ("digest", "what"),
    [
        ("1" * 64, "1/model.onnx"),
        ("2" * 64, "its manifest"),
        ("d" * 64, "its manifest"),
        ("3" * 64, "a file that it was made of"),
        ("4" * 64, None),
    ],
)
def test_a_digest_that_is_revoked(digest: str, what: str | None) -> None:
    there = record(publisher_digest="2" * 64, origins=("3" * 64,))
    found = why(Policy(revoked_digests=(digest,)), there)
    assert found == (
        f"revoked_digests has {digest}, which is {what}: deploy another version" if what else None
    )


@pytest.mark.parametrize("revoked", [KEY, CA, OTHER, "e" * 64])
def test_every_key_and_certificate_of_a_signer_can_be_revoked(revoked: str) -> None:
    signer = Signer(KEY, ("release@example.com",), CA, None, (OTHER,))
    found = why(Policy(revoked_keys=(revoked,)), record(signed_by=signer.to_dict()))
    assert (found is None) == (revoked == "e" * 64)
    assert why(Policy(revoked_keys=(revoked,)), record()) is None


def test_each_version_beside_the_newest_is_judged_until_it_goes() -> None:
    old = record(signed_by=Signer(OTHER).to_dict(), origins=("3" * 64,))
    new = dataclasses.replace(
        record(signed_by=Signer(KEY).to_dict()),
        triton_versions=(1, 2),
        beside=old.vouched_for([1]),
    )
    assert OTHER[:16] in str(why(RULE, new))
    assert "made of" in str(why(Policy(revoked_digests=("3" * 64,)), new))
    third = dataclasses.replace(
        record(signed_by=Signer(KEY).to_dict()),
        triton_versions=(1, 2, 3),
        beside=new.vouched_for([1, 2]),
    )
    assert OTHER[:16] in str(why(RULE, third))
    assert why(RULE, dataclasses.replace(third, triton_versions=(2, 3))) is None
    again = read_record(json.dumps(third.to_dict()).encode(), "fraud", "/r")
    assert OTHER[:16] in str(why(RULE, again))


@pytest.mark.parametrize(
    "damage",
    [
        {"signed_by": {}},
        {"signed_by": {"key": 1, "identities": []}},
        {"signed_by": "me"},
        {"beside": {"1": {}}},
        {"beside": {"1": "me"}},
        {"beside": {"1": {"origins": [], "signed_by": {}}}},
        {"origins": [1]},
        {"said_keys": "me"},
        {"said_keys": [1]},
    ],
)
def test_a_record_that_does_not_say_who_signed_is_damaged(damage: dict[str, Any]) -> None:
    body = {**record().to_dict(), **damage}
    with pytest.raises(RecordRefused, match="is damaged"):
        read_record(json.dumps(body).encode(), "fraud", "/r")


def test_records_of_former_releases_have_no_signer() -> None:
    body = record().to_dict()
    for key in ("signed_by", "said_keys", "origins", "beside"):
        del body[key]
    read = read_record(json.dumps(body).encode(), "fraud", "/r")
    assert (read.signed_by, read.origins, dict(read.beside)) == (None, (), {})
    assert read.said_keys == ()


def test_records_are_judged_without_the_library(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "for name in ('model_signing', 'cryptography', 'OpenSSL', 'sigstore'):\n"
        "    sys.modules[name] = None\n"
        "from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.policy"
        " import Policy\n"
        "from ansible_collections.mlops.triton.plugins.module_utils._delivery.trust.anchors"
        " import read_anchors\n"
        "policy = Policy.from_options({'require_signature': {'public_keys': [sys.argv[1]]}})\n"
        "print(read_anchors(policy.require_signature).public_keys[0].id)"
    )
    pem = "-----BEGIN PUBLIC KEY-----\nMFk=\n-----END PUBLIC KEY-----\n"
    ran = subprocess.run(
        [sys.executable, "-c", program, pem], capture_output=True, text=True, check=False
    )
    assert ran.stdout.strip() == hashlib.sha256(pem.encode()).hexdigest(), ran.stderr


# -- what an artifact's signature covers -----------------------------------------------------------


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


FILES: dict[str, int | None] = {"MLmodel": 1, "m/config.pbtxt": 2, "m/1/x": 3}


def with_signature(
    names: dict[str, str],
    path: str = "model.sig",
    provenance: Provenance | None = None,
    manifest: bytes | None = None,
) -> Provenance:
    there = Signature(Signer(KEY), names)
    return signed.with_signature(provenance, FILES, path, there, manifest)


def test_of_what_is_not_signed_nothing_is_claimed() -> None:
    listed = Provenance("d", 2, {"MLmodel": Claim(sha("a"), 1), "m/1/x": Claim(sha("b"), 3)})
    text = "manifest"
    found = with_signature(
        {"m/1/x": sha("b"), "triton-manifest.json": sha(text)}, "model.sig", listed, text.encode()
    )
    assert found.claims["m/1/x"] == Claim(sha("b"), 3)
    assert "MLmodel" not in found.claims
    assert (found.signed_by, found.digest, found.signed_folder) == (Signer(KEY), "d", "")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"m/1/x": sha("b")}, "does not cover triton-manifest.json"),
        ({"m/1/x": sha("b"), "triton-manifest.json": sha("other")}, "not the one that was signed"),
        (
            {"m/1/x": sha("c"), "triton-manifest.json": sha("manifest")},
            "say different things of m/1/x",
        ),
    ],
)
def test_a_manifest_that_is_not_the_signed_one_is_refused(names: dict[str, str], said: str) -> None:
    listed = Provenance("d", 2, {"m/1/x": Claim(sha("b"), 3)})
    with pytest.raises(PolicyRefused, match=said):
        with_signature(names, "model.sig", listed, b"manifest")


def test_the_signature_of_a_folder_covers_that_alone() -> None:
    listed = Provenance("d", 2, {"MLmodel": Claim(sha("a"), 1), "n/1/x": Claim(sha("b"), 3)})
    found = with_signature({"1/x": sha("x"), "config.pbtxt": sha("c")}, "m/model.sig", listed, b"t")
    assert found.claims.keys() == {"MLmodel", "m/1/x", "m/config.pbtxt"}
    assert found.signed == {"m/1/x", "m/config.pbtxt"}
    beside = {"n/1/x", "input_example.json", "mm/x"}
    there = {*FILES, *beside, "triton-manifest.json"}
    assert {path for path in there if signed.is_covered(path, found)} == there - beside
    assert all(signed.is_covered(path, Provenance()) for path in there)


def test_what_mlflow_adds_when_it_downloads_may_be_missing() -> None:
    names = {"MLmodel": sha("a"), "m/1/x": sha("x")}
    added = {"registered_model_meta": sha("r"), "metadata/MLmodel": sha("m")}
    assert with_signature(names | added).claims.keys() == names.keys()
    assert "m/1/gone" in with_signature({"m/1/gone": sha("x")}).claims  # and is missed later


def test_where_a_signature_lies() -> None:
    assert signed.place_of(FILES) is None
    assert signed.place_of({"m/model.sig": 1, **FILES}) == "m/model.sig"
    assert signed.place_of({"m/model.sig": 1, "model.sig": 1}) == "model.sig"
    with pytest.raises(PolicyRefused, match="2 signatures"):
        signed.place_of({"m/model.sig": 1, "n/model.sig": 1})


def test_the_signature_of_a_folder_is_for_triton_alone() -> None:
    found = with_signature({"1/x": sha("x")}, "m/model.sig")
    layout = Layout("triton", (("m/1/x", "1/model.onnx", 1),), (), b"", (1,), (1,), found)
    RULE.check_new(layout, CONFIG, {})
    with pytest.raises(PolicyRefused, match="enough for flavor triton and not for onnx"):
        RULE.check_new(dataclasses.replace(layout, flavor="onnx"), CONFIG, {})
    more = dataclasses.replace(layout, files=(*layout.files, ("m/1/y", "1/y", 1)))
    with pytest.raises(PolicyRefused, match="does not cover m/1/y"):
        RULE.check_new(more, CONFIG, {})
    for digest, what in ((sha("x"), "m/1/x"), ("d" * 64, None)):
        rule = Policy(revoked_digests=(digest,))
        if what is None:
            rule.check_new(layout, CONFIG, {})
            continue
        with pytest.raises(PolicyRefused, match=what):
            rule.check_new(layout, CONFIG, {})
