# SPDX-License-Identifier: Apache-2.0
"""Makes ``ansible_collections.mlops.triton`` the checkout, whichever environment runs the tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "ansible_collections/mlops/triton"


def import_from_checkout() -> None:
    """The editable installation does the same; this serves a bare ``pytest`` in an environment that lacks it."""
    link = ROOT / ".dev" / PACKAGE
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(ROOT, link.parent), target_is_directory=True)
    # First on the path: an installed collection must not be tested in place of this one.
    development = str(ROOT / ".dev")
    if development not in sys.path[:1]:
        sys.path.insert(0, development)


import_from_checkout()
