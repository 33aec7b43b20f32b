# SPDX-License-Identifier: Apache-2.0
"""Which models the deployment records want at a start, and sentences on what killed runs left."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from _delivery.domain import pbtxt
from _delivery.domain.backends import Loading
from _delivery.domain.fields import read_json
from _delivery.domain.record import read_wanted
from _delivery.errors import DeliveryError

from .failures import reason


class Wanted(NamedTuple):
    """Names of models to load at a start, and sentences about what does not fit."""

    names: list[str]
    warnings: list[str]


class ModelFolder(NamedTuple):
    """What of a model in the repository is looked at before a start.

    ``config`` gives the bytes of config.pbtxt, ``entries`` the names in the folder, and ``has``
    tells whether it has a file of a path.
    """

    config: Callable[[], bytes]
    entries: Callable[[], Iterable[str]]
    has: Callable[[str], bool]


def read_records(
    places: Iterable[str],
    read: Callable[[str], bytes],
    is_there: Callable[[str], bool],
    folder: Callable[[str], ModelFolder],
) -> Wanted:
    """What the records at ``places`` want loaded, of the models that are in the repository.

    A record that cannot be read is skipped, and stops neither the others nor the start.
    """
    names, warnings = set(), []
    for place in places:
        try:
            record = read(place)
            name, loaded = read_wanted(read_json(record))
        except (OSError, ValueError, DeliveryError) as err:
            warnings.append(
                f"Record {place} is skipped ({reason(err)}): its model is not loaded at the start."
            )
            continue
        if loaded and is_there(name):
            # Models of no other backend make Triton wait.
            lacking = why_without_end(folder(name)) if b"python" in record else None
            if lacking:
                warnings.append(f"Model {name} is left out: {lacking}")
            else:
                names.add(name)
        elif loaded:
            warnings.append(
                f"Model {name} is wanted by its record, but it is not in the repository."
            )
    return Wanted(sorted(names), warnings)


def why_without_end(model: ModelFolder) -> str | None:
    """Why Triton would wait for a model without end, and not answer until then: the file of a model
    in Python is missing (Triton 2.51). None for any other model.
    """
    try:
        text = pbtxt.decode(model.config())
        loading = Loading.read(pbtxt.read_fields(text.lstrip("\ufeff")))
    except (OSError, ValueError, pbtxt.TextRefused):
        return None  # Triton says what is wrong with it, and goes on
    if loading.backend != "python":
        return None
    versions = {int(name) for name in model.entries() if name.isdigit() and name[0] != "0"}
    paths = [f"{version}/{name}" for version in versions for name in loading.needed]
    lacking = loading.lacking(versions, [path for path in paths if model.has(path)])
    if lacking is None:
        return None
    return (
        f"version folder {lacking} has no {loading.needed[0]}, for which Triton would wait without"
        " end. Deploy it again."
    )


def not_recovered(name: str, why: object) -> str:
    return f"model '{name}': what an interrupted run left is not recovered ({why})"


def recovered(name: str, done: str | None) -> str:
    return f"model '{name}': {done or 'nothing was left to recover'}"
