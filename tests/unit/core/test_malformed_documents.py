# SPDX-License-Identifier: Apache-2.0
"""Documents of other people with anything in any place: what comes of them is a result or a
sentence, and what is wrong with one model stays its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.metadata import (
    read_artifact,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.roots import (
    ArtifactRoot,
    Listing,
    RemoteFile,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import (
    Layout,
    Numbering,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    Defect,
    DeliveryError,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.flavors.layouts import (
    layout_of,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository import (
    folder as folder_module,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.hostile import VALUES, spoilt

pytest.importorskip("yaml")
pytest.importorskip("tritonclient")

import yaml
from support.memory_triton import MemoryTriton, deliver, delivery_to, make_artifact, make_model

MLMODEL: dict[str, Any] = {
    "artifact_path": "model",
    "flavors": {
        "triton": {"data": "model", "backend": "python", "files": ["1/model.py"], "digest": "d"},
        "onnx": {"data": "model.onnx", "onnx_version": "1.16"},
        "sklearn": {"pickled_model": "model.pkl", "serialization_format": "skops", "code": None},
        "xgboost": {"data": "model.ubj", "model_class": "xgboost.sklearn.XGBClassifier"},
        "lightgbm": {"data": "model.txt", "model_class": "lightgbm.basic.Booster"},
        "pytorch": {"model_data": "data", "pytorch_version": "2.4"},
        "transformers": {"task": "t"},
        "python_function": {"env": {"conda": "c"}, "loader_module": "m"},
    },
    "signature": {
        "inputs": json.dumps(
            [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}, "name": "x"}]
        ),
        "outputs": json.dumps([{"type": "double", "name": "y"}]),
        "params": None,
    },
    "saved_input_example_info": {"artifact_path": "input_example.json", "type": "dataframe"},
}
FILES = (
    "model.onnx",
    "model.pkl",
    "model.skops",
    "model.ubj",
    "model.txt",
    "data/model.pth",
    "model/1/model.py",
    "model/config.pbtxt",
)
MAKERS = (None, "triton", "onnx", "sklearn", "xgboost", "lightgbm", "pytorch")
EXAMPLE = {"inputs": {"x": [[1.0, 2.0, 3.0]], "y": [["a"]]}, "params": {"p": 1}}


class MemoryRoot(ArtifactRoot):
    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__("memory", 30)
        self._files = files

    def _list(self) -> Listing:
        files = [RemoteFile(path, len(data)) for path, data in sorted(self._files.items())]
        return Listing(tuple(files), ())

    def _read(self, path: str, limit: int) -> bytes:
        return self._files[path][: limit + 1]


def layout(flavor: str | None, **documents: bytes) -> Layout | None:
    """What is made of an artifact; None where a sentence says why there is nothing."""
    files = dict.fromkeys(FILES, b"weights")
    files["model/config.pbtxt"] = b'backend: "python"\n'
    if flavor is None or flavor == "onnx":
        del files["model/config.pbtxt"]
    files |= {name.replace("__", "."): data for name, data in documents.items()}
    try:
        return layout_of(read_artifact(MemoryRoot(files)), flavor, Numbering("auto", None, False))
    except DeliveryError as error:
        checked(error)
    return None


def checked(error: DeliveryError) -> None:
    assert not isinstance(error, Defect), error
    assert str(error).isprintable()


@pytest.mark.parametrize("flavor", MAKERS)
def test_an_honest_mlmodel_is_used(flavor: str | None) -> None:
    assert layout(flavor, MLmodel=yaml.safe_dump(MLMODEL).encode()) or flavor == "pytorch"


@settings(max_examples=400, deadline=None)
@given(spoilt(MLMODEL), st.sampled_from(MAKERS))
def test_any_value_in_any_place_of_mlmodel_is_a_layout_or_an_error(
    mlmodel: Any, flavor: str | None
) -> None:
    layout(flavor, MLmodel=yaml.safe_dump(mlmodel).encode())


@settings(max_examples=200, deadline=None)
@given(
    spoilt(json.loads(MLMODEL["signature"]["inputs"])),
    st.sampled_from(MAKERS),
)
def test_any_value_in_any_place_of_a_signature_is_a_layout_or_an_error(
    tensors: Any, flavor: str | None
) -> None:
    signature = {"inputs": json.dumps(tensors), "outputs": json.dumps(tensors)}
    layout(flavor, MLmodel=yaml.safe_dump({**MLMODEL, "signature": signature}).encode())


@settings(max_examples=100, deadline=None)
@given(spoilt(MLMODEL), spoilt({"schema": 2, "files": [{"path": "a", "size": 1, "sha256": "b"}]}))
def test_any_value_in_any_place_of_a_manifest_is_a_layout_or_an_error(
    mlmodel: Any, manifest: Any
) -> None:
    files = {"triton-manifest__json": json.dumps(manifest).encode()}
    layout(None, MLmodel=yaml.safe_dump(mlmodel).encode(), **files)


# -- one model of a list ---------------------------------------------------------------------------


@pytest.fixture
def triton(tmp_path: Path) -> MemoryTriton:
    (tmp_path / "models").mkdir()
    return MemoryTriton(tmp_path / "models")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(document=spoilt(EXAMPLE))
def test_any_value_in_any_place_of_an_example_is_a_warning_at_most(
    tmp_path_factory: pytest.TempPathFactory, document: Any
) -> None:
    folder = tmp_path_factory.mktemp("example")
    (folder / "models").mkdir()
    triton = MemoryTriton(folder / "models")
    source = make_artifact(folder / "artifact", json.dumps(document))
    [result] = deliver(triton, {"name": "net", "model_uri": source}, check=True)
    assert result.error is None or not isinstance(result.error, Defect)


@pytest.mark.parametrize(
    "mlmodel",
    [
        "flavors: [1, 2]",
        "flavors: {onnx: 3}",
        "flavors: {triton: {data: [1]}}\nsignature: []",
        "flavors: {triton: {data: {a: b}}}",
        "[]",
        "3",
    ],
)
def test_a_malformed_mlmodel_fails_its_own_model(
    triton: MemoryTriton, tmp_path: Path, mlmodel: str
) -> None:
    bad = Path(make_artifact(tmp_path / "bad", "{}"))
    (bad / "MLmodel").write_text(mlmodel, encoding="utf-8")
    good = make_model(tmp_path / "good")
    wanted = [{"name": "bad", "model_uri": str(bad)}, {"name": "good", "model_uri": good}]
    refused, delivered = deliver(triton, *wanted)
    assert delivered.error is None and "good" in triton.loaded
    if refused.error:
        checked(refused.error)
        assert str(refused.error).startswith("model 'bad', ")


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("what", ["config", "record", "meta"])
def test_a_list_tells_what_is_wrong_with_one_model_and_lists_the_others(
    triton: MemoryTriton, tmp_path: Path, what: str, value: Any
) -> None:
    for name in ("good", "net"):
        deliver(triton, {"name": name, "model_uri": make_model(tmp_path / name)})
    with delivery_to(triton) as delivery:
        if what == "config":
            triton.loaded["net"] = value
        else:
            store = Path(delivery.repository.store.path)
            files = {
                "record": store / "records/net.json",
                "meta": triton.repository / "net/mlflow-meta.json",
            }
            files[what].write_text(json.dumps(value), encoding="utf-8")
        good, net = delivery.status()
    assert good["ready"] and not good["drift"]
    if what != "meta":
        assert net["drift"] and all(map(str.isprintable, net["drift"]))
        assert not any("defect" in said for said in net["drift"])


def test_a_fault_of_the_collection_is_told_of_one_model_and_the_others_are_listed(
    triton: MemoryTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("good", "net"):
        deliver(triton, {"name": name, "model_uri": make_model(tmp_path / name)})
    read = folder_module.FolderRepository.read

    def faulty(self: Any, name: str, *more: Any) -> Any:
        if name == "net":
            raise KeyError("left out")
        return read(self, name, *more)

    monkeypatch.setattr(folder_module.FolderRepository, "read", faulty)
    with delivery_to(triton) as delivery:
        good, net = delivery.status()
    assert good["ready"] and net["state"] == "unknown"
    [said] = net["drift"]
    assert said.startswith("model 'net', see what is there: an unexpected KeyError")
    assert said.endswith("this is a defect of mlops.triton, please report it")
