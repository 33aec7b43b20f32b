# SPDX-License-Identifier: Apache-2.0
"""What of a deployment record a start needs: the model's name, and whether it is wanted."""

from __future__ import annotations

import json
from typing import NamedTuple

from _delivery.errors import InvalidOption
from _delivery.names import check_model_name

from .failures import reason


class Wanted(NamedTuple):
    """Names of models to load at a start, and sentences about what does not fit."""

    names: list[str]
    warnings: list[str]


def read_record(text: str | bytes) -> tuple[str, bool]:
    """(model name, is it wanted loaded) of one record.

    Of any schema, because a newer version of the collection keeps these two keys: a restart in the
    middle of an upgrade loads what was deployed. Raises ValueError or KeyError for a record that
    cannot be used.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    try:
        name = check_model_name(content["name"])
    except InvalidOption:
        raise ValueError(f"{content['name']!r} is not a model name") from None
    wanted = content["wanted"]
    if wanted not in ("loaded", "unloaded"):
        raise ValueError(f"wanted is {wanted!r}, neither loaded nor unloaded")
    return name, wanted == "loaded"


def skipped(place: object, err: Exception) -> str:
    return f"Record {place} is skipped ({reason(err)}): its model is not loaded at the start."


def not_recovered(name: str, why: object) -> str:
    return f"model '{name}': what an interrupted run left is not recovered ({why})"


def recovered(name: str, done: str | None) -> str:
    return f"model '{name}': {done or 'nothing was left to recover'}"
