# SPDX-License-Identifier: Apache-2.0
"""Where the files of a new version go: a logged model in MLflow 3, a run in MLflow 2.

A location carries its publisher's process, so that the next publication of the model can tell one
that was killed from one at work.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from ..errors import ArtifactError, DeliveryError, RegistryError
from ..process import has_ended, identity
from ..registry.connection import UNKNOWN_ENDPOINT, code_of
from ..registry.registry import Registry

ARTIFACT_PATH = "triton"
PUBLISHER = "triton.publisher"
_OLD_SECONDS = 24 * 3600
_VERSIONS_TAG = "mlflow.modelVersions"
_NO_LOGGED_MODEL_NAME = re.compile(r"[/:.%\"']")


@dataclass(frozen=True)
class UploadLocation:
    """An artifact location, and what a version of it is made from."""

    root: str
    source: str
    model_id: str | None
    run_id: str | None


def make_location(
    registry: Registry, name: str, experiment_name: str | None
) -> tuple[UploadLocation, int]:
    """Make a location for the files of a version of ``name``.

    Returns:
        The location, and how many were given up that killed publishers had left.
    """
    experiment = _experiment(registry, experiment_name)
    left = _recover(registry, experiment, name)
    client = registry.client
    if hasattr(client, "create_logged_model"):
        try:
            model = registry.change(
                "create logged model",
                name,
                client.create_logged_model,
                experiment,
                name=_logged_name(name),
                params={PUBLISHER: _publisher()},
            )
            return (
                UploadLocation(
                    model.artifact_location, f"models:/{model.model_id}", model.model_id, None
                ),
                left,
            )
        except RegistryError as error:
            if code_of(error) != UNKNOWN_ENDPOINT:
                raise
    run = registry.change(
        "create run",
        name,
        client.create_run,
        experiment,
        run_name=_run_name(name),
        tags={PUBLISHER: _publisher()},
    )
    root = f"{run.info.artifact_uri}/{ARTIFACT_PATH}"
    return UploadLocation(root, root, None, run.info.run_id), left


def _publisher() -> str:
    return " ".join(identity()) or f"unknown {os.getpid()}"


def _logged_name(name: str) -> str:
    return _NO_LOGGED_MODEL_NAME.sub("_", name)


def _run_name(name: str) -> str:
    return f"publish {name}"


def _recover(registry: Registry, experiment: str, name: str) -> int:
    """Give up the locations of publishers that were killed. One on another host is left alone for a
    day.
    """
    given_up = 0
    with suppress(DeliveryError):
        for location, publisher, created in [*_unfinished(registry, experiment, name)]:
            if has_ended(publisher.split(" ")) or time.time() - created / 1000 > _OLD_SECONDS:
                close_location(registry, location, whole=False)
                given_up += 1
    return given_up


def _unfinished(
    registry: Registry, experiment: str, name: str
) -> Iterator[tuple[UploadLocation, str, int]]:
    """Places without a version, with their publisher and the milliseconds of 1970 at which they
    were made.
    """
    client = registry.client
    if hasattr(client, "search_logged_models"):
        try:
            found = registry.ask(
                "look for unfinished publications",
                client.search_logged_models,
                [experiment],
                filter_string=f"name = '{_logged_name(name)}'",
            )
        except RegistryError as error:
            if code_of(error) != UNKNOWN_ENDPOINT:
                raise
        else:
            for model in found:
                # One that is READY and has no version was killed between the two.
                if PUBLISHER in (model.params or {}) and _VERSIONS_TAG not in (model.tags or {}):
                    yield (
                        UploadLocation(model.artifact_location, "", model.model_id, None),
                        model.params[PUBLISHER],
                        model.creation_timestamp,
                    )
            return
    quote = '"' if "'" in name else "'"
    question = (
        f"attributes.status = 'RUNNING' and attributes.run_name = {quote}{_run_name(name)}{quote}"
    )
    for run in registry.ask(
        "look for unfinished publications", client.search_runs, [experiment], question
    ):
        if PUBLISHER in run.data.tags:
            yield (
                UploadLocation("", "", None, run.info.run_id),
                run.data.tags[PUBLISHER],
                run.info.start_time,
            )


def _experiment(registry: Registry, name: str | None) -> str:
    """An experiment that was named, or MLflow's environment names, or the default one."""
    if name is None and os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return os.environ["MLFLOW_EXPERIMENT_ID"]
    name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if name is None:
        return "0"
    found = registry.ask("find the experiment", registry.client.get_experiment_by_name, name)
    if found is None:
        return str(
            registry.change("create experiment", name, registry.client.create_experiment, name)
        )
    if found.lifecycle_stage != "active":
        raise ArtifactError(f"the experiment '{name}' was deleted", step="publish")
    return str(found.experiment_id)


def close_location(registry: Registry, location: UploadLocation, *, whole: bool) -> None:
    """Say that all files are there, or give the place up."""
    client = registry.client
    if location.model_id is not None:
        registry.change(
            "finalize",
            location.model_id,
            client.finalize_logged_model,
            location.model_id,
            "READY" if whole else "FAILED",
        )
        if not whole:
            registry.change(
                "delete logged model",
                location.model_id,
                client.delete_logged_model,
                location.model_id,
            )
    else:
        registry.change(
            "finalize",
            location.run_id or "",
            client.update_run,
            location.run_id,
            "FINISHED" if whole else "FAILED",
        )
        if not whole:
            registry.change("delete run", location.run_id or "", client.delete_run, location.run_id)
