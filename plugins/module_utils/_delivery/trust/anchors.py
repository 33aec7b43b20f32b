# SPDX-License-Identifier: Apache-2.0
"""What ``require_signature`` names: read once, so that the key that is named is the one that
verifies.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from ..domain.provenance import RequiredSignature
from ..domain.signers import Anchor, Anchors, certificates_in, public_key_in
from ..errors import InvalidOption

_LARGEST = 1 << 20


def read_anchors(required: RequiredSignature) -> Anchors:
    """The keys and certificates that are named.

    Raises:
        InvalidOption: one of them cannot be read, or is something else.
    """
    config = required.trust_config
    return Anchors(
        _each(required.public_keys, "public_keys", lambda pem, name: (public_key_in(pem, name),)),
        _each(required.ca_certificates, "ca_certificates", certificates_in),
        required.identities,
        required.sigstore,
        _read(config, f"require_signature.trust_config {config}").decode(errors="replace")
        if config is not None
        else None,
    )


def _each(
    given: Iterable[str], key: str, parse: Callable[[bytes, str], tuple[Anchor, ...]]
) -> tuple[Anchor, ...]:
    found: dict[str, Anchor] = {}
    for one in given:
        text = one.strip()
        is_text = "-----BEGIN" in text  # and not a path, which a sentence may quote
        name = f"require_signature.{key}" if is_text else f"require_signature.{key} {text}"
        for anchor in parse(text.encode() if is_text else _read(text, name), name):
            found[anchor.id] = anchor
    return tuple(found.values())


def _read(path: str, name: str) -> bytes:
    try:
        with open(os.path.expanduser(path), "rb") as file:
            data = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is no path"
        raise _invalid(
            f"{name} cannot be read ({said}): the host where the task runs needs the file, or give"
            " the PEM text itself"
        ) from None
    if len(data) > _LARGEST:
        raise _invalid(f"{name} has more than {_LARGEST} bytes")
    return data


def _invalid(message: str) -> InvalidOption:
    return InvalidOption(message, step="read the options", left="nothing was changed")
