# SPDX-License-Identifier: Apache-2.0
"""The options of a policy as values; pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping

from ..domain.provenance import RequiredSignature
from ..errors import InvalidOption

_CODE = ("allowed", "refused")
_UNITS = {
    "": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KI": 1 << 10,
    "MI": 1 << 20,
    "GI": 1 << 30,
    "TI": 1 << 40,
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?\s*", re.IGNORECASE)
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_TRUST = ("public_keys", "ca_certificates", "identities", "sigstore", "trust_config")


def texts(name: str, value: object, what: str) -> tuple[str, ...] | None:
    """A list of texts; None where it is omitted. Raises InvalidOption for anything else."""
    if value is None:
        return None
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        raise _invalid(f"{name} is not a list of {what}")
    found = tuple(value)
    if not all(isinstance(one, str) for one in found):
        raise _invalid(f"{name} is not a list of {what}")
    return found


def folders(name: str, value: object) -> tuple[str, ...] | None:
    """Absolute paths in their shortest form."""
    found = texts(name, value, "absolute paths")
    for path in found or ():
        if not path.startswith("/") or "\0" in path:
            raise _invalid(f"{name} has {path!r}, which is not an absolute path")
    return (
        tuple(posixpath.normpath(f"/{path.lstrip('/')}") for path in found or ())
        if found is not None
        else None
    )


def digests(name: str, value: object) -> tuple[str, ...]:
    """SHA-256 digests as hexadecimal digits in lower case."""
    found = [
        (text, _DIGEST.fullmatch(text.strip().lower()))
        for text in texts(name, value, "SHA-256 digests") or ()
    ]
    for text, digest in found:
        if not digest:
            raise _invalid(
                f"{name} has {text!r}, which is not a SHA-256 digest (64 hexadecimal digits)"
            )
    return tuple(digest[1] for _text, digest in found if digest)


def code_rule(value: object) -> str:
    """What ``model_code`` says."""
    if value is None:
        return _CODE[0]
    if value not in _CODE:
        raise _invalid(f"model_code {value!r} is not one of {', '.join(_CODE)}")
    return str(value)


def required_signature(value: object) -> RequiredSignature | None:
    """What ``require_signature`` says; None where it is omitted."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) - {*_TRUST}:
        raise _invalid(f"require_signature is not a mapping of {', '.join(_TRUST)}")
    keys, authorities, identities = (
        texts(f"require_signature.{name}", value.get(name), "texts") or () for name in _TRUST[:3]
    )
    config = value.get("trust_config")
    if not isinstance(config, (str, type(None))):
        raise _invalid("require_signature.trust_config is not the path of a file")
    found = RequiredSignature(
        keys, authorities, identities, _sigstore(value.get("sigstore")), config
    )
    if authorities and not identities:
        raise _invalid(
            "require_signature has ca_certificates and no identities: name who may sign, as the"
            " authority may have issued certificates to others"
        )
    if identities and not authorities:
        raise _invalid(
            "require_signature has identities and no ca_certificates that vouch for them"
        )
    if not (keys or authorities or found.sigstore):
        raise _invalid(
            "require_signature names nobody: give public_keys, or ca_certificates and identities"
        )
    return found


def _sigstore(value: object) -> tuple[tuple[str, str], ...]:
    if value is None:
        return ()
    entries = value if isinstance(value, (list, tuple)) else [None]
    found = []
    for entry in entries:
        if (
            not isinstance(entry, Mapping)
            or set(entry) != {"identity", "issuer"}
            or not all(isinstance(one, str) and one for one in entry.values())
        ):
            raise _invalid("require_signature.sigstore is not a list of {identity, issuer}")
        found.append((entry["identity"], entry["issuer"]))
    return tuple(found)


def bytes_of(size: object) -> int:
    """``4096``, ``"500 MB"`` (a thousand thousands), ``"2GiB"`` as a number of bytes. Raises
    InvalidOption for anything else.
    """
    found = _SIZE.fullmatch(str(size)) if not isinstance(size, bool) else None
    if not found:
        raise _invalid(f"max_size {size!r} is not a number of bytes, nor one such as 500MB or 2GiB")
    return int(float(found[1]) * _UNITS[(found[2] or "").upper()])


def _invalid(message: str) -> InvalidOption:
    return InvalidOption(message, step="read the options", left="nothing was changed")
