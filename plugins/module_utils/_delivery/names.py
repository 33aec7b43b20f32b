# SPDX-License-Identifier: Apache-2.0
"""Names of models in a Triton repository."""

from __future__ import annotations

import re

from .errors import InvalidOption

LONGEST = 200
_ALLOWED = re.compile(r"[A-Za-z0-9._@-]+")


def check_model_name(name: object) -> str:
    """Return ``name`` if it can be a folder and a part of Triton's URLs (which Triton does not
    percent-decode).

    Raises:
        InvalidOption: empty, over 200 characters, ``.``, ``..``, ours, or with any character beyond
            ``A-Za-z0-9._@-``.
    """
    if not isinstance(name, str) or not name:
        raise InvalidOption("the name is empty", step="check the name", left="nothing was changed")
    shown = name if len(name) <= LONGEST else f"{name[:40]}…"
    if len(name) > LONGEST:
        reason = f"has {len(name)} characters, at most {LONGEST} are possible"
    elif name in (".", "..") or name.startswith(".mlops-triton"):
        reason = "is reserved"
    elif not _ALLOWED.fullmatch(name):
        reason = (
            "has a character that Triton's URLs cannot carry: letters, digits and . _ @ - are"
            " possible"
        )
    else:
        return name
    raise InvalidOption(
        f"the name {reason}", model=shown, step="check the name", left="nothing was changed"
    )
