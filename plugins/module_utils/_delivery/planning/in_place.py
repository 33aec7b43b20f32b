# SPDX-License-Identifier: Apache-2.0
"""Whether Triton applies a change of a configuration without initialising the model again."""

from __future__ import annotations

from ..domain import config_pbtxt
from ..domain.config_pbtxt import config_for
from ..domain.observed import ObservedModel
from ..domain.record import Record
from ..outside import JsonObject


def applied_in_place(
    observed: ObservedModel, old: Record, author: str, request: JsonObject
) -> bytes | None:
    """The configuration under the old deploy id, where Triton applies the change without
    initialising again.
    """
    current = observed.config
    # What a server loaded of touched files is not known.
    if observed.touched_files or current is None:
        return None
    if config_pbtxt.deploy_id_of(current) != old.deploy_id:
        return None
    same = config_for(author, old.name, old.deploy_id, request)
    return same if config_pbtxt.applied_in_place(current, same) else None
