# SPDX-License-Identifier: Apache-2.0
"""Makes signatures of OpenSSF model signing, over files of which the sha256 is known already."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..domain.fields import Fields, WrongShape, read_json
from ..domain.manifest import MANIFEST_NAME
from ..domain.provenance import Signer
from ..domain.signers import Anchor, Anchors, certificates_in, public_key_in
from ..errors import InvalidOption, PolicyRefused
from ..libraries import require
from ..outside import Options
from ..redact import hide, reason
from .bundle import Bundle, fingerprint, read_bundle
from .memory import file_in_memory, read_back
from .signatures import PURPOSE, claimed, key_id, may_sign, public_pem, signer_of, verify

_KEYS = {
    "private_key",
    "private_key_env",
    "password",
    "password_env",
    "certificate",
    "certificate_chain",
    "identity_token_env",
}
_LARGEST = 1 << 20
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_WAYS = "private_key, private_key_env and identity_token_env"


@dataclass(frozen=True)
class SigningKey:
    """With what a model is signed; read and decrypted, and never shown.

    Attributes:
        private_key, public_key: in PEM.
        certificate: the signer's in PEM; None: a bare key signs.
        chain: the certificates between that and the authority's.
        token: of an identity that Sigstore vouches for, in place of all these.
        signer: who that is; None of a token, of which Sigstore knows.
    """

    private_key: bytes = field(default=b"", repr=False)
    public_key: bytes = field(default=b"", repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    chain: tuple[bytes, ...] = field(default=(), repr=False)
    token: str | None = field(default=None, repr=False)
    signer: Signer | None = None

    @property
    def name(self) -> str:
        """By which a signature of this key is known again: the sha256 of the certificate, else of
        the public key; issuer and identity of a token.
        """
        if self.token is not None:
            return _identity_of(self.token)
        if self.certificate is not None:
            return certificates_in(self.certificate, "sign.certificate")[0].id
        return self.signer.key if self.signer else ""

    @property
    def certificate_ids(self) -> tuple[str, ...]:
        """sha256 of each certificate that goes with a signature."""
        pem = b"".join([self.certificate or b"", *self.chain])
        return tuple(one.id for one in certificates_in(pem, "sign.certificate"))

    def __str__(self) -> str:
        return str(self.signer) if self.signer else self.name


def read_signing_key(given: Options | None) -> SigningKey | None:
    """The option ``sign``; None where nothing is to be signed.

    Raises:
        InvalidOption: naming the part of it that cannot be used; no secret is in the sentence.
        MissingLibrary: the library for it is not installed.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise _invalid("sign is not a mapping such as {private_key: /etc/keys/release.pem}")
    wanted = {str(key): value for key, value in given.items() if value is not None}
    hide(str(wanted.get("password") or ""))
    if unknown := sorted(set(wanted) - _KEYS):
        raise _invalid(f"sign has no key {unknown[0]}")
    ways = [
        key for key in ("private_key", "private_key_env", "identity_token_env") if key in wanted
    ]
    if len(ways) != 1:
        raise _invalid(f"sign needs one of {_WAYS}")
    if ways == ["identity_token_env"]:
        if len(wanted) > 1:
            raise _invalid("sign takes identity_token_env alone")
        made = SigningKey(token=_variable(wanted, "identity_token_env"))
        _identity_of(made.token or "")
        return made
    if "password" in wanted and "password_env" in wanted:
        raise _invalid("sign takes password or password_env, and not both")
    if "certificate_chain" in wanted and "certificate" not in wanted:
        raise _invalid("sign.certificate_chain needs sign.certificate, which it leads from")
    return _read_key(wanted)


def _read_key(wanted: Mapping[str, Any]) -> SigningKey:
    where = "private_key" if "private_key" in wanted else "private_key_env"
    pem = (
        _file(wanted["private_key"], "private_key")
        if where == "private_key"
        else _variable(wanted, where).encode()
    )
    password = (
        _variable(wanted, "password_env") if "password_env" in wanted else wanted.get("password")
    )
    with require("model_signing", PURPOSE):
        import model_signing.signing  # noqa: F401  (asked for now, used when there is a manifest)
    key = _decrypted(pem, str(password) if password else None, f"sign.{where}")
    signer = Signer(key_id(key.public_key()))
    if "certificate" in wanted:
        return _with_certificates(wanted, _plain(key), public_pem(key.public_key()), signer)
    return SigningKey(_plain(key), public_pem(key.public_key()), signer=signer)


def _decrypted(pem: bytes, password: str | None, name: str) -> Any:
    """Raises InvalidOption in words of our own: those of the library may quote what it reads."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if password is None and b"ENCRYPTED" in pem:
        raise _invalid(f"{name} is encrypted: give sign.password or sign.password_env")
    secret = password.encode() if password is not None and b"ENCRYPTED" in pem else None
    try:
        key = serialization.load_pem_private_key(pem, secret)
    except Exception:  # ValueError, TypeError, and what OpenSSL calls a defect of its own
        what = "its password is another one, or " if secret is not None else ""
        raise _invalid(f"{name} cannot be read: {what}it is no private key in PEM form") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise _invalid(
            f"{name} is not a key on one of the curves {', '.join(_CURVES)}: openssl ecparam -name"
            " prime256v1 -genkey -noout makes one"
        )
    return key


_CURVES = ("secp256r1", "secp384r1", "secp521r1")


def _plain(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    plain: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return plain


def _with_certificates(
    wanted: Mapping[str, Any], plain: bytes, public: bytes, signer: Signer
) -> SigningKey:
    """With the signer's certificate and those that lead to the authority."""
    own = _certificates(wanted["certificate"], "certificate")
    given = wanted.get("certificate_chain") or ()
    files = [given] if isinstance(given, (str, os.PathLike)) else list(given)
    chain = [one for file in files for one in _certificates(file, "certificate_chain")]
    # A file often has the signer's certificate first and those of its authorities behind it.
    chain = [*own[1:], *chain]
    named = signer_of([own[0].der, *(one.der for one in chain)])
    if named.key != signer.key:
        raise _invalid("sign.certificate is of another key than the private key that was given")
    if not may_sign(own[0].der):
        raise _invalid(
            "sign.certificate may not sign: it needs the key usage digitalSignature, or the"
            " extended one codeSigning"
        )
    return SigningKey(
        plain, public, own[0].pem, chain=tuple(one.pem for one in chain), signer=named
    )


def make_signature(key: SigningKey, model: str, files: Mapping[str, str]) -> bytes:
    """The signature's file.

    Args:
        model: name of what is signed, for readers.
        files: path → sha256.

    Raises:
        DeliveryError: the library refuses.
    """
    with require("model_signing", PURPOSE):
        import model_signing.signing
    bundle = Bundle(b"", None, (), key.token is not None, model, files)
    config = model_signing.signing.Config().set_hashing_config(claimed(bundle))
    try:
        with file_in_memory() as target:
            _use(config, key)
            config.sign(target, target)
            return read_back(target)
    except Exception as error:  # the library lets everything through that its own libraries raise
        raise InvalidOption(
            f"the model cannot be signed ({reason(error)})", step="sign the model"
        ) from None


def is_signed_by(key: SigningKey, body: bytes, manifest: str) -> bool:
    """Whether a signature is one that this key made of a manifest (its sha256), and brings the
    certificates that this key does. Of Sigstore that is only what the signature says.
    """
    try:
        bundle = read_bundle(body)
        if bundle.files.get(MANIFEST_NAME) != manifest:
            return False
        if key.token is not None:
            return bundle.is_sigstore
        own = public_key_in(key.public_key, "sign.private_key")
        if key.certificate is not None:
            there = [fingerprint(one) for one in bundle.certificates]
            if there[:1] != [key.name] or {*there} != {*key.certificate_ids}:
                return False
            body = _as_of_key(body, own)
        verify(body, Anchors((own,)))
    except PolicyRefused:
        return False
    return True


def _as_of_key(body: bytes, key: Anchor) -> bytes:
    """The same signature, as if the bare key had made it: certificates are no part of what is
    signed.
    """
    document = read_json(body)
    document["verificationMaterial"] = {"publicKey": {"hint": key.id}, "tlogEntries": []}
    return json.dumps(document).encode()


def _identity_of(token: str) -> str:
    """What a token says of itself; Sigstore checks it."""
    try:
        claims = Fields(read_json(base64.urlsafe_b64decode(token.split(".")[1] + "==")))
        key = "email" if "email" in claims.data else "sub"
        return f"{claims.text('iss')} {claims.text(key)}"
    except (WrongShape, ValueError, IndexError):
        raise _invalid("sign.identity_token_env holds no token of OpenID Connect") from None


def _use(config: Any, key: SigningKey) -> None:
    if key.token is not None:
        config.use_sigstore_signer(identity_token=key.token)
        return
    with file_in_memory(key.private_key) as private:
        if key.certificate is None:
            config.use_elliptic_key_signer(private_key=private)
            return
        # The library cannot do without a chain; where the authority itself issued the certificate,
        # there is none but that.
        others = b"".join(key.chain) or key.certificate
        with file_in_memory(key.certificate) as own, file_in_memory(others) as chain:
            config.use_certificate_signer(
                private_key=private, signing_certificate=own, certificate_chain=[chain]
            )


def _certificates(path: object, key: str) -> tuple[Anchor, ...]:
    try:
        return certificates_in(_file(path, key), f"sign.{key}")
    except InvalidOption as error:
        raise _invalid(error.message) from None


def _variable(wanted: Mapping[str, Any], key: str) -> str:
    name = str(wanted[key])
    value = os.environ.get(name)
    if not value:
        # Whoever gave the secret itself finds it in no log.
        if _VARIABLE.fullmatch(name):
            said = f"the variable {name}, which"
        else:
            hide(name)
            said = "a variable that"
        raise _invalid(f"sign.{key} names {said} is not set where this runs")
    hide(value)
    return value


def _file(path: object, key: str) -> bytes:
    name = str(path)
    if "-----BEGIN" in name or not name.isprintable():  # a key itself, which no log is to have
        hide(name)
        raise _invalid(
            f"sign.{key} was given a text in place of the path of a file: give the path, or name in"
            " sign.private_key_env a variable that holds a private key"
        )
    try:
        with open(os.path.expanduser(name), "rb") as file:
            return file.read(_LARGEST)
    except OSError as error:
        raise _invalid(f"sign.{key} {name} cannot be read ({error.strerror})") from None


def _invalid(message: str) -> InvalidOption:
    return InvalidOption(message, step="read the options", left="nothing was published")
