# SPDX-License-Identifier: Apache-2.0
"""Verifies signatures of OpenSSF model signing, and says who signed which files.

No file of the model is read for it. The library compares what was signed with what somebody says
the files are; here that is the signature's own claim, which is thereby proven to be what the signer
signed. The bytes are compared with it when they are used.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..domain.provenance import SIGNATURE_NAME, Signature, Signer
from ..domain.signers import Anchor, Anchors
from ..errors import DeliveryError
from ..libraries import require
from ..redact import reason
from .bundle import Bundle, fingerprint, read_bundle, refuse
from .memory import file_in_memory

if TYPE_CHECKING:
    from cryptography import x509

PURPOSE = "for signatures of models (the wheel's extra 'signing' brings it, with pyOpenSSL)"
_WAYS_OUT = (
    "sign the model with one that is listed and publish it, or list the one that signed it where"
    " you trust it"
)


def verify(body: bytes, anchors: Anchors) -> Signature:
    """Who of those that are trusted signed, and what.

    Args:
        body: the signature's file.

    Raises:
        PolicyRefused: nobody who is trusted did.
        MissingLibrary: the library for it is not installed.
    """
    bundle = read_bundle(body)
    with require("model_signing", PURPOSE):
        import model_signing.verifying
    logger = logging.getLogger("model_signing")
    if not logger.handlers:  # its warnings would go to standard error
        logger.addHandler(logging.NullHandler())
    config = model_signing.verifying.Config().set_hashing_config(claimed(bundle))
    if bundle.is_sigstore:
        return _verify_sigstore(bundle, anchors, config)
    if bundle.key is not None:
        return _verify_key(bundle, bundle.key, anchors, config)
    return _verify_certificate(bundle, anchors, config)


def _verify_key(bundle: Bundle, key: str, anchors: Anchors, config: Any) -> Signature:
    found = next((anchor for anchor in anchors.public_keys if anchor.id == key), None)
    if found is None:
        raise refuse(
            f"{SIGNATURE_NAME} was signed with the key {key[:16]}, which is not in"
            f" require_signature.public_keys: {_WAYS_OUT}"
        )
    try:
        with file_in_memory(found.pem) as path:
            config.use_elliptic_key_verifier(public_key=path)
        _check(bundle, config)
    except Exception as error:  # the library lets everything through that its own libraries raise
        raise _false(error) from None
    return Signature(Signer(found.id), bundle.files)


def _verify_certificate(bundle: Bundle, anchors: Anchors, config: Any) -> Signature:
    signer, why = signer_of(bundle.certificates), None
    if not anchors.authorities:
        raise refuse(
            f"{SIGNATURE_NAME} was signed with a certificate ({signer}), and require_signature has"
            f" no ca_certificates: {_WAYS_OUT}"
        )
    for anchor in anchors.authorities:  # one by one, to know which of them vouches
        try:
            with file_in_memory(anchor.pem) as path:
                config.use_certificate_verifier(certificate_chain=[path])
            _check(bundle, config)
        except Exception as error:  # as above
            why = error
            continue
        return _known(bundle, _vouched(signer, anchor), anchors)
    by = f" by one of require_signature.ca_certificates ({signer})"
    raise _false(
        why, by, "its certificates lead to none that such an authority issued to itself, or"
    ) from None


def _verify_sigstore(bundle: Bundle, anchors: Anchors, config: Any) -> Signature:
    signer, why = signer_of(bundle.certificates), None
    if not anchors.sigstore:
        raise refuse(
            f"{SIGNATURE_NAME} was signed through Sigstore ({signer}), and require_signature has no"
            f" sigstore: {_WAYS_OUT}"
        )
    for identity, issuer in anchors.sigstore:
        try:
            with file_in_memory((anchors.trust_config or "").encode()) as path:
                config.use_sigstore_verifier(
                    identity=identity,
                    oidc_issuer=issuer,
                    **({"trust_config": Path(path)} if anchors.trust_config else {}),
                )
            _check(bundle, config)
        except Exception as error:  # as above
            why = error
            continue
        # The library has compared this identity with the certificate.
        proven = Signer(signer.key, (identity,), None, issuer, signer.chain)
        return _known(bundle, proven, anchors)
    raise _false(why, f" by one of require_signature.sigstore ({signer})") from None


def _known(bundle: Bundle, signer: Signer, anchors: Anchors) -> Signature:
    if why := anchors.why_not(signer):
        raise refuse(f"{SIGNATURE_NAME} was signed by {signer}, who {why}: {_WAYS_OUT}")
    return Signature(signer, bundle.files)


def _check(bundle: Bundle, config: Any) -> None:
    """Raises whatever the library raises, where the signature is not that of its verifier."""
    with file_in_memory(bundle.body) as path:
        config.verify(path, path)


def _false(error: Exception | None, by: str = "", perhaps: str = "") -> DeliveryError:
    if isinstance(error, DeliveryError):
        return error
    said = f" ({reason(error)})" if error else ""
    return refuse(
        f"{SIGNATURE_NAME} is not a true signature{by}{said}: {perhaps}{' ' * bool(perhaps)}it, or"
        " what it signs, was changed after it was made. Sign the model again"
        f"{', with sign.certificate_chain' * bool(perhaps)}"
    )


def claimed(bundle: Bundle) -> Any:
    """For the library: the claim of a signature, in place of a folder that it would hash."""
    from model_signing import hashing, manifest
    from model_signing._hashing.hashing import Digest

    class Claimed(hashing.Config):
        def hash(self, model_path: object, *, files_to_hash: object = None) -> Any:
            way = manifest.SerializationType.from_args(
                {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
            )
            return manifest.Manifest(
                bundle.model,
                [
                    way.new_item(name, Digest("sha256", bytes.fromhex(digest)))
                    for name, digest in bundle.files.items()
                ],
                way,
            )

        def add_ignored_paths(self, *, model_path: object, paths: object) -> None:
            """Nothing is left out: a file that is used and not signed is refused by its user."""

    made: Any = Claimed
    return made()


def signer_of(chain: Sequence[bytes]) -> Signer:
    """Whom the first certificate names, and those that came with it; nothing of it is proven."""
    from cryptography import x509

    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        keys = [key_id(certificate.public_key()) for certificate in certificates]
        names = _names(certificates[0])
    except Exception as error:  # what stands in a certificate, its sender chose
        raise refuse(
            f"{SIGNATURE_NAME} has a certificate that cannot be read ({reason(error)}): sign the"
            " model again"
        ) from None
    prints = [fingerprint(der) for der in chain]
    return Signer(keys[0], names, chain=tuple(sorted({*prints, *keys[1:]})))


def _vouched(signer: Signer, authority: Anchor) -> Signer:
    """By an authority, whose key can be revoked as its certificate can."""
    chain = tuple(sorted({*signer.chain, *signer_of([authority.der]).ids}))
    return Signer(signer.key, signer.identities, authority.id, None, chain)


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Subject alternative names, of printable characters only; the common name where there are
    none of these. Beside them, an authority need not have looked at it.
    """
    from cryptography import x509
    from cryptography.x509 import oid

    found: list[str] = []
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        for kind in (x509.RFC822Name, x509.DNSName, x509.UniformResourceIdentifier):
            found += map(str, alternatives.value.get_values_for_type(kind))
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(oid.NameOID.COMMON_NAME)
        found += [str(one.value) for one in common]
    return tuple(dict.fromkeys(name for name in found if name.isprintable()))


def key_id(public_key: Any) -> str:
    """sha256 of a public key as PEM, by which model-signing names it too."""
    return hashlib.sha256(public_pem(public_key)).hexdigest()


def public_pem(public_key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    pem: bytes = public_key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem


def may_sign(der: bytes) -> bool:
    """Whether a certificate is one with which model-signing takes a signature."""
    from cryptography import x509
    from cryptography.x509 import oid

    extensions = x509.load_der_x509_certificate(der).extensions
    with contextlib.suppress(x509.ExtensionNotFound):
        if extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature:
            return True
    with contextlib.suppress(x509.ExtensionNotFound):
        usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        return oid.ExtendedKeyUsageOID.CODE_SIGNING in usages
    return False
