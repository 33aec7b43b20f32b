# SPDX-License-Identifier: Apache-2.0
"""From a folder of this host to a registered version, on a real MLflow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.places import (
    ArtifactPlaces,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.disk import hash_file
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import (
    MANIFEST_NAME,
    FileEntry,
    sha256,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.published import (
    PublishedManifest,
    read_published,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import (
    parse_model_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.effects import observe
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    ArtifactError,
    DeliveryError,
    InvalidOption,
    NotFound,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.publication import (  # noqa: E501
    DesiredPublication,
    apply_publication,
    plan_publication,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.folder import (
    manifest_of_folder,
)
from support import models
from support.deliveries import publish_model
from support.fault_proxy import FaultProxy
from support.servers import ROOT, MLflow, server_python

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("tritonclient")
yaml = pytest.importorskip("yaml")


@pytest.fixture(scope="module")
def server(mlflow: MLflow) -> MLflow:
    """That of all files. Its fixture has the name that the library has here."""
    return mlflow


@pytest.fixture(scope="module")
def shared(server: MLflow, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of experiment "shared" lie, a folder that this host shares with the
    server.
    """
    folder = tmp_path_factory.mktemp("shared")
    mlflow.MlflowClient(server.url).create_experiment("shared", artifact_location=folder.as_uri())
    return folder


@pytest.fixture
def registry(server: MLflow) -> Registry:
    return Registry(server.url, 30)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return "".join(char if char.isalnum() else "_" for char in request.node.name)


def files_of(registry: Registry, name: str, version: int) -> Any:
    return registry.files(registry.resolve(parse_model_uri(f"models:/{name}/{version}")))


def test_folder_is_published_once(registry: Registry, name: str, tmp_path: Path) -> None:
    folder = models.make_onnx(tmp_path, external_data=True).folder
    plan, first = publish_model(
        registry, name, folder, aliases=("champion",), tags={"a": "b"}, description="text"
    )
    assert (plan.changed, first.version) == (True, 1)
    again, second = publish_model(
        registry, name, folder, aliases=("champion",), tags={"a": "b"}, description="text"
    )
    assert (again.changed, again.actions, second.version) == (False, (), 1)
    assert again.before == again.after
    copy = shutil.copytree(folder, tmp_path / "copy" / folder.name)
    assert not publish_model(registry, name, copy)[0].changed
    assert len(registry.model_info(name).versions) == 1


def test_what_is_published_is_found_by_one_search(
    registry: Registry, server: MLflow, name: str, tmp_path: Path
) -> None:
    """Among other versions, and without a download: that what describes the files is as it was
    published shows that they are there.
    """
    samples = [
        models.make_onnx(tmp_path / str(number), "network", bias=(float(number), 0.0))
        for number in range(3)
    ]
    for sample in samples:
        publish_model(registry, name, sample.folder)
    with FaultProxy(server.url) as proxy:
        plan, published = publish_model(Registry(proxy.url, 30), name, samples[1].folder)
    assert (plan.changed, published.version) == (False, 2)
    assert len([line for line in proxy.lines if "/search?" in line]) == 1
    assert [
        line.split()[1].rpartition("/")[2] for line in proxy.lines if "mlflow-artifacts" in line
    ] == ["MLmodel", MANIFEST_NAME]


def test_what_lies_in_the_registry(registry: Registry, name: str, tmp_path: Path) -> None:
    sample = models.make_onnx(tmp_path)
    (sample.folder / "empty").mkdir()
    publish_model(registry, name, sample.folder, tags={"a": "b"}, description="text")
    files = files_of(registry, name, 1)
    assert [file.path for file in files.list()] == [
        "MLmodel",
        "network/1/model.onnx",
        "network/config.pbtxt",
        MANIFEST_NAME,
    ]
    manifest = read_published(files.read(MANIFEST_NAME))
    inside = manifest_of_folder(str(sample.folder))
    described = files.read("MLmodel")
    assert manifest == PublishedManifest.of(
        [
            FileEntry("MLmodel", len(described), sha256(described)),
            *(FileEntry(f"network/{e.path}", e.size, e.sha256) for e in inside.files),
        ],
        ["network/empty"],
    )
    flavor = yaml.safe_load(files.read("MLmodel"))["flavors"]["triton"]
    assert (flavor["data"], flavor["backend"], flavor["files"]) == (
        "network",
        "onnxruntime",
        ["1/model.onnx", "config.pbtxt"],
    )
    version = registry.model_info(name).versions[0]
    assert {key: value for key, value in version.tags.items() if key != "triton.content"} == {
        "a": "b",
        "triton.digest": manifest.digest,
        "triton.manifest": "2",
        "triton.backend": "onnxruntime",
    }
    assert version.description == "text"


def test_shared_folder(
    server: MLflow, registry: Registry, shared: Path, name: str, tmp_path: Path
) -> None:
    folder = models.make_onnx(tmp_path, external_data=True).folder
    with pytest.raises(
        ArtifactError, match="add that folder, or one above it, to artifact_folders"
    ):
        publish_model(registry, name, folder, experiment="shared")
    assert not [path for path in shared.rglob("*") if path.is_file()]
    registry = Registry(server.url, 30, places=ArtifactPlaces((str(shared),)))
    _plan, published = publish_model(registry, name, folder, experiment="shared")
    artifacts = Path(published.artifact_uri.removeprefix("file://"))
    assert manifest_of_folder(str(artifacts / "network")) == manifest_of_folder(str(folder))
    assert os.stat(artifacts / "network/1/model.onnx").st_nlink == 1
    (tmp_path / "target").mkdir()
    fetched = files_of(registry, name, 1).fetch(
        {"network/1/model.onnx": str(tmp_path / "target/model.onnx")}
    )
    assert fetched["network/1/model.onnx"].sha256 == hash_file(str(folder / "1/model.onnx"))
    assert not publish_model(registry, name, folder)[0].changed


def test_changed_content_is_a_new_version(registry: Registry, name: str, tmp_path: Path) -> None:
    folder = models.make_onnx(tmp_path).folder
    publish_model(registry, name, folder, aliases=("champion",))
    (folder / "config.pbtxt").write_text((folder / "config.pbtxt").read_text() + "# more\n")
    plan = plan_publication(registry, DesiredPublication(name, str(folder), aliases=("champion",)))
    different = {
        path
        for path in plan.after["files"]
        if plan.before["files"].get(path) != plan.after["files"][path]
    }
    assert different == {"config.pbtxt"}
    assert (plan.before["aliases"], plan.after["aliases"]) == ({"champion": 1}, {"champion": "new"})
    assert apply_publication(registry, plan).version == 2
    assert registry.model_info(name).aliases == {"champion": 2}


def test_alias_tag_and_description_need_no_new_version(
    registry: Registry, name: str, tmp_path: Path
) -> None:
    folder = models.make_onnx(tmp_path).folder
    publish_model(registry, name, folder, tags={"a": "b", "kept": "yes"})
    changes: list[str] = []
    with observe(
        lambda moment, kind, _subject: changes.append(kind) if moment == "before" else None
    ):
        plan, published = publish_model(
            registry, name, folder, aliases=("champion",), tags={"a": "c"}, description="text"
        )
    assert sorted(changes) == ["describe version", "set alias", "set tag"]
    assert (len(plan.actions), published.version) == (3, 1)
    version = registry.model_info(name).versions[0]
    assert (version.aliases, version.tags["a"], version.tags["kept"], version.description) == (
        ("champion",),
        "c",
        "yes",
        "text",
    )
    assert not publish_model(registry, name, folder)[0].changed


def test_a_version_whose_files_are_gone(
    registry: Registry, server: MLflow, name: str, tmp_path: Path
) -> None:
    folder = models.make_onnx(tmp_path).folder
    _plan, first = publish_model(registry, name, folder, aliases=("champion",))
    artifacts = server.artifacts / first.artifact_uri.removeprefix("mlflow-artifacts:/")
    (artifacts / "network/1/model.onnx").unlink()
    assert not publish_model(registry, name, folder)[0].changed
    plan, second = publish_model(registry, name, folder, aliases=("champion",), check_files=True)
    assert (plan.changed, second.version, registry.model_info(name).aliases) == (
        True,
        2,
        {"champion": 2},
    )
    assert "version 1" in second.warnings[0] and "its files are gone" in second.warnings[0]
    shutil.rmtree(server.artifacts / second.artifact_uri.removeprefix("mlflow-artifacts:/"))
    plan, third = publish_model(registry, name, folder, aliases=("champion",))
    assert (plan.changed, third.version, registry.model_info(name).aliases) == (
        True,
        3,
        {"champion": 3},
    )
    assert (
        files_of(registry, name, 3).read("network/config.pbtxt")
        == (folder / "config.pbtxt").read_bytes()
    )
    assert not publish_model(registry, name, folder, check_files=True)[0].changed


def test_planning_changes_nothing(registry: Registry, name: str, tmp_path: Path) -> None:
    folder = models.make_onnx(tmp_path).folder
    changes: list[str] = []
    with observe(lambda _moment, kind, _subject: changes.append(kind)):
        plan_publication(registry, DesiredPublication(name, str(folder), aliases=("champion",)))
    assert not changes
    with pytest.raises(NotFound):
        registry.model_info(name)


def test_bare_onnx(registry: Registry, name: str, tmp_path: Path) -> None:
    sample = models.make_onnx(tmp_path, external_data="weights and more.data")
    plan, _published = publish_model(registry, name, sample.folder / "1" / "model.onnx")
    assert list(plan.after["files"]) == ["1/model.onnx", "1/weights and more.data", "config.pbtxt"]
    assert [
        (tensor.name, list(tensor.dims))
        for tensor in (*plan.model.config.input, *plan.model.config.output)
    ] == [("x", [-1, 3]), ("y", [-1, 2])]
    files = files_of(registry, name, 1)
    assert f"{name}/1/weights and more.data" in [file.path for file in files.list()]
    signature = yaml.safe_load(files.read("MLmodel"))["signature"]
    assert json.loads(signature["inputs"]) == [
        {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}, "name": "x"}
    ]


def test_mlflow_itself_reads_it(
    registry: Registry, server: MLflow, name: str, tmp_path: Path
) -> None:
    publish_model(
        registry,
        name,
        models.make_forest(tmp_path).folder,
        input_example={"input__0": [[1.0, 2.0, 3.0, 4.0]]},
    )
    program = (
        "import json, sys, mlflow; mlflow.set_tracking_uri(sys.argv[1]); info ="
        " mlflow.models.get_model_info(sys.argv[2])\nexample ="
        " mlflow.models.Model.load(sys.argv[2]).load_input_example(sys.argv[2])\nprint(json.dumps([info.flavors['triton']['data'],"  # noqa: E501
        " info.signature.inputs.input_names(),\n                 "
        " info.signature.outputs.input_names(), example]))"
    )
    command = [
        str(server_python("MLFLOW_SERVER_PYTHON", "mlflow-server")),
        "-c",
        program,
        server.url,
        f"models:/{name}/1",
    ]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")[0]
    assert json.loads(said) == [
        "forest",
        ["input__0"],
        ["output__0"],
        {"input__0": [[1.0, 2.0, 3.0, 4.0]]},
    ]


def test_links_inside_are_resolved(registry: Registry, name: str, tmp_path: Path) -> None:
    folder = models.make_forest(tmp_path / "models" / "triton-model-repo").folder
    shared = tmp_path / "models" / "forest-models"
    shared.mkdir()
    (folder / "1" / "xgboost.json").rename(shared / "real.json")
    (folder / "1" / "xgboost.json").symlink_to(os.path.relpath(shared / "real.json", folder / "1"))
    publish_model(registry, name, folder)
    assert (
        files_of(registry, name, 1).read("forest/1/xgboost.json")
        == (shared / "real.json").read_bytes()
    )


def no_version(folder: Path) -> None:
    shutil.rmtree(folder / "1")


def link_outside(folder: Path) -> None:
    (folder / "1" / "passwd").symlink_to("/etc/passwd")


def lfs_pointer(folder: Path) -> None:
    (folder / "1" / "model.onnx").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )


def link_as_text(folder: Path) -> None:
    (folder / "1" / "model.onnx").write_text("../../../shared/model.onnx")


def broken_config(folder: Path) -> None:
    (folder / "config.pbtxt").write_text("max_batch_size: many\n")


def no_files(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_version, "no version folder"),
        (link_outside, "which leaves"),
        (lfs_pointer, "git-lfs pointer"),
        (link_as_text, "without links"),
        (broken_config, "line 1, column 17"),
        (no_files, "is empty"),
    ],
)
def test_folder_that_cannot_be_published(
    registry: Registry, name: str, tmp_path: Path, spoil: Any, said: str
) -> None:
    folder = models.make_onnx(tmp_path / "repository").folder
    spoil(folder)
    with pytest.raises(DeliveryError) as caught:
        publish_model(registry, name, folder)
    assert said in str(caught.value)
    assert f"model '{name}'" in str(caught.value)
    assert "Nothing was published" in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"no model at all", None]
)
def test_file_that_is_no_model(
    registry: Registry, name: str, tmp_path: Path, data: bytes | None
) -> None:
    whole = (models.make_onnx(tmp_path).folder / "1" / "model.onnx").read_bytes()
    (tmp_path / "bad.onnx").write_bytes(whole[:-20] if data is None else data)
    with pytest.raises(ArtifactError, match=r"bad\.onnx"):
        publish_model(registry, name, tmp_path / "bad.onnx")


@pytest.mark.parametrize(
    "options",
    [
        {"aliases": ("latest",)},
        {"aliases": ("v1",)},
        {"aliases": ("a b",)},
        {"tags": {"triton.digest": "x"}},
        {"tags": {"triton.content": "x"}},
    ],
)
def test_options_that_cannot_be_meant(options: Mapping[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        DesiredPublication("name", "/nowhere", **options)


def test_broken_upload_leaves_no_version(registry: Registry, name: str, tmp_path: Path) -> None:
    folder = models.make_onnx(tmp_path).folder
    plan = plan_publication(registry, DesiredPublication(name, str(folder)))
    whole = (folder / "1" / "model.onnx").read_bytes()
    (folder / "1" / "model.onnx").write_bytes(b"changed meanwhile" + b"!" * 158)
    with pytest.raises(DeliveryError, match="No version was made"):
        apply_publication(registry, plan)
    with pytest.raises(NotFound):
        registry.model_info(name)
    (folder / "1" / "model.onnx").write_bytes(whole)
    assert publish_model(registry, name, folder)[1].version == 1


def test_command_of_the_guide(
    server: MLflow, registry: Registry, name: str, tmp_path: Path
) -> None:
    folder = models.make_onnx(tmp_path).folder
    command = [
        sys.executable,
        str(ROOT / "publish_model_to_mlflow.py"),
        "--model_name",
        name,
        "--model_directory",
        str(folder),
        "--flavor",
        "triton",
    ]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": server.url}
    for _time in range(2):
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment
        )
        assert done.stdout.strip() == registry.artifact_root(name, 1)
    assert len(registry.model_info(name).versions) == 1
    more = [*command, "--alias", "champion", "--tag", "a=b", "--description", "text"]
    subprocess.run(more, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment)
    version = registry.model_info(name).versions[0]
    assert (version.version, version.aliases, version.tags["a"], version.description) == (
        1,
        ("champion",),
        "b",
        "text",
    )
    for wrong in (["--config", "{"], ["--config", "[1]"], ["--tag", "a"]):
        failed = subprocess.run(
            [*command, *wrong],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
        )
        assert (failed.returncode, failed.stderr.count("\n")) == (1, 1), failed.stderr
    smaller = [*command, "--config", '{"max_batch_size": 2}']
    subprocess.run(
        smaller, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert len(registry.model_info(name).versions) == 2
