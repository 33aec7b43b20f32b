# SPDX-License-Identifier: Apache-2.0
"""Keys and certificates with which a test signs models, and the command that others sign with."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)
_PEM = serialization.Encoding.PEM


class Key:
    """Writes ``<name>.pem`` (private) and ``<name>.pub`` into a folder."""

    def __init__(
        self,
        folder: Path,
        name: str,
        password: str | None = None,
        curve: ec.EllipticCurve | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.private = ec.generate_private_key(curve or ec.SECP256R1())
        self.file, self.public = str(folder / f"{name}.pem"), str(folder / f"{name}.pub")
        self.text = self.private.private_bytes(
            _PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password.encode())
            if password
            else serialization.NoEncryption(),
        ).decode()
        Path(self.file).write_text(self.text)
        Path(self.file).chmod(0o600)
        Path(self.public).write_bytes(
            self.private.public_key().public_bytes(
                _PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    @property
    def id(self) -> str:
        """As anybody has it from OpenSSL."""
        made = subprocess.run(
            ["openssl", "pkey", "-pubin", "-in", self.public], check=True, capture_output=True
        )
        digest = subprocess.run(
            ["openssl", "dgst", "-sha256", "-r"], input=made.stdout, check=True, capture_output=True
        )
        return digest.stdout.decode().split()[0]


class SigningAuthority:
    """Issues certificates for signers. ``file`` is its own."""

    def __init__(self, folder: Path, name: str, issuer: SigningAuthority | None = None) -> None:
        self.folder, self.key = folder, Key(folder, name)
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = _certificate(
            self.name,
            self.key,
            issuer.name if issuer else self.name,
            issuer.key if issuer else None,
            True,
        )
        self.file = str(folder / f"{name}.crt")
        Path(self.file).write_bytes(made.public_bytes(_PEM))
        self.fingerprint = made.fingerprint(hashes.SHA256()).hex()

    def issue(
        self, name: str, identity: str, may_sign: bool = True, days: int = 1
    ) -> tuple[Key, str]:
        """A key, and a certificate for it: of ``name``, and ``identity`` as an address of e-mail.

        Args:
            days: for which it is valid; a negative one is over.
        """
        key = Key(self.folder, name)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = _certificate(subject, key, self.name, self.key, False, identity, may_sign, days)
        file = self.folder / f"{name}.crt"
        file.write_bytes(made.public_bytes(_PEM))
        return key, str(file)

    def certify(self, key: Key, identity: str) -> bytes:
        """A certificate for a key, in DER."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity)])
        made = _certificate(subject, key, self.name, self.key, False, identity)
        return made.public_bytes(serialization.Encoding.DER)


def _certificate(
    subject: x509.Name,
    key: Key,
    issuer: x509.Name,
    issuer_key: Key | None,
    is_authority: bool,
    identity: str | None = None,
    may_sign: bool = True,
    days: int = 1,
) -> x509.Certificate:
    end = datetime.datetime.now(datetime.timezone.utc) + days * _DAY
    usage = x509.KeyUsage(
        digital_signature=may_sign and not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - (3 if is_authority else 2) * _DAY)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
    )
    if identity:
        names = x509.SubjectAlternativeName([x509.RFC822Name(identity)])
        made = made.add_extension(names, critical=False)
    return made.sign((issuer_key or key).private, hashes.SHA256())


def sign_with_command(folder: Path, *arguments: str, how: str = "key") -> Path:
    """Sign a folder as somebody does who has OpenSSF's command and not this collection; the
    signature lies in the folder.
    """
    signature = folder / "model.sig"
    command = str(Path(sys.executable).parent / "model_signing")
    subprocess.run(
        [command, "sign", how, str(folder), "--signature", str(signature), *arguments],
        check=True,
        capture_output=True,
    )
    return signature
