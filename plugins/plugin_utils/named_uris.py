# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which entries of a list name what may move in the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import (
    ModelUri,
    parse_model_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import InvalidOption


def named_uri_of(model: Mapping[str, Any]) -> ModelUri | None:
    """An entry's URI, where it is deployed from it and it names an alias or the latest version."""
    if (model.get("state") or "present") not in ("present", "unloaded"):
        return None
    try:
        uri = parse_model_uri(str(model.get("model_uri") or ""))
    except InvalidOption:
        return None  # The module says what is wrong, for each model.
    return uri if uri.kind in ("alias", "latest") else None
