# SPDX-License-Identifier: Apache-2.0
"""What a signature's file says, before it is known whether that is true. What is not expected is
refused: a rule that skipped it could be told by it what to skip.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..domain.fields import Fields, WrongShape, read_json
from ..domain.manifest import confine
from ..domain.provenance import SIGNATURE_NAME
from ..domain.published import MOST_VALUES
from ..domain.signers import public_key_id
from ..errors import ArtifactError, PolicyRefused

LARGEST = 64 << 20
STEP = "verify the signature"
_PREDICATE = "https://model_signing/signature/v1.0"
_STATEMENT = "https://in-toto.io/Statement/v1"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_CERTIFICATES = 16


@dataclass(frozen=True)
class Bundle:
    """What a signature claims; nothing of it is proven.

    Attributes:
        body: the file, as JSON that has each key once.
        key: sha256 of the public key that is said to have signed; None with certificates.
        certificates: in DER, the signer's first.
        is_sigstore: its certificate is from Sigstore.
        model: name of the folder that was signed, which says nothing.
        files: path relative to that folder → sha256.
    """

    body: bytes
    key: str | None
    certificates: tuple[bytes, ...]
    is_sigstore: bool
    model: str
    files: Mapping[str, str]


def refuse(message: str) -> PolicyRefused:
    return PolicyRefused(message, step=STEP, left="nothing was changed")


def read_bundle(body: bytes) -> Bundle:
    """Read the file of a signature.

    Raises:
        PolicyRefused: it is not what OpenSSF model signing makes, or signs in a way that is not
            accepted.
    """
    if len(body) > LARGEST:
        raise refuse(f"{SIGNATURE_NAME} has more than {LARGEST} bytes")
    try:
        document = read_json(body, MOST_VALUES)
        bundle = Fields(document)
        envelope = Fields(bundle.mapping("dsseEnvelope"))
        if len(envelope.each("signatures")) != 1:
            raise WrongShape("signatures has not one entry")
        payload = Fields(read_json(_decoded(envelope, "payload"), MOST_VALUES))
        key, certificates, is_sigstore = _material(Fields(bundle.mapping("verificationMaterial")))
        model, files = _payload(payload)
    except (WrongShape, ArtifactError) as error:
        raise refuse(
            f"{SIGNATURE_NAME} is no signature that OpenSSF model signing 1.0 or later makes"
            f" ({error}): sign the model again"
        ) from None
    # Written anew, so that the library reads what was read here, also where a key comes twice.
    return Bundle(json.dumps(document).encode(), key, certificates, is_sigstore, model, files)


def keys_in(body: bytes) -> tuple[str, ...]:
    """By which keys and certificates a signature says of itself that it is; nothing of it is
    proven, and what cannot be read says nothing.
    """
    try:
        bundle = read_bundle(body)
    except PolicyRefused:
        return ()
    keys = [bundle.key, *map(key_of, bundle.certificates)]
    return tuple(sorted({*map(fingerprint, bundle.certificates), *(key for key in keys if key)}))


def _material(material: Fields) -> tuple[str | None, tuple[bytes, ...], bool]:
    """Who is said to have signed: exactly one of the three ways in which that is said."""
    ways = [
        way
        for way in ("publicKey", "x509CertificateChain", "certificate")
        if material.data.get(way) is not None
    ]
    if len(ways) != 1:
        raise WrongShape("it does not name one key, one certificate or one chain")
    if ways == ["publicKey"]:
        hint = Fields(material.mapping("publicKey")).text("hint")
        if not _SHA256.fullmatch(hint):
            raise WrongShape("hint is not the SHA-256 of a public key")
        return hint, (), False
    if ways == ["certificate"]:
        return None, (_decoded(Fields(material.mapping("certificate")), "rawBytes"),), True
    chain = Fields(material.mapping("x509CertificateChain")).each("certificates")
    if not 0 < len(chain) <= _MOST_CERTIFICATES:
        raise WrongShape(f"its chain has {len(chain)} certificates")
    return None, tuple(_decoded(Fields(one), "rawBytes") for one in chain), False


def _payload(payload: Fields) -> tuple[str, dict[str, str]]:
    if payload.text("_type") != _STATEMENT or payload.text("predicateType") != _PREDICATE:
        raise WrongShape("it states something else than the files of a model")
    subjects = payload.each("subject")
    if len(subjects) != 1:
        raise WrongShape("it has not one subject")
    model = Fields(subjects[0]).text("name")
    predicate = Fields(payload.mapping("predicate"))
    serialization = Fields(predicate.mapping("serialization"))
    way = (serialization.text("method"), serialization.text("hash_type"))
    if way != ("files", "sha256"):
        raise WrongShape(f"it was made over {way[0]} with {way[1]}, and not over files with sha256")
    files: dict[str, str] = {}
    for resource in map(Fields, predicate.each("resources")):
        name, digest = resource.text("name"), resource.text("digest")
        if resource.text("algorithm") != "sha256" or not _SHA256.fullmatch(digest):
            raise WrongShape(f"{name} has no sha256")
        if confine(name) != name or name in files:
            raise WrongShape(f"{name} is no plain path, or comes twice")
        files[name] = digest
    if not files:
        raise WrongShape("it covers no file")
    return model, files


def _decoded(fields: Fields, key: str) -> bytes:
    try:
        return base64.b64decode(fields.text(key), validate=True)
    except (binascii.Error, ValueError):
        raise fields.wrong(key, "base64") from None


def fingerprint(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()


def key_of(certificate: bytes) -> str | None:
    """Id of the public key in a certificate (DER), without a library that reads such; None where it
    is none. It is the sixth part of what its authority signed, not counting the form's version.
    """
    try:
        _tag, whole, _end = _element(certificate, 0)
        _tag, signed, at = _element(certificate, whole)
        at, end = signed, at
        parts: list[bytes] = []
        while at < end and len(parts) < _PARTS:
            tag, _content, after = _element(certificate, at)
            if tag != _VERSION:
                parts.append(certificate[at:after])
            at = after
        return public_key_id(parts[-1]) if len(parts) == _PARTS else None
    except IndexError:
        return None


_PARTS, _VERSION = 6, 0xA0


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """Of an element of DER: its tag, where its content begins, and where it ends."""
    tag, length, at = data[at], data[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, at = int.from_bytes(data[at : at + count], "big"), at + count
    if at + length > len(data):
        raise IndexError
    return tag, at, at + length
