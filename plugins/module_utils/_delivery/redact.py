# SPDX-License-Identifier: Apache-2.0
"""Text without credentials, for messages."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote

# Up to the last @ before the path, as clients read it: a password may have an @ and quotes.
_CREDENTIALS = re.compile(r"(?<=//)[^/\s]+@")
# Signed addresses of object stores, and keys that are part of a query.
_SIGNED = re.compile(
    r"(?P<key>[?&;](?:amp;)?[\w.%-]*?"
    r"(?:sig|signature|token|secret|password|passwd|credential|key|keyid)=)[^&;\s'\"<>#]+",
    re.IGNORECASE,
)

_HIDDEN: set[str] = set()
_SHORTEST = 4
"""Characters of a secret; with fewer, words would be hidden that are none."""


def hide(secret: str | None) -> None:
    """From now on, ``mask`` takes it away."""
    if secret and len(secret) >= _SHORTEST:
        _HIDDEN.add(secret)


def hide_secrets_of(address: str) -> None:
    """A library that is given an address may quote a part of it that is no address any more."""
    for secret in secrets_in(address):
        hide(secret)


def mask(text: str) -> str:
    """``text`` without the user:password@ of its URLs, without what signs them, without MLflow's
    own secrets, and without hidden ones.
    """
    text = _SIGNED.sub(r"\g<key>***", _CREDENTIALS.sub("***@", text))
    variables = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
    for secret in sorted({*_HIDDEN, *(os.environ.get(one, "") for one in variables)}, key=len)[
        ::-1
    ]:
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, "***")
    return text


def secrets_in(text: str) -> Iterator[str]:
    """What ``mask`` takes out of the addresses in a text: passwords as they are written and as they
    are meant, and what signs an address.
    """
    for found in _CREDENTIALS.finditer(text):
        _user, colon, password = found[0][:-1].partition(":")
        if colon and password:
            yield from (password, unquote(password))
    for found in _SIGNED.finditer(text):
        value = found[0][len(found["key"]) :]
        yield from (value, unquote(value))


def reason(error: BaseException) -> str:
    """The innermost cause that says something, in one line and without credentials."""
    said = error
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, OSError) and current.strerror:
            return current.strerror.lower() if current.strerror[1:].islower() else current.strerror
        said = current
        current = current.__cause__ or current.__context__
    text = mask(" ".join(str(said).split())) or type(said).__name__
    return text if len(text) <= 300 else text[:300] + "…"
