# SPDX-License-Identifier: Apache-2.0
"""What ``require_signature`` names: read once, so that the key that is named is the one that
verifies.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from ..domain.signers import Anchor, Anchors, certificates_in, public_key_in
from ..errors import InvalidOption

_OPTION = "require_signature"
_KEYS = {"public_keys", "ca_certificates", "identities", "sigstore", "trust_config"}
_LARGEST = 1 << 20


def read_anchors(given: object) -> Anchors | None:
    """Whose signatures are trusted; None where none is asked for.

    Raises:
        InvalidOption: what is given trusts nobody, or cannot be read.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise _invalid("is not a mapping such as {public_keys: [/etc/keys/release.pub]}")
    if unknown := sorted(str(key) for key in given if key not in _KEYS):
        raise _invalid(f"has no key {unknown[0]}")
    keys = _each(given, "public_keys", lambda pem, name: (public_key_in(pem, name),))
    authorities = _each(given, "ca_certificates", certificates_in)
    identities = tuple(str(one) for one in _list(given, "identities"))
    if bool(authorities) != bool(identities):
        raise _invalid(
            "needs identities together with ca_certificates: an authority may have issued"
            " certificates to anybody"
        )
    sigstore = tuple(_sigstore(one) for one in _list(given, "sigstore"))
    if not keys and not authorities and not sigstore:
        raise _invalid("has neither public_keys nor ca_certificates nor sigstore: it trusts nobody")
    config = given.get("trust_config")
    if config is not None and not sigstore:
        raise _invalid("has a trust_config, which only signers of sigstore need")
    text = _read(str(config), f"{_OPTION}.trust_config").decode() if config is not None else None
    return Anchors(keys, authorities, identities, sigstore, text)


def _each(
    given: Mapping[str, object],
    key: str,
    parse: Callable[[bytes, str], tuple[Anchor, ...]],
) -> tuple[Anchor, ...]:
    found: dict[str, Anchor] = {}
    for one in _list(given, key):
        text = str(one).strip()
        is_text = text.startswith("-----BEGIN")
        name = f"{_OPTION}.{key}" if is_text else f"{_OPTION}.{key} {text}"
        for anchor in parse(text.encode() if is_text else _read(text, name), name):
            found[anchor.id] = anchor
    return tuple(found.values())


def _list(given: Mapping[str, object], key: str) -> list[object]:
    found = given.get(key)
    if found is None:
        return []
    if isinstance(found, str):
        return [found]
    if not isinstance(found, (list, tuple)):
        raise _invalid(f"has {key}, which is not a list")
    return list(found)


def _sigstore(given: object) -> tuple[str, str]:
    if not isinstance(given, Mapping) or not (given.get("identity") and given.get("issuer")):
        raise _invalid("needs identity and issuer in each entry of sigstore")
    return str(given["identity"]), str(given["issuer"])


def _read(path: str, name: str) -> bytes:
    try:
        with open(os.path.expanduser(path), "rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise InvalidOption(
            f"{name} cannot be read ({error.strerror}): the host where the task runs needs the"
            " file, or give the PEM text itself",
            step="read the options",
            left="nothing was changed",
        ) from None
    if len(data) > _LARGEST:
        raise InvalidOption(
            f"{name} has more than {_LARGEST} bytes",
            step="read the options",
            left="nothing was changed",
        )
    return data


def _invalid(message: str) -> InvalidOption:
    return InvalidOption(
        f"{_OPTION} {message}", step="read the options", left="nothing was changed"
    )
