# SPDX-License-Identifier: Apache-2.0
"""Publishers that are killed, and publishers that meet."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import (
    MANIFEST_NAME,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.published import (
    read_published,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import (
    parse_model_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.folder import (
    manifest_of_folder,
)
from support import models
from support.bench import Children
from support.fault_proxy import FaultProxy
from support.rows import Row
from support.servers import MLflow, mlflow_server

pytest.importorskip("mlflow")
pytest.importorskip("yaml")


@pytest.fixture(scope="module")
def mlflow(base: Path) -> Iterator[MLflow]:
    with mlflow_server(base / "publishers") as server:
        yield server


@pytest.fixture(scope="module")
def publishers(mlflow: MLflow) -> Iterator[list[Children]]:
    made = [Children() for _number in range(2)]
    yield made
    for child in made:
        child.close()


class Shelf:
    """One registered model, and what may be published as it."""

    def __init__(self, mlflow: MLflow, name: str, folder: Path) -> None:
        self.mlflow, self.name = mlflow, name
        self.registry = Registry(mlflow.url, 30)
        self.folder = models.make_onnx(folder, "network").folder

    def request(self, **more: Any) -> dict[str, Any]:
        return {
            "publish": {
                "name": self.name,
                "path": str(self.folder),
                "aliases": ["champion"],
                "tags": {"a": "b"},
            },
            "tracking_uri": self.mlflow.url,
            **more,
        }

    def is_whole(self, version: int) -> None:
        """Its files are those of the folder, and the place that they are in is finished."""
        files = self.registry.files(
            self.registry.resolve(parse_model_uri(f"models:/{self.name}/{version}"))
        )
        manifest = read_published(files.read(MANIFEST_NAME))
        listed = {file.path: file.size for file in files.list()}
        del listed[MANIFEST_NAME]
        assert listed == {entry.path: entry.size for entry in manifest.files}
        whole = manifest_of_folder(str(self.folder))
        assert {(f"network/{entry.path}", entry.sha256) for entry in whole.files} == {
            (entry.path, entry.sha256) for entry in manifest.files if entry.path != "MLmodel"
        }

    def places(self) -> list[str]:
        """States of the logged models of this name."""
        found = self.registry.client.search_logged_models(
            ["0"], filter_string=f"name = '{self.name}'"
        )
        return sorted(str(model.status) for model in found)


def test_kill_points_of_a_publication(
    mlflow: MLflow, publishers: list[Children], base: Path, row: Row
) -> None:
    """kill -9 in a publication, before and after each effect."""
    whole = publishers[0].start(**Shelf(mlflow, "whole", base / "whole").request()).result(120)
    assert not whole["result"]["failed"], whole["result"]
    kinds = [kind for kind, _subject in whole["effects"]]
    assert kinds, "there is no point at which to kill it"
    print(f"\npublication: N = {len(kinds)}: {', '.join(kinds)}")
    wrong = []
    for number in range(1, len(kinds) + 1):
        for moment in ("before", "after"):
            shelf = Shelf(mlflow, f"killed_{moment}_{number}", base / f"{moment}-{number}")
            killed = publishers[0].start(**shelf.request(kill=[number, moment])).result(120)
            assert killed["code"] == -9, killed
            try:
                done, again = (
                    publishers[0].start(**shelf.request()).result(120) for _time in range(2)
                )
                assert not done["result"]["failed"], done["result"]["msg"]
                assert (again["result"]["changed"], again["effects"]) == (False, [])
                versions = shelf.registry.model_info(shelf.name).versions
                assert [(one.version, one.aliases, one.tags["a"]) for one in versions] == [
                    (1, ("champion",), "b")
                ]
                shelf.is_whole(1)
                assert shelf.places() == ["READY"]
            except AssertionError as error:
                wrong.append(
                    f"killed {moment} effect {number} ({kinds[number - 1]}):"
                    f" {' '.join(str(error).split())[:300]}"
                )
    row.saw(
        f"N = {len(kinds)}; {2 * len(kinds) - len(wrong)} kills of {2 * len(kinds)} led to one"
        " whole version at the next run, and left nothing"
    )
    assert not wrong, "\n".join(wrong)


def test_one_at_work_is_left_alone(
    mlflow: MLflow, publishers: list[Children], base: Path, row: Row
) -> None:
    """a second publisher of the same content while the first uploads."""
    shelf = Shelf(mlflow, "at_work", base / "at-work")
    gate = base / "gate-at-work"
    gate.touch()
    first = publishers[0].start(**shelf.request(pause=["create model", "before", str(gate)]))
    publishers[0].paused.get(timeout=60)
    second = publishers[1].start(**shelf.request()).result(120)["result"]
    gate.unlink()
    done = first.result(120)["result"]
    assert not second["failed"] and not done["failed"], (second, done)
    assert second["model"]["version"] == done["model"]["version"] == 1
    assert [one.version for one in shelf.registry.model_info(shelf.name).versions] == [1]
    shelf.is_whole(1)
    assert shelf.places() == ["READY"]
    row.saw(
        "the second made version 1; the first found it after its upload, and gave its own files up"
    )


def test_two_at_the_same_moment(
    mlflow: MLflow, publishers: list[Children], base: Path, row: Row
) -> None:
    """two publishers of the same content, both past their last question."""
    shelf = Shelf(mlflow, "moment", base / "moment")
    gate = base / "gate-moment"
    gate.touch()
    runs = [
        publisher.start(**shelf.request(pause=["create version", "before", str(gate)]))
        for publisher in publishers
    ]
    for publisher in publishers:
        publisher.paused.get(timeout=60)
    gate.unlink()
    results = [run.result(120)["result"] for run in runs]
    assert not [result["msg"] for result in results if result["failed"]]
    assert sorted(result["model"]["version"] for result in results) == [1, 2]
    said = [
        text
        for result in results
        for text in result["warnings"]
        if "another publisher was at work" in text
    ]
    assert said
    for version in (1, 2):
        shelf.is_whole(version)
    again = publishers[0].start(**shelf.request()).result(120)["result"]
    assert len(shelf.registry.model_info(shelf.name).versions) == 2
    row.saw(
        f"two versions, both whole; {said[0]}; the run after them: version"
        f" {again['model']['version']}"
    )


def test_alias_and_tag_at_the_same_moment(
    mlflow: MLflow, publishers: list[Children], base: Path, row: Row
) -> None:
    """four clients that set the same new alias and the same new tag of a version."""
    clients = [Registry(mlflow.url, 30) for _number in range(4)]
    shelf = Shelf(mlflow, "met", base / "met")
    publish = {"name": shelf.name, "path": str(shelf.folder)}
    together = threading.Barrier(len(clients))

    def set_both(client: Registry, number: int) -> None:
        together.wait(60)
        client.set_alias(shelf.name, f"alias{number}", 1)
        client.set_version_tag(shelf.name, 1, f"tag{number}", "same")

    done = publishers[0].start(publish=publish, tracking_uri=mlflow.url).result(120)["result"]
    assert not done["failed"], done["msg"]
    with ThreadPoolExecutor(len(clients)) as pool:
        for number in range(20):
            list(pool.map(set_both, clients, [number] * len(clients)))
    (found,) = shelf.registry.model_info(shelf.name).versions
    assert len(found.aliases) == 20
    assert len([key for key in found.tags if key.startswith("tag")]) == 20
    row.saw("20 aliases and 20 tags, each set by all four")


@pytest.mark.parametrize("fault", ["hang up", "lose"])
@pytest.mark.parametrize(
    "only",
    [
        "model-versions/create",
        "logged-models HTTP",
        "logged-models/m-",
        "registered-models/create",
        "PUT /",
    ],
)
def test_answer_is_lost(
    only: str, fault: str, mlflow: MLflow, publishers: list[Children], base: Path, row: Row
) -> None:
    """registry {fault} at {only} while a model is published."""
    name = f"{fault}_{only}".replace("/", "_").replace(" ", "_")
    shelf = Shelf(mlflow, name, base / name)
    with FaultProxy(mlflow.url) as proxy:
        proxy.fault, proxy.only = fault, only
        failed = (
            publishers[0]
            .start(**{**shelf.request(), "tracking_uri": proxy.url, "timeout": 8})
            .result(180)["result"]
        )
        assert proxy.hit, proxy.lines
    done, again = (
        publishers[0].start(**shelf.request()).result(120)["result"] for _time in range(2)
    )
    assert "Traceback" not in str(failed)
    assert not done["failed"], done
    assert not again["changed"]
    assert len(shelf.registry.model_info(shelf.name).versions) == 1
    shelf.is_whole(1)
    row.saw(
        f"{failed.get('msg') or 'published all the same'}; one whole version after the next run"
    )
