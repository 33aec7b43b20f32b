# SPDX-License-Identifier: Apache-2.0
"""Which models the deployment records want at a start, and sentences on what killed runs left."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from _delivery.domain.fields import read_json
from _delivery.domain.record import read_wanted
from _delivery.errors import DeliveryError

from .failures import reason


class Wanted(NamedTuple):
    """Names of models to load at a start, and sentences about what does not fit."""

    names: list[str]
    warnings: list[str]


def read_records(
    places: Iterable[str], read: Callable[[str], bytes], is_there: Callable[[str], bool]
) -> Wanted:
    """What the records at ``places`` want loaded, of the models that are in the repository.

    A record that cannot be read is skipped, and stops neither the others nor the start.
    """
    names, warnings = set(), []
    for place in places:
        try:
            name, loaded = read_wanted(read_json(read(place)))
        except (OSError, ValueError, DeliveryError) as err:
            warnings.append(
                f"Record {place} is skipped ({reason(err)}): its model is not loaded at the start."
            )
            continue
        if loaded and is_there(name):
            names.add(name)
        elif loaded:
            warnings.append(
                f"Model {name} is wanted by its record, but it is not in the repository."
            )
    return Wanted(sorted(names), warnings)


def not_recovered(name: str, why: object) -> str:
    return f"model '{name}': what an interrupted run left is not recovered ({why})"


def recovered(name: str, done: str | None) -> str:
    return f"model '{name}': {done or 'nothing was left to recover'}"
