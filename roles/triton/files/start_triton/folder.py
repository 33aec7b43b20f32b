# SPDX-License-Identifier: Apache-2.0
"""A repository in a folder: where its state is, what its records want, what killed runs left."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from _delivery.domain.marker import MARKER, Marker
from _delivery.errors import DeliveryError
from _delivery.repository import recovery
from _delivery.repository.state_store import INSIDE, StateStore

from .privileges import rights_of
from .settings import Settings
from .wanted import ModelFolder, Wanted, not_recovered, read_records, recovered


def find_state(settings: Settings) -> tuple[Path | None, list[str]]:
    """The folder of the state, and warnings about a marker that cannot be used.

    Records are only read here, so that a server starts with what is there even where the marker is
    damaged, or that of a newer version.
    """
    if settings.state_dir:
        return Path(settings.state_dir), []
    try:
        return Path(StateStore(settings.model_repository).path), []
    except DeliveryError as err:
        found = _state_despite_marker(os.path.abspath(settings.model_repository))
        then = f"the records in {found} are used" if found else "no model is loaded at the start"
        return found, [f"{err} For this start, {then}."]


def _state_despite_marker(repository: str) -> Path | None:
    """Where records lie. A marker that is understood names the only folder, reachable or not;
    another one may name it, and else it is one of the usual folders.
    """
    folders = [f"{repository}{INSIDE}", os.path.join(repository, INSIDE)]
    path = Path(repository, MARKER)
    try:
        marker = Marker.from_json(path.read_bytes(), str(path))
        folders = [os.path.normpath(os.path.join(repository, marker.state_dir))]
    except (OSError, DeliveryError):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            named = json.loads(path.read_text(encoding="utf-8"))["state_dir"]
            folders.insert(0, os.path.normpath(os.path.join(repository, named)))
    return next((Path(folder) for folder in folders if Path(folder, "records").is_dir()), None)


def wanted_models(settings: Settings) -> Wanted:
    state, warnings = find_state(settings)
    if state is None:
        return Wanted([], warnings)
    found = read_records(
        map(str, sorted((state / "records").glob("*.json"))),
        lambda path: Path(path).read_bytes(),
        lambda name: os.path.isdir(os.path.join(settings.model_repository, name)),
        lambda name: _model_folder(Path(settings.model_repository, name)),
    )
    return Wanted(found.names, warnings + found.warnings)


def _model_folder(folder: Path) -> ModelFolder:
    return ModelFolder(
        (folder / "config.pbtxt").read_bytes,
        lambda: [path.name for path in folder.iterdir() if path.is_dir()],
        lambda path: (folder / path).exists(),
    )


def recover(settings: Settings) -> list[str]:
    """Finish or undo what killed deployments left; returns one sentence per journal.

    A model of which a run holds the lock is left to that run. What goes wrong with one model is
    said, and stops neither the others nor the start.
    """
    state, _warnings = find_state(settings)
    names = sorted(path.stem for path in (state / "journals").glob("*.json")) if state else []
    if state is None or not names:
        return []
    with rights_of(state):
        return [_recover_model(settings.model_repository, state, name) for name in names]


def _recover_model(repository: str, state: Path, name: str) -> str:
    try:
        store = StateStore(repository, str(state))
        with store.lock(name, 0):
            return recovered(name, recovery.recover(store, name, server_starts=True))
    except (DeliveryError, OSError) as err:
        return not_recovered(name, err)
