# SPDX-License-Identifier: Apache-2.0
"""Model URIs, listings and bytes on a real MLflow."""

from __future__ import annotations

import hashlib
import random
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.source import Source
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import (
    parse_model_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import NotFound
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from support.servers import MLflow

mlflow = pytest.importorskip("mlflow")

FILES = {
    "MLmodel": b"flavors: {}\n",
    "net/1/model.onnx": random.Random(1).randbytes(3_000_000),
    "net/config.pbtxt": b"",
    "net/labels.txt": b"a",
}


@pytest.fixture(scope="module")
def server(mlflow: MLflow) -> MLflow:
    """That of all files. Its fixture has the name that the library has here."""
    return mlflow


@pytest.fixture(scope="module")
def client(server: MLflow) -> Any:
    return mlflow.MlflowClient(server.url)


@pytest.fixture
def registry(server: MLflow) -> Registry:
    return Registry(server.url, 30)


@pytest.fixture(scope="module")
def model_id(client: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A logged model with two versions of the registered model ``net``: 1 is the champion, 2 the
    newest.
    """
    folder = tmp_path_factory.mktemp("files")
    for path, data in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    run = client.create_run("0")
    made = client.create_logged_model("0", name="net", source_run_id=run.info.run_id)
    client.log_model_artifacts(made.model_id, str(folder))
    client.finalize_logged_model(made.model_id, "READY")
    client.create_registered_model("net")
    for _version in range(2):
        client.create_model_version(
            "net",
            f"models:/{made.model_id}",
            model_id=made.model_id,
            tags={"who": "test"},
            await_creation_for=0,
        )
    client.set_registered_model_alias("net", "champion", "1")
    return str(made.model_id)


def resolve(registry: Registry, text: str) -> Source:
    return registry.resolve(parse_model_uri(text))


@pytest.mark.parametrize(
    ("uri", "version"),
    [
        ("models:/net/1", 1),
        ("models:/net/2", 2),
        ("models:/net@champion", 1),
        ("models:/net/latest", 2),
    ],
)
def test_version(registry: Registry, model_id: str, uri: str, version: int) -> None:
    found = resolve(registry, uri)
    assert (found.registry_name, found.registry_version, found.model_id) == (
        "net",
        version,
        model_id,
    )
    assert found.source == f"models:/{model_id}"
    assert found.artifact_root.endswith(f"/models/{model_id}/artifacts")
    assert found.tags == {"who": "test"}
    assert found.alias == ("champion" if "@" in uri else None)


def test_logged_model_and_run_find_the_same_files(
    registry: Registry, client: Any, model_id: str
) -> None:
    run_id = client.get_logged_model(model_id).source_run_id
    direct = resolve(registry, f"models:/{model_id}")
    by_run = resolve(registry, f"runs:/{run_id}/net")
    assert direct.artifact_root == by_run.artifact_root
    assert (by_run.run_id, by_run.model_id, by_run.registry_version) == (run_id, model_id, None)
    assert [
        file.path for file in registry.files(resolve(registry, f"runs:/{run_id}/net/net")).list()
    ] == ["1/model.onnx", "config.pbtxt", "labels.txt"]


@pytest.mark.parametrize(
    ("model", "run", "below"),
    [
        ({"MLmodel": "m", "model.onnx": "o"}, {"config.pbtxt": "c"}, ""),
        ({"MLmodel": "m", "config.pbtxt": "of the model"}, {"config.pbtxt": "of the run"}, ""),
        ({"MLmodel": "m", "sub/a": "a"}, {"sub/b": "b", "sub/a": "x", "more/deep/c": "c"}, ""),
        ({"MLmodel": "m", "sub/a": "a"}, {"sub/b": "b", "c": "c"}, "/sub"),
        ({"MLmodel": "m"}, {"sub/b": "b"}, "/sub"),
        ({"MLmodel": "m"}, {}, ""),
    ],
    ids=["beside", "same name", "folders", "below", "below, of the run alone", "nothing beside"],
)
def test_a_runs_uri_means_the_files_that_mlflow_itself_downloads(
    registry: Registry,
    client: Any,
    server: MLflow,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: dict[str, str],
    run: dict[str, str],
    below: str,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    made = client.create_run("0").info.run_id
    for name, files in (("model", model), ("run", run)):
        for path, text in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
    logged = client.create_logged_model("0", name="net", source_run_id=made)
    client.log_model_artifacts(logged.model_id, str(tmp_path / "model"))
    client.finalize_logged_model(logged.model_id, "READY")
    if run:
        client.log_artifacts(made, str(tmp_path / "run"), "net")

    uri = f"runs:/{made}/net{below}"
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    mlflow.artifacts.download_artifacts(uri, dst_path=str(theirs))
    # Of a path below the name MLflow puts the two parts into two folders (3.17), and names one.
    inside = re.compile(rf"^(net/)?{below.lstrip('/')}/?")
    wanted = {
        inside.sub("", str(path.relative_to(theirs))): path.read_bytes()
        for path in theirs.rglob("*")
        if path.is_file() and path.name != "registered_model_meta"
    }
    found = registry.files(resolve(registry, uri))
    paths = [file.path for file in found.list()]
    targets = {path: str(tmp_path / path.replace("/", "-")) for path in paths}
    found.fetch(targets)
    assert {path: Path(targets[path]).read_bytes() for path in paths} == wanted
    assert {path: found.read(path) for path in paths} == wanted


def test_files_of_a_run(registry: Registry, client: Any, tmp_path: Path) -> None:
    run = client.create_run("0")
    (tmp_path / "labels.txt").write_text("a")
    client.log_artifact(run.info.run_id, str(tmp_path / "labels.txt"), "old/style")
    found = resolve(registry, f"runs:/{run.info.run_id}/old")
    assert found.model_id is None
    assert [file.path for file in registry.files(found).list()] == ["style/labels.txt"]


def test_bytes(registry: Registry, model_id: str, tmp_path: Path) -> None:
    root = registry.files(resolve(registry, f"models:/{model_id}"))
    assert {file.path: file.size for file in root.list()} == {
        path: len(data) for path, data in FILES.items()
    }
    assert root.read("MLmodel") == FILES["MLmodel"]
    seen: dict[str, int] = {}
    names = {path: str(tmp_path / str(number)) for number, path in enumerate(FILES)}
    entries = root.fetch(names, seen.__setitem__)
    for path, data in FILES.items():
        assert Path(names[path]).read_bytes() == data
        assert (entries[path].size, entries[path].sha256) == (
            len(data),
            hashlib.sha256(data).hexdigest(),
        )
    assert seen["net/1/model.onnx"] == 3_000_000


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("models:/net/99", "no version 99 (versions there: 2, 1)"),
        ("models:/net@nobody", "no alias 'nobody' (aliases there: champion)"),
        ("models:/none/1", "has no model 'none'"),
        ("models:/none@champion", "has no model 'none'"),
        ("models:/none/latest", "has no model 'none'"),
        ("models:/m-0123456789abcdef", "m-0123456789abcdef"),
        ("runs:/0123456789abcdef/net", "0123456789abcdef"),
    ],
)
def test_absent(registry: Registry, model_id: str, uri: str, said: str) -> None:
    with pytest.raises(NotFound) as caught:
        resolve(registry, uri)
    assert said in str(caught.value)


def test_the_first_questions_come_at_the_same_moment(
    server: MLflow, model_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow fills the table of its stores without a lock: who asks meanwhile is told that a
    registry at http:// is not supported.
    """
    from mlflow.tracking._model_registry import registry as stores
    from mlflow.tracking._model_registry import utils

    register: Any = stores.ModelRegistryStoreRegistry.register

    def slowly(self: Any, scheme: str, builder: object) -> None:
        time.sleep(0.02)
        register(self, scheme, builder)

    monkeypatch.setattr(utils, "_model_registry_store_registry", None)
    monkeypatch.setattr(stores.ModelRegistryStoreRegistry, "register", slowly)
    one, other = Registry(server.url, 30), Registry(server.url, 30)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(resolve, (one, other)[i % 2], "models:/net/1") for i in range(8)]
        assert [source.result().registry_version for source in asked] == [1] * 8


def test_read_of_an_absent_file(registry: Registry, model_id: str) -> None:
    with pytest.raises(NotFound, match="no none"):
        registry.files(resolve(registry, f"models:/{model_id}")).read("none")


def test_info(registry: Registry, model_id: str) -> None:
    found = {model.name: model for model in registry.models(["net", "none"])}
    assert list(found) == ["net"]
    assert dict(found["net"].aliases) == {"champion": 1}
    assert [(version.version, version.aliases) for version in found["net"].versions] == [
        (2, ()),
        (1, ("champion",)),
    ]
    assert "net" in registry.names()
