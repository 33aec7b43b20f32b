# SPDX-License-Identifier: Apache-2.0
"""Files that somebody exchanges between listing and reading, and places of which a store says that
its files came there: nothing is followed, and nothing is waited for.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery import no_follow
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.mlflow_downloader import (  # noqa: E501
    DownloaderRoot,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.places import (
    ArtifactPlaces,
    PlaceRefused,
    check_remote,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.roots import (
    LocalRoot,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.disk import hash_file
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import ArtifactError
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.upload import (
    UploadSource,
    upload,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)

SECRET = b"s" * 3000


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(b"x" * 3000)
    secret = tmp_path / "private" / "1"
    secret.mkdir(parents=True)
    (secret / "model.onnx").write_bytes(SECRET)
    return folder


def link(model: Path) -> None:
    (model / "1" / "model.onnx").unlink()
    (model / "1" / "model.onnx").symlink_to(model.parent / "private" / "1" / "model.onnx")


def link_inside(model: Path) -> None:
    (model / "other").write_bytes(SECRET)
    (model / "1" / "model.onnx").unlink()
    (model / "1" / "model.onnx").symlink_to("../other")


def link_of_the_folder(model: Path) -> None:
    (model / "1").rename(model / "before")
    (model / "1").symlink_to(model.parent / "private" / "1")


def link_of_the_root(model: Path) -> None:
    model.rename(model.with_name("before"))
    model.symlink_to(model.parent / "private")


def pipe(model: Path) -> None:
    (model / "1" / "model.onnx").unlink()
    os.mkfifo(model / "1" / "model.onnx")


def socket_file(model: Path) -> None:
    (model / "1" / "model.onnx").unlink()
    before = os.getcwd()
    os.chdir(model / "1")  # the address of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("model.onnx")
    finally:
        os.chdir(before)


def another_file(model: Path) -> None:
    """A hard link to what the reader may read, and who put it there may not."""
    (model / "1" / "model.onnx").unlink()
    os.link(model.parent / "private" / "1" / "model.onnx", model / "1" / "model.onnx")


@pytest.mark.parametrize(
    "swap",
    [link, link_inside, link_of_the_folder, link_of_the_root, pipe, socket_file, another_file],
)
@pytest.mark.parametrize("links", [True, False])
def test_what_was_not_listed_is_not_read(
    swap: Callable[[Path], None], links: bool, model: Path, tmp_path: Path
) -> None:
    root = LocalRoot(str(model), 5, links=links)
    root.list()
    swap(model)
    target = tmp_path / "target"
    with pytest.raises(ArtifactError, match=r"1/model\.onnx"):
        root.fetch({"1/model.onnx": str(target)})
    assert not target.exists() or target.read_bytes() == b""
    with pytest.raises(ArtifactError):
        root.read("1/model.onnx")


@pytest.mark.parametrize("swap", [link_of_the_folder, link_of_the_root])
def test_link_that_comes_after_its_place_was_resolved_is_not_followed(
    swap: Callable[[Path], None], model: Path
) -> None:
    path = str(model / "1" / "model.onnx")
    swap(model)
    with pytest.raises(ArtifactError, match="is not followed"):
        no_follow.open_file(path)
    with pytest.raises(ArtifactError, match="is not followed"):
        no_follow.entries(os.path.dirname(path))
    with pytest.raises(ArtifactError, match="is not followed"):
        no_follow.create_file(str(model / "1" / "new"))
    assert not list(model.parent.rglob("new"))


@pytest.mark.parametrize("swap", [link, pipe])
def test_file_is_not_waited_for(swap: Callable[[Path], None], model: Path) -> None:
    swap(model)
    with pytest.raises(ArtifactError, match=r"is not followed|is no regular file"):
        no_follow.open_file(str(model / "1" / "model.onnx"))


def test_folder_through_which_one_may_only_pass_is_passed(model: Path) -> None:
    (model / "1").chmod(0o700)
    model.chmod(0o711)
    with no_follow.open_file(str(model / "1" / "model.onnx")) as file:
        assert file.read() == b"x" * 3000


def test_links_in_a_place_of_the_registry_are_refused(model: Path) -> None:
    (model / "again").symlink_to("1/model.onnx")
    assert LocalRoot(str(model), 5).list()
    with pytest.raises(ArtifactError, match="again is a symbolic link"):
        LocalRoot(str(model), 5, links=False).list()


# --- what MLflow's own code brings ----------------------------------------------------------------


class Repository:
    """An artifact repository of MLflow with one file, which answers as ``came`` says."""

    def __init__(self, came: Callable[[str], str]) -> None:
        self._came = came

    @staticmethod
    def list_artifacts(path: str | None) -> list[SimpleNamespace]:
        return [SimpleNamespace(path="model.onnx", is_dir=False, file_size=3000)]

    def download_artifacts(self, _path: str, folder: str) -> str:
        return self._came(folder)


def copied(folder: str) -> str:
    Path(folder, "model.onnx").write_bytes(b"x" * 3000)
    return f"{folder}/model.onnx"


def test_copy_is_taken(tmp_path: Path) -> None:
    root = DownloaderRoot("the store", 5, Repository(copied))
    assert root.read("model.onnx", limit=3000) == b"x" * 3000
    found = root.fetch({"model.onnx": str(tmp_path / "target")})
    assert found["model.onnx"].size == 3000


@pytest.mark.parametrize("way", ["place of its own", "dots", "link", "pipe"])
def test_what_is_no_copy_is_not_taken(way: str, model: Path, tmp_path: Path) -> None:
    secret = model.parent / "private" / "1" / "model.onnx"

    def came(folder: str) -> str:
        if way == "link":
            os.symlink(secret, f"{folder}/model.onnx")
        elif way == "pipe":
            os.mkfifo(f"{folder}/model.onnx")
        elif way == "dots":
            return f"{folder}/../private/1/model.onnx"
        else:
            return str(secret)
        return f"{folder}/model.onnx"

    root = DownloaderRoot("the store", 5, Repository(came))
    mode = secret.stat().st_mode
    with pytest.raises(ArtifactError):
        root.fetch({"model.onnx": str(tmp_path / "target")})
    assert not (tmp_path / "target").exists()
    with pytest.raises(ArtifactError):
        root.read("model.onnx", limit=3000)
    assert secret.read_bytes() == SECRET and secret.stat().st_mode == mode


class Uploads(Repository):
    """Takes what is uploaded, after ``meanwhile`` was done to the source."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        super().__init__(copied)
        self.came = b""
        self._meanwhile = meanwhile

    def log_artifact(self, local: str, _folder: str | None) -> None:
        self._meanwhile()
        self.came = Path(local).read_bytes()


def connection(repository: Repository) -> Any:
    return SimpleNamespace(
        timeout=5,
        repository=lambda _root: repository,
        files_at=lambda _root: DownloaderRoot("the store", 5, repository),
    )


def test_file_that_is_swapped_while_it_is_published_is_not_followed(model: Path) -> None:
    file = model / "1" / "model.onnx"
    pieces = {"model.onnx": UploadSource(3000, str(file), hash_file(str(file)))}
    uploads = Uploads(lambda: link(model))
    upload(connection(uploads), "s3://bucket/x", pieces)
    assert uploads.came == b"x" * 3000
    with pytest.raises(ArtifactError, match=r"is not followed"):
        upload(connection(uploads), "s3://bucket/x", pieces)


def test_file_that_is_written_while_it_is_published_is_refused(model: Path) -> None:
    file = model / "1" / "model.onnx"
    pieces = {"model.onnx": UploadSource(3000, str(file), hash_file(str(file)))}
    uploads = Uploads(lambda: file.write_bytes(SECRET))
    with pytest.raises(ArtifactError, match="changed while it was being published"):
        upload(connection(uploads), "s3://bucket/x", pieces)


# --- which places ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "root",
    [
        "dbfs:/models", "runs:/1/model", "MODELS:/fraud/1", "local:/etc", "C:/models", "uc:/x",
        "file+x:///etc", "://", "http+unix://x",
    ],
)  # fmt: skip
def test_kinds_of_stores_that_are_not_known_are_refused(root: str) -> None:
    with pytest.raises(PlaceRefused, match="the registry says that the files lie at"):
        check_remote(root)
    with pytest.raises(PlaceRefused):
        Registry("http://127.0.0.1:9", 5).files_at(root)


def test_stores_of_mlflow_are_known() -> None:
    for root in ("s3://bucket/x", "gs://b/x", "wasbs://c@a.blob.core.windows.net/x", "S3://b/x"):
        check_remote(root)


@pytest.mark.parametrize(
    "root",
    [
        "r2://bucket@evil.example/x",
        "r2://evil.example/x",
        "r2://bucket@account.r2.cloudflarestorage.com@evil.example/x",
        "r2://bucket@evil.example:443#.r2.cloudflarestorage.com/x",
        "r2://bucket@account.r2.cloudflarestorage.com.evil.example/x",
        "b2://bucket@s3.us.backblazeb2.com.evil.example/x",
        "abfss://files@account.evil.example/x",
        "abfss://files@account.dfs.core.windows.net@evil.example/x",
        "abfss://files@account.evil.example?.dfs.core.windows.net/x",
        "abfss://files@account.evil.example\\.dfs.core.windows.net/x",
        "wasbs://files@account.evil.example/x",
    ],
)
def test_no_store_in_the_cloud_is_somebody_elses_server(root: str) -> None:
    """The credentials of the environment are shown to whatever host such a location names."""
    with pytest.raises(PlaceRefused, match="which is no server of"):
        check_remote(root)


def test_stores_in_the_cloud_are_read_under_their_own_names() -> None:
    for root in (
        "r2://bucket@0af1.r2.cloudflarestorage.com/x",
        "r2://bucket@0af1.eu.r2.cloudflarestorage.com/x",
        "b2://bucket@s3.us-west-004.backblazeb2.com/x",
        "abfss://files@account.dfs.core.windows.net/x",
        "abfss://files@account.dfs.core.chinacloudapi.cn/x",
        "abfss://files@account.privatelink.dfs.core.windows.net/x",
        "abfss://files@account.z12.dfs.storage.azure.net/x",
        "abfss://work@onelake.dfs.fabric.microsoft.com/x",
        "wasbs://c@a.blob.core.usgovcloudapi.net/x",
    ):
        check_remote(root)


MODEL_ID, RUN_ID = "m-" + "0a" * 16, "0b" * 16


@pytest.mark.parametrize(
    ("uri", "place", "permitted"),
    [
        ("http://127.0.0.1:5000", f"0/models/{MODEL_ID}/artifacts", True),
        ("http://localhost:5000", f"17/{RUN_ID}/artifacts/triton", True),
        ("sqlite:////tmp/mlflow.db", f"0/{RUN_ID}/artifacts", True),
        ("http://mlflow.example.com", f"0/models/{MODEL_ID}/artifacts", False),
        ("http://127.0.0.1:5000", "0/models/m-1/artifacts", False),
        ("http://127.0.0.1:5000", f"models/{MODEL_ID}/artifacts", False),
        ("http://127.0.0.1:5000", f"{RUN_ID}/artifacts", False),
        ("http://127.0.0.1:5000", f"0/{RUN_ID}/artifacts-not", False),
        ("http://127.0.0.1:5000", "", False),
    ],
)
def test_command_lines_beside_mlflow_take_the_folders_that_it_made(
    uri: str, place: str, permitted: bool, tmp_path: Path
) -> None:
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    beside = Registry(uri, 5, places=ArtifactPlaces(beside_mlflow=True))
    if permitted:
        assert beside.local_place(folder.as_uri()) == str(folder)
    else:
        with pytest.raises(PlaceRefused, match="artifact_folders"):
            beside.local_place(folder.as_uri())
    with pytest.raises(PlaceRefused, match="artifact_folders"):
        Registry(uri, 5).local_place(folder.as_uri())


def test_link_with_the_name_of_a_folder_of_mlflow_is_refused(tmp_path: Path) -> None:
    above = tmp_path / "0" / "models" / MODEL_ID
    above.mkdir(parents=True)
    (tmp_path / "private").mkdir()
    (above / "artifacts").symlink_to(tmp_path / "private")
    places = ArtifactPlaces(beside_mlflow=True)
    with pytest.raises(PlaceRefused, match="artifact_folders"):
        Registry("http://127.0.0.1:5000", 5, places=places).local_place(f"{above}/artifacts")


@pytest.mark.parametrize("form", ["file://{}", "{}"])
def test_file_store_of_the_user_is_the_users_own(form: str, tmp_path: Path) -> None:
    store = tmp_path / "mlruns"
    store.mkdir()
    registry = Registry(form.format(store), 5)
    assert registry.local_place(f"file://{store}/0/x") == f"{store}/0/x"
    with pytest.raises(PlaceRefused, match="artifact_folders"):
        registry.local_place(f"file://{tmp_path}/elsewhere")


@pytest.mark.parametrize(
    "uri", ["", "file:", "databricks", "databricks://profile", "sqlite:///x.db"]
)
def test_address_that_is_no_folder_makes_none_the_users_own(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path / "0", tmp_path / "databricks" / "0"):
        with pytest.raises(PlaceRefused, match="artifact_folders"):
            Registry(uri, 5).local_place(str(place))
