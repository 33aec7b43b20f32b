# SPDX-License-Identifier: Apache-2.0
"""The model folder of what MLflow's own code answers for: the artifact as it came, the worker's
files as they are, and settings that name the Python of its environment.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery import worker
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import Layout
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import (
    FileEntry,
    Manifest,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.pyfunc import (
    WORKER_VERSION,
    Interface,
    PyfuncSettings,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.requirements import (
    Requirements,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    DeliveryError,
    RepositoryError,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution.python_models import (  # noqa: E501
    PythonModels,
)

WANTED = Requirements("3.11.7", ("pandas==2.3.0",), None, "requirements.txt")
LAYOUT = Layout(
    "sklearn", (("MLmodel", "2/model/MLmodel", 2),), (), b"", (2,), (1,), conversion="pyfunc",
    served_as="pyfunc", pyfunc=Interface("json", "it has no signature"), requirements=WANTED,
)  # fmt: skip
ENVIRONMENT = SimpleNamespace(
    digest="abc", python="/e/abc/bin/python", packages=(("pandas", "2.3.0"),)
)


class Place:
    """A staging folder, and an environment that is built when it is asked for."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.built: list[Requirements] = []
        self.seen: list[bool] = []
        desired = DesiredModel.from_options({"name": "m", "model_uri": "models:/m/2", **options})
        self.transaction: Any = SimpleNamespace(
            name="m", deploy_id="id", environment=None, plan=SimpleNamespace(desired=desired)
        )
        self.repository: Any = SimpleNamespace(workspace=lambda *_names: str(folder / "work"))
        self.staged = folder / "staged"
        (self.staged / "2/model").mkdir(parents=True)
        (self.staged / "2/model/MLmodel").write_text("{}")
        self.came = Manifest.of([FileEntry("2/model/MLmodel", 2, "sha")])

    def build(self, wanted: Requirements, lock: str | None = None) -> Any:
        self.seen.append((self.folder / "work").is_dir())
        self.built.append(wanted)
        return ENVIRONMENT

    def make(self, **more: Any) -> tuple[Layout, Manifest]:
        there: Any = self
        made = PythonModels(lambda: there, **more)
        return made.make(self.repository, self.transaction, LAYOUT, str(self.staged), self.came)


def test_worker_and_settings_lie_beside_the_model_as_it_came(tmp_path: Path) -> None:
    place = Place(tmp_path, predict_timeout=5)
    layout, manifest = place.make()
    files = worker.files()
    assert {entry.path for entry in manifest.files} == {
        "2/model/MLmodel", "2/pyfunc.json", *(f"2/{name}" for name in files)
    }  # fmt: skip
    assert {*layout.paths} == {entry.path for entry in manifest.files}
    assert all((place.staged / "2" / name).read_bytes() == data for name, data in files.items())
    told = PyfuncSettings.from_bytes((place.staged / "2/pyfunc.json").read_bytes())
    assert (told.python, told.environment, told.worker) == (
        "/e/abc/bin/python",
        "abc",
        WORKER_VERSION,
    )
    assert (told.predict_timeout, told.start_timeout) == (5.0, 240.0)
    assert layout.packages == 1


def test_a_worker_starts_within_what_a_load_may_take(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.make(load_timeout=1000.0)
    told = PyfuncSettings.from_bytes((place.staged / "2/pyfunc.json").read_bytes())
    assert 0 < told.start_timeout < 1000


def test_an_environment_is_asked_for_once_and_after_the_staging_is_there(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.make()
    place.make()
    assert (place.built, place.seen) == ([WANTED], [True])


def test_where_no_environment_can_be_there_a_sentence_says_so(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with pytest.raises(RepositoryError, match="make model_repository a folder"):
        PythonModels().build(place.repository, place.transaction, WANTED)


def test_what_cannot_be_built_is_told_with_its_step(tmp_path: Path) -> None:
    place = Place(tmp_path)

    def fail(wanted: Requirements, lock: str | None = None) -> Any:
        raise DeliveryError("no version of pandas")

    place.build = fail  # type: ignore[method-assign]
    with pytest.raises(DeliveryError, match="build the environment: no version of pandas"):
        place.make()
