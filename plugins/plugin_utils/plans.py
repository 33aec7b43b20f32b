# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the playbooks read in the results of ``triton_models``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Entry = Mapping[str, Any]


def changes_serving(entry: Entry) -> bool:
    """Whether files or servers are touched: more than the record, and what the registry says.

    Args:
        entry: of one model, with its ``actions``. A release before this one has no ``noted``.
    """
    told = {*(entry.get("reported") or ()), *(entry.get("noted") or ())}
    actions = entry.get("actions") or ()
    return bool(entry.get("changed")) and (not actions or not set(actions) <= told)
