# SPDX-License-Identifier: Apache-2.0
"""What is known of an artifact's bytes, and who says so; pure.

One value is judged by the policy, compared with every byte that is used, and written into the
record, so that nothing can be said of one thing and done to another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..outside import JsonDict, JsonObject

SIGNATURE_NAME = "model.sig"
"""The file of a signature, at the artifact's root or in the model's folder."""

_LONGEST = 200


@dataclass(frozen=True)
class Signer:
    """Who signed.

    Attributes:
        key: sha256 of the public key in PEM, in hex; model-signing calls it the key's hint.
        identities: the names for which the certificate was issued; none of a bare key.
        authority: sha256 of the CA certificate (DER) that vouches, in hex; None of a bare key.
        issuer: who vouched for the identity at the time of signing (Sigstore); None otherwise.
        chain: sha256 of the certificates that came with the signature (DER) and of the public keys
            of those from behind the signer's to the authority's (PEM): each can be revoked.
    """

    key: str
    identities: tuple[str, ...] = ()
    authority: str | None = None
    issuer: str | None = None
    chain: tuple[str, ...] = ()

    @property
    def ids(self) -> frozenset[str]:
        """Everything by which the signer can be revoked."""
        return frozenset((self.key, *self.chain, *([self.authority] if self.authority else [])))

    def to_dict(self) -> JsonDict:
        return {
            "key": self.key,
            "identities": list(self.identities),
            "authority": self.authority,
            "issuer": self.issuer,
            "chain": list(self.chain),
        }

    @classmethod
    def from_dict(cls, data: JsonObject) -> Signer:
        """Read what ``to_dict`` wrote."""
        return cls(
            data["key"],
            tuple(data["identities"]),
            data.get("authority"),
            data.get("issuer"),
            tuple(data.get("chain") or ()),
        )

    def __str__(self) -> str:
        names = ", ".join(self.identities)
        names = names if len(names) <= _LONGEST else f"{names[:_LONGEST]}…"
        return f"{names} (key {self.key[:16]})" if names else f"key {self.key[:16]}"


@dataclass(frozen=True)
class Signature:
    """What is proven of a signature. ``files``: path, relative to the folder that was signed, to
    sha256.
    """

    signer: Signer
    files: Mapping[str, str]


@dataclass(frozen=True)
class RequiredSignature:
    """Whose signatures are trusted.

    Attributes:
        public_keys, ca_certificates: files of this host, or texts in PEM form.
        identities: for which a signer's certificate may be issued.
        sigstore: (identity, issuer).
        trust_config: a file of this host.
    """

    public_keys: tuple[str, ...] = ()
    ca_certificates: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()
    sigstore: tuple[tuple[str, str], ...] = ()
    trust_config: str | None = None


@dataclass(frozen=True)
class Claim:
    """What a manifest or a signature says of one file. ``size`` in bytes; None: it does not say."""

    sha256: str
    size: int | None = None


@dataclass(frozen=True)
class Provenance:
    """What is claimed of an artifact.

    Attributes:
        digest: of the publisher's manifest; None where there is none.
        schema: of that manifest.
        claims: path in the artifact to what its bytes must be.
        signed_by: who signed, where a signature was asked for and verified.
        signed: the paths which that signature covers.
        signed_folder: the folder in the artifact that was signed; "" where the artifact itself was.
    """

    digest: str | None = None
    schema: int | None = None
    claims: Mapping[str, Claim] = field(default_factory=dict)
    signed_by: Signer | None = None
    signed: frozenset[str] = frozenset()
    signed_folder: str = ""
