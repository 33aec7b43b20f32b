# SPDX-License-Identifier: Apache-2.0
"""Names of models in a Triton repository."""

from __future__ import annotations

import re

from .errors import InvalidOption

LONGEST = 200
_CANDIDATE = ".mlops-candidate"
# The words that the tests of NVIDIA's MLflow plugin look for.
_EMPTY = "Model name cannot be empty. Please enter a valid name to deploy."
_PATH = "Path traversal is not allowed in model's name"
_ALLOWED = re.compile(r"[A-Za-z0-9._@-]+")


def candidate_of(name: str) -> str:
    """Under which a new deployment of a model is proven before it takes that one's place. One
    fixed name: Triton keeps something of each name that was ever loaded.
    """
    return f"{name}{_CANDIDATE}"


def is_candidate(name: str) -> bool:
    """True of a name that no model of a user has."""
    return name.endswith(_CANDIDATE)


def check_model_name(name: object) -> str:
    """Return ``name`` if it can be a folder and a part of Triton's URLs (which Triton does not
    percent-decode).

    Raises:
        InvalidOption: empty, over 200 characters, ``.``, ``..``, ours, or with any character beyond
            ``A-Za-z0-9._@-``.
    """
    if not isinstance(name, str) or not name.strip():
        raise InvalidOption(_EMPTY, step="check the name", left="nothing was changed")
    shown = name if len(name) <= LONGEST else f"{name[:40]}…"
    if len(name) > LONGEST:
        reason = f"has {len(name)} characters, at most {LONGEST} are possible"
    elif "/" in name or "\\" in name or name in (".", ".."):
        raise InvalidOption(
            f"{_PATH}: {shown} (letters, digits and . _ @ - are possible)",
            model=shown,
            step="check the name",
            left="nothing was changed",
        )
    elif name.startswith(".mlops-triton") or is_candidate(name):
        reason = "is reserved"
    elif name != name.strip():
        reason = "begins or ends with a space"
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
