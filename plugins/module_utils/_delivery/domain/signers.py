# SPDX-License-Identifier: Apache-2.0
"""Whose signatures are trusted, and what is not trusted any more; pure.

A record says who signed what is deployed, so that it can be judged again without the library that
verifies signatures.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field

from ..errors import InvalidOption
from .provenance import Signer

_BLOCK = re.compile(
    rb"-----BEGIN ([A-Z0-9 ]+)-----\s+([A-Za-z0-9+/=\s]+?)-----END \1-----", re.ASCII
)
_PUBLIC_KEY, _CERTIFICATE = b"PUBLIC KEY", b"CERTIFICATE"


@dataclass(frozen=True)
class Anchor:
    """A public key or an authority's certificate. ``id``: sha256, of the key as PEM or of the
    certificate as DER.
    """

    id: str
    pem: bytes = field(repr=False)
    der: bytes = field(repr=False)


@dataclass(frozen=True)
class Anchors:
    """Whose signatures are trusted.

    Attributes:
        identities: for which an authority must have issued the signer's certificate.
        sigstore: (identity, issuer) of those that Sigstore vouches for.
        trust_config: of Sigstore, as text; None: the public one.
    """

    public_keys: tuple[Anchor, ...] = ()
    authorities: tuple[Anchor, ...] = ()
    identities: tuple[str, ...] = ()
    sigstore: tuple[tuple[str, str], ...] = ()
    trust_config: str | None = field(default=None, repr=False)

    def why_not(self, signer: Signer) -> str | None:
        """Why a signer is not trusted, for the end of a sentence; None where it is."""
        if signer.issuer is not None:
            trusted = any((name, signer.issuer) in self.sigstore for name in signer.identities)
            return None if trusted else "is not in require_signature.sigstore"
        if signer.authority is None:
            trusted = signer.key in {anchor.id for anchor in self.public_keys}
            return None if trusted else "is not in require_signature.public_keys"
        if signer.authority not in {anchor.id for anchor in self.authorities}:
            return (
                f"has a certificate of the authority {signer.authority[:16]}, which is not in"
                " require_signature.ca_certificates"
            )
        if not set(signer.identities) & set(self.identities):
            return "is not in require_signature.identities"
        return None


def public_key_in(pem: bytes, option: str) -> Anchor:
    """The one public key of a PEM text. Raises InvalidOption where that is not what it holds."""
    blocks = _BLOCK.findall(pem)
    if len(blocks) != 1 or blocks[0][0] != _PUBLIC_KEY:
        raise _invalid(
            f"{option} needs a text that begins with -----BEGIN PUBLIC KEY-----, and no other:"
            " openssl pkey -in PRIVATE -pubout makes it"
        )
    der = _decoded(blocks[0][1], option)
    return Anchor(public_key_id(der), _pem(_PUBLIC_KEY, der), der)


def certificates_in(pem: bytes, option: str) -> tuple[Anchor, ...]:
    """The certificates of a PEM text. Raises InvalidOption where it holds none, or other things."""
    blocks = _BLOCK.findall(pem)
    if not blocks or any(kind != _CERTIFICATE for kind, _body in blocks):
        raise _invalid(f"{option} needs certificates, which begin with -----BEGIN CERTIFICATE-----")
    certificates = [_decoded(body, option) for _kind, body in blocks]
    return tuple(
        Anchor(hashlib.sha256(der).hexdigest(), _pem(_CERTIFICATE, der), der)
        for der in certificates
    )


def public_key_id(der: bytes) -> str:
    """sha256 of a public key as PEM, by which model-signing names it too."""
    return hashlib.sha256(_pem(_PUBLIC_KEY, der)).hexdigest()


def _decoded(body: bytes, option: str) -> bytes:
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except binascii.Error:
        raise _invalid(f"{option} is damaged: it is not base64 between its two lines") from None


def _pem(kind: bytes, der: bytes) -> bytes:
    """As OpenSSL and model-signing write it, whatever the lines of the original."""
    text = base64.b64encode(der)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return b"\n".join([b"-----BEGIN %s-----" % kind, *lines, b"-----END %s-----" % kind, b""])


def _invalid(message: str) -> InvalidOption:
    return InvalidOption(message, step="read the options", left="nothing was changed")
