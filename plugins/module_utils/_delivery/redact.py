# SPDX-License-Identifier: Apache-2.0
"""Text without credentials, for messages."""

from __future__ import annotations

import os
import re

# Up to the last @ before the path, as clients read it: a password may have an @ and quotes.
_CREDENTIALS = re.compile(r"(?<=//)[^/\s]+@")


_HIDDEN: set[str] = set()
_SHORTEST = 4
"""Characters of a secret; with fewer, words would be hidden that are none."""


def hide(secret: str | None) -> None:
    """From now on, ``mask`` takes it away."""
    if secret and len(secret) >= _SHORTEST:
        _HIDDEN.add(secret)


def mask(text: str) -> str:
    """``text`` without the user:password@ of its URLs, without MLflow's own secrets, and without
    hidden ones.
    """
    text = _CREDENTIALS.sub("***@", text)
    variables = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
    for secret in sorted({*_HIDDEN, *(os.environ.get(one, "") for one in variables)}, key=len)[
        ::-1
    ]:
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, "***")
    return text


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
