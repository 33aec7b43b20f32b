# SPDX-License-Identifier: Apache-2.0
"""A repository in a folder: where its state is, what its records want, what killed runs left."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from _delivery import disk, rights
from _delivery.domain.marker import MARKER, Marker
from _delivery.errors import DeliveryError
from _delivery.repository import recovery
from _delivery.repository.state_store import (
    INSIDE,
    StateStore,
    read_own,
    whom_root_acts_as,
)

from .settings import Settings
from .wanted import ModelFolder, Wanted, not_recovered, read_records, recovered


def find_state(settings: Settings) -> tuple[Path | None, list[str]]:
    """The folder of the state, and warnings about a marker that cannot be used.

    Records are only read here, so that a server starts with what is there even where the marker is
    damaged, or that of a newer version.
    """
    if settings.state_dir:
        return Path(settings.state_dir), []
    repository = os.path.abspath(settings.model_repository)
    try:
        return Path(StateStore(repository).path), []
    except DeliveryError as err:
        found = _state_despite_marker(repository)
        if found is not None and _is_refused(repository, found):
            found = None
        then = f"the records in {found} are used" if found else "no model is loaded at the start"
        return found, [f"{err} For this start, {then}."]


def _is_refused(repository: str, state: Path) -> bool:
    """True where root must not believe what lies there."""
    try:
        whom_root_acts_as(repository, str(state))
    except DeliveryError:
        return True
    return False


def _state_despite_marker(repository: str) -> Path | None:
    """Where records lie. A marker that is understood names the only folder, reachable or not;
    another one may name it, and else it is one of the usual folders.
    """
    folders = [f"{repository}{INSIDE}", os.path.join(repository, INSIDE)]
    path = os.path.join(repository, MARKER)
    body = b""
    try:
        body = disk.read_small(path)
        marker = Marker.from_json(body, path)
        folders = [os.path.normpath(os.path.join(repository, marker.state_dir))]
    except (OSError, DeliveryError):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            named = json.loads(body)["state_dir"]
            folders.insert(0, os.path.normpath(os.path.join(repository, named)))
    return next(
        (Path(one) for one in folders if disk.is_folder(os.path.join(one, "records"))), None
    )


@contextlib.contextmanager
def _rights(repository: str, state: Path) -> Iterator[None]:
    """Root acts as the user to whom repository and state belong, who would else find files of root
    in it that he cannot remove. Raises DeliveryError where root must not believe what lies there.
    """
    owner = whom_root_acts_as(repository, str(state))
    with rights.acting_as(*owner) if owner else contextlib.nullcontext():
        yield


def wanted_models(settings: Settings) -> Wanted:
    state, warnings = find_state(settings)
    if state is None:
        return Wanted([], warnings)
    repository = settings.model_repository
    try:
        with _rights(repository, state):
            folder = state / "records"
            found = read_records(
                [str(folder / name) for name in disk.entries(str(folder)) if _is_json(name)],
                lambda path: read_own(path) or b"",
                lambda name: disk.is_folder(os.path.join(repository, name)),
                lambda name: _model_folder(os.path.join(repository, name)),
            )
    except (DeliveryError, OSError) as err:
        said = f"The records in {state} are not used ({err}): no model is loaded at the start."
        return Wanted([], [*warnings, said])
    return Wanted(found.names, warnings + found.warnings)


def _is_json(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")


def _model_folder(folder: str) -> ModelFolder:
    def place(path: str) -> str:
        return os.path.join(folder, path)

    return ModelFolder(
        lambda: disk.read_small(place("config.pbtxt")),
        lambda: [name for name in disk.entries(folder) if disk.is_folder(place(name))],
        lambda path: disk.is_there(place(path)),
    )


def recover(settings: Settings) -> list[str]:
    """Finish or undo what killed deployments left; returns one sentence per journal.

    A model of which a run holds the lock is left to that run. What goes wrong with one model is
    said, and stops neither the others nor the start.
    """
    state, _warnings = find_state(settings)
    if state is None:
        return []
    try:
        with _rights(settings.model_repository, state):
            found = disk.entries(str(state / "journals"))
            names = [name[: -len(".json")] for name in found if _is_json(name)]
            return [_recover_model(settings.model_repository, state, name) for name in names]
    except (DeliveryError, OSError) as err:
        return [f"what interrupted runs left is not recovered ({err})"]


def _recover_model(repository: str, state: Path, name: str) -> str:
    try:
        store = StateStore(repository, str(state))
        with store.lock(name, 0):
            return recovered(name, recovery.recover(store, name, server_starts=True))
    except (DeliveryError, OSError) as err:
        return not_recovered(name, err)
