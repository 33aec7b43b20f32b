# SPDX-License-Identifier: Apache-2.0
"""A registry names no place on the host of the models, unless the operator listed its folder: a
real MLflow whose database somebody changed, or which somebody misuses.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.mlflow_deployments import TritonDeploymentClient
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.places import (
    ArtifactPlaces,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import DeliveryError
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from mlflow.exceptions import MlflowException
from support import models
from support.deliveries import deliver_model, publish_model, target_of
from support.modules import run_module
from support.servers import ROOT, MLflow, Triton, http

SECRET = b"only root may read this"


class Misused:
    """A registry in which somebody says that a version's files are elsewhere."""

    def __init__(self, mlflow: MLflow, triton: Triton, folder: Path) -> None:
        self.mlflow = mlflow
        self.triton = triton
        # A model's folder as an artifact holds it, so that nothing but its place can be refused.
        self.place = folder / "private"
        self.name = f"misused-{folder.name}"
        sample = models.make_onnx(folder, self.name)
        self.place.mkdir()
        shutil.copytree(sample.folder, self.place / "network")
        (self.place / "MLmodel").write_text("flavors:\n  triton:\n    data: network\n")
        self.secret = self.place / "network" / "secret"
        self.secret.write_bytes(SECRET)
        self.secret.chmod(0o600)
        registry = Registry(mlflow.url, 60)
        publish_model(registry, self.name, sample.folder)
        self.model_id = registry.version_info(self.name, 1).model_id

    def change(self, statement: str, *values: object) -> None:
        """In the database of the registry."""
        with contextlib.closing(sqlite3.connect(self.mlflow.database, timeout=30)) as database:
            assert database.execute(statement, values).rowcount
            database.commit()

    def say_source(self, source: str) -> str:
        """What the registry says of the version; returns its URI."""
        self.change(
            "UPDATE model_versions SET source = ?, storage_location = ? WHERE name = ?",
            source,
            source,
            self.name,
        )
        return f"models:/{self.name}/1"

    def make_run(self, artifact_uri: str) -> str:
        """A run of which the registry says where its artifacts are."""
        status, said = http(f"{self.mlflow.url}/api/2.0/mlflow/runs/create", {"experiment_id": "0"})
        assert status == 200
        run_id = str(said["run"]["info"]["run_id"])
        self.change("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", artifact_uri, run_id)
        return run_id

    def say_location(self, place: str) -> str:
        """What the registry says of the logged model of the version; returns its URI."""
        self.change(
            "UPDATE logged_models SET artifact_location = ? WHERE model_id = ?",
            place,
            self.model_id,
        )
        return f"models:/{self.model_id}"

    def deliver(self, uri: str, *, check: bool, **options: Any) -> Any:
        return deliver_model(self.target(**options), self.name, check=check, model_uri=uri)

    def target(self, **options: Any) -> Target:
        return target_of(self.triton, self.mlflow, **options)

    @property
    def options(self) -> dict[str, Any]:
        """Of a module or of the plugin."""
        return {
            "model_repository": str(self.triton.repository),
            "triton_url": self.triton.url,
            "tracking_uri": self.mlflow.url,
            "timeout": 60,
        }

    def refused(self, uri: str) -> str:
        """The sentence; in a run and in check mode, and nothing was copied."""
        said = []
        for check in (True, False):
            error = self.deliver(uri, check=check).error
            assert isinstance(error, DeliveryError)
            said.append(error.message)
        assert said[0] == said[1]
        assert not self.copies()
        return said[0]

    def copies(self) -> list[Path]:
        return [
            path
            for path in self.triton.repository.parent.rglob("*")
            if path.is_file() and not path.is_symlink() and path.stat().st_size == len(SECRET)
            if path.read_bytes() == SECRET
        ]


@pytest.fixture(scope="module")
def misused(mlflow: MLflow, triton: Triton, tmp_path_factory: pytest.TempPathFactory) -> Misused:
    return Misused(mlflow, triton, tmp_path_factory.mktemp("misused"))


@pytest.fixture
def removed(misused: Misused) -> Iterator[None]:
    """What the test deploys is removed again."""
    yield
    assert deliver_model(misused.target(), misused.name, state="absent").error is None


SPELLINGS = {
    "file URL": "file://{place}",
    "path": "{place}",
    "capitals": "FILE://{place}",
    "localhost": "file://localhost{place}",
    "one slash": "file:{place}",
    "percent": "file://{percent}",
    "trailing slash": "{place}/",
}
DISGUISES = {
    "dots": ("file://{place}/../private", "has '..' in it"),
    "encoded dots": ("file://{place}/%2e%2e/private", "has '..' in it"),
    "two slashes": ("/{place}", "is no absolute path"),
    "relative": ("file:private", "is no absolute path"),
    "another host": ("file://elsewhere{place}", "names the host elsewhere"),
    "unknown kind": ("local://{place}", "'local:' are not read"),
    "dbfs": ("dbfs:{place}", "'dbfs:' are not read"),
}


def spelt(form: str, place: Path) -> str:
    percent = "".join(char if char == "/" else f"%{ord(char):02x}" for char in str(place))
    return form.format(place=place, percent=percent)


def test_version_that_leads_to_itself_is_refused(misused: Misused) -> None:
    uri = f"models:/{misused.name}/1"
    assert "those of that version itself" in misused.refused(misused.say_source(uri))


@pytest.mark.parametrize("form", SPELLINGS.values(), ids=SPELLINGS)
def test_registry_cannot_name_a_folder_of_the_host(misused: Misused, form: str) -> None:
    said = misused.refused(misused.say_source(spelt(form, misused.place)))
    assert f"the folder {misused.place}" in said
    assert "artifact_folders" in said


@pytest.mark.parametrize(("form", "why"), DISGUISES.values(), ids=DISGUISES)
def test_disguised_place_is_refused(misused: Misused, form: str, why: str) -> None:
    assert why in misused.refused(misused.say_source(spelt(form, misused.place)))


def test_run_cannot_lead_to_a_folder_of_the_host(misused: Misused) -> None:
    run_id = misused.make_run(misused.place.parent.as_uri())
    assert "artifact_folders" in misused.refused(f"runs:/{run_id}/private")


def test_version_of_a_run_cannot_lead_to_a_folder_of_the_host(misused: Misused) -> None:
    run_id = misused.make_run(str(misused.place.parent))
    uri = misused.say_source(f"runs:/{run_id}/private")
    assert "artifact_folders" in misused.refused(uri)


def test_logged_model_cannot_lead_to_a_folder_of_the_host(misused: Misused) -> None:
    uri = misused.say_location(misused.place.as_uri())
    assert "artifact_folders" in misused.refused(uri)


def test_version_of_a_logged_model_cannot_lead_to_a_folder_of_the_host(misused: Misused) -> None:
    uri = misused.say_source(misused.say_location(str(misused.place)))
    assert "artifact_folders" in misused.refused(uri)


def test_version_of_a_version_cannot_lead_to_a_folder_of_the_host(
    misused: Misused, mlflow: MLflow
) -> None:
    misused.say_source(misused.place.as_uri())
    other = f"{misused.name}-copy"
    http(f"{mlflow.url}/api/2.0/mlflow/registered-models/create", {"name": other})
    http(
        f"{mlflow.url}/api/2.0/mlflow/model-versions/create",
        {"name": other, "source": f"models:/{misused.name}/1"},
    )
    misused.change("UPDATE model_versions SET storage_location = source WHERE name = ?", other)
    assert "artifact_folders" in misused.refused(f"models:/{other}/1")


def test_folder_that_the_operator_listed_is_read(misused: Misused, removed: None) -> None:
    """The remedy that the refusal names."""
    uri = misused.say_source(misused.place.as_uri())
    misused.refused(uri)
    listed = (str(misused.place.parent),)
    result = misused.deliver(uri, check=False, artifact_folders=listed)
    assert result.error is None
    assert len(misused.copies()) == 1


def test_module_reads_what_its_option_lists(misused: Misused, removed: None) -> None:
    uri = misused.say_source(misused.place.as_uri())
    given = {**misused.options, "name": misused.name, "model_uri": uri}
    for check in (True, False):
        refused = run_module("triton_model", given, check=check)
        assert refused["failed"] and refused["error"] == "ArtifactError", refused
        assert "artifact_folders" in refused["msg"]
    listed = {**given, "artifact_folders": [str(misused.place.parent)]}
    deployed = run_module("triton_model", listed)
    assert not deployed["failed"] and deployed["changed"], deployed


def test_plugin_reads_what_its_option_lists(misused: Misused, removed: None) -> None:
    """It takes the folders that an MLflow on this host made itself; this is none of them."""
    uri = misused.say_source(misused.place.as_uri())
    client = TritonDeploymentClient(f"triton://{misused.triton.url}")
    options = {key: one for key, one in misused.options.items() if key != "triton_url"}
    with pytest.raises(MlflowException, match="artifact_folders"):
        client.create_deployment(misused.name, uri, config=options)
    assert not misused.copies()
    listed = {**options, "artifact_folders": str(misused.place.parent)}
    client.create_deployment(misused.name, uri, config=listed)
    assert len(misused.copies()) == 1


def test_listed_folder_says_nothing_of_its_neighbours(misused: Misused) -> None:
    neighbour = misused.place.with_name("private-not")
    neighbour.mkdir()
    uri = misused.say_source(misused.place.as_uri())
    error = misused.deliver(uri, check=False, artifact_folders=(str(neighbour),)).error
    assert error and "artifact_folders" in error.message
    short = (str(misused.place)[:-1],)
    assert misused.deliver(uri, check=False, artifact_folders=short).error
    assert not misused.copies()


def test_link_out_of_a_listed_folder_is_refused(misused: Misused, tmp_path: Path) -> None:
    listed = tmp_path / "listed"
    listed.mkdir()
    folders = (str(listed),)
    (listed / "link").symlink_to(misused.place)
    uri = misused.say_source((listed / "link").as_uri())
    error = misused.deliver(uri, check=False, artifact_folders=folders).error
    assert error and "artifact_folders" in error.message
    shutil.copytree(misused.place, listed / "model")
    os.remove(listed / "model" / "network" / "secret")
    (listed / "model" / "network" / "secret").symlink_to(misused.secret)
    uri = misused.say_source((listed / "model").as_uri())
    error = misused.deliver(uri, check=False, artifact_folders=folders).error
    assert error and "network/secret is a symbolic link" in error.message
    assert not misused.copies()


def test_operator_names_a_folder_without_a_list(misused: Misused, removed: None) -> None:
    result = misused.deliver(str(misused.place), check=False)
    assert result.error is None


def test_publication_writes_into_no_folder_that_the_registry_names(
    misused: Misused, tmp_path: Path
) -> None:
    """The experiment's creator said where its files go."""
    there = tmp_path / "cron.d"
    there.mkdir()
    status, said = http(
        f"{misused.mlflow.url}/api/2.0/mlflow/experiments/create",
        {"name": misused.name, "artifact_location": there.as_uri()},
    )
    assert status == 200, said
    sample = models.make_onnx(tmp_path / "more", "network", bias=(3.0, 4.0))
    registry = Registry(misused.mlflow.url, 60)
    with pytest.raises(DeliveryError, match="artifact_folders") as caught:
        publish_model(registry, misused.name, sample.folder, experiment=misused.name)
    assert caught.value.left == "no version was made"
    assert not list(there.iterdir())
    registry = Registry(misused.mlflow.url, 60, places=ArtifactPlaces((str(there),)))
    _plan, published = publish_model(registry, misused.name, sample.folder, experiment=misused.name)
    assert published.version == 2
    # Nothing is read there without the list, and what is published already is seen.
    again = publish_model(Registry(misused.mlflow.url, 60), misused.name, sample.folder)
    assert not again[0].changed


@pytest.mark.parametrize("way", ["module", "command"])
def test_each_way_of_publishing_asks_for_the_list(
    way: str, misused: Misused, tmp_path: Path
) -> None:
    there = tmp_path / "shared"
    there.mkdir()
    name = f"{misused.name}-{way}"
    http(
        f"{misused.mlflow.url}/api/2.0/mlflow/experiments/create",
        {"name": name, "artifact_location": there.as_uri()},
    )
    sample = models.make_onnx(tmp_path / "model", name)

    def publish(folder: Path | None) -> str:
        if way == "module":
            given = {"tracking_uri": misused.mlflow.url, "name": name, "experiment": name}
            listed = {"artifact_folders": [str(folder)]} if folder else {}
            result = run_module("mlflow_publish", {**given, "path": str(sample.folder), **listed})
            return str(result["msg"]) if result["failed"] else ""
        words = ["--model_name", name, "--model_directory", str(sample.folder)]
        words += ["--artifact_folders", str(folder)] if folder else []
        done = subprocess.run(
            [
                sys.executable,
                str(ROOT / "publish_model_to_mlflow.py"),
                "--flavor",
                "triton",
                *words,
            ],
            env={
                **os.environ,
                "MLFLOW_TRACKING_URI": misused.mlflow.url,
                "MLFLOW_EXPERIMENT_NAME": name,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.stderr if done.returncode else ""

    assert "artifact_folders" in publish(None)
    assert not list(there.iterdir())
    assert publish(tmp_path) == ""
    assert list(there.rglob("MLmodel"))
