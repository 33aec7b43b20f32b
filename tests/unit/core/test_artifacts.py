# SPDX-License-Identifier: Apache-2.0
"""Artifact roots that are folders of this host, and transfers that fail or stall."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.roots import (
    LocalRoot,
    RemoteFile,
    RemoteRoot,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.transfer import (
    Stream,
    Unreachable,
    run_transfers,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    ArtifactError,
    NotFound,
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "net"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(b"x" * 3000)
    (folder / "config.pbtxt").write_bytes(b"")
    (folder / "2").mkdir()
    return folder


def test_local_listing(model: Path) -> None:
    root = LocalRoot(str(model), 5)
    assert root.list() == (RemoteFile("1/model.onnx", 3000), RemoteFile("config.pbtxt", 0))
    assert root.folders() == ("2",)
    assert root.read("config.pbtxt") == b""
    with pytest.raises(NotFound):
        root.read("2/none")
    with pytest.raises(ArtifactError, match="more than 10 bytes"):
        root.read("1/model.onnx", limit=10)


def test_local_fetch_copies(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    seen: list[tuple[str, int]] = []
    entry = LocalRoot(str(model), 5).fetch(
        {"1/model.onnx": str(target)}, lambda *told: seen.append(told)
    )["1/model.onnx"]
    assert (entry.size, entry.sha256) == (3000, hashlib.sha256(b"x" * 3000).hexdigest())
    assert target.read_bytes() == b"x" * 3000
    assert os.stat(target).st_nlink == 1
    assert seen[-1] == ("1/model.onnx", 3000)


def test_fetch_does_not_overwrite(model: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    with pytest.raises(ArtifactError, match=r"1/model\.onnx"):
        LocalRoot(str(model), 5).fetch({"1/model.onnx": str(tmp_path / "target")})
    assert (tmp_path / "target").read_text() == "mine"


def test_a_file_that_is_written_into_while_it_is_copied_is_refused(
    model: Path, tmp_path: Path
) -> None:
    path = model / "1" / "model.onnx"
    os.utime(path, (1, 1))

    def write_into(_stream: Stream, _count: int) -> None:
        path.write_bytes(b"y" * 3000)

    with (
        patch.object(Stream, "add", write_into),
        pytest.raises(ArtifactError, match=r"1/model.onnx \(somebody wrote into it"),
    ):
        LocalRoot(str(model), 5).fetch({"1/model.onnx": str(tmp_path / "copy")})


def test_a_copy_that_is_still_hashed_has_not_stalled(model: Path, tmp_path: Path) -> None:
    """A file system that shares extents copies a hundred gigabytes at once, and hashing takes
    minutes.
    """
    (model / "1" / "weights").write_bytes(bytes(2 << 20))
    sha256 = hashlib.sha256

    class Slow:
        def __init__(self) -> None:
            self.real = sha256()

        def update(self, data: bytes) -> None:
            time.sleep(0.6)
            self.real.update(data)

        def hexdigest(self) -> str:
            return self.real.hexdigest()

    with patch.object(hashlib, "sha256", Slow):
        found = LocalRoot(str(model), 0.3).fetch({"1/weights": str(tmp_path / "copy")})
    assert found["1/weights"].sha256 == hashlib.sha256(bytes(2 << 20)).hexdigest()


def test_links_that_stay_inside_are_resolved(model: Path, tmp_path: Path) -> None:
    (tmp_path / "models" / "shared").mkdir()
    (tmp_path / "models" / "shared" / "weights").write_bytes(b"w" * 9)
    (model / "1" / "weights").symlink_to("../../shared/weights")
    (model / "assets").symlink_to("../shared")
    root = LocalRoot(str(model), 5, inside=str(tmp_path / "models"))
    assert RemoteFile("1/weights", 9) in root.list()
    assert RemoteFile("assets/weights", 9) in root.list()
    assert root.read("1/weights") == b"w" * 9


def loop(model: Path) -> None:
    (model / "again").symlink_to(".")


def leaves(model: Path) -> None:
    (model / "1" / "passwd").symlink_to("/etc/passwd")


def leaves_by_folder(model: Path) -> None:
    (model / "etc").symlink_to("/etc")


def dangling(model: Path) -> None:
    (model / "gone").symlink_to("nowhere")


def pipe(model: Path) -> None:
    os.mkfifo(model / "pipe")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (loop, "folder that holds it"),
        (leaves, "which leaves"),
        (leaves_by_folder, "which leaves"),
        (dangling, "does not exist"),
        (pipe, "neither a file nor a folder"),
    ],
)
def test_folder_that_cannot_be_taken(model: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(model)
    with pytest.raises(ArtifactError, match=said):
        LocalRoot(str(model), 5).list()


class Listed:
    """A store which lists what it is told to."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def entries(self, path: str) -> list[tuple[str, bool, int | None]]:
        return [(name, False, 1) for name in self.names] if not path else []

    def open(self, path: str) -> object:
        raise ArtifactError("not asked for")


@pytest.mark.parametrize("name", ["../x", "..", "/etc/passwd", "a/b", "a\0b", ""])
def test_store_cannot_name_files_outside(name: str) -> None:
    with pytest.raises(ArtifactError):
        RemoteRoot("the store", 5, Listed([name])).list()


class Endless:
    """A store in which each folder lists itself."""

    def entries(self, path: str) -> list[tuple[str, bool, int | None]]:
        return [("." if path else "1", True, None)]

    def open(self, path: str) -> object:
        raise ArtifactError("not asked for")


def test_store_cannot_list_without_end() -> None:
    with pytest.raises(ArtifactError, match=r"lists '\.' in the folder"):
        RemoteRoot("the store", 5, Endless()).list()


def test_transfers_gather_failures() -> None:
    def job(number: int) -> Callable[[Stream], int]:
        def work(stream: Stream) -> int:
            if number % 3 == 0:
                raise ArtifactError(f"reason {number}")
            stream.add(number)
            return number

        return work

    with pytest.raises(ArtifactError) as caught:
        run_transfers(
            {f"f{number:02}": job(number) for number in range(30)},
            workers=4,
            stall=5,
            failed="could not be moved",
        )
    assert "10 of 30 files could not be moved: f00 (reason 0); f03 (reason 3)" in str(caught.value)
    assert "5 more" in str(caught.value)
    failed = caught.value.facts["files_failed"]
    assert isinstance(failed, list)
    assert len(failed) == 10


def test_transfers_stop_where_all_would_fail() -> None:
    tried: list[str] = []

    def work(stream: Stream) -> None:
        tried.append(stream.path)
        raise Unreachable("nobody listens")

    with pytest.raises(ArtifactError, match="were not tried after that"):
        run_transfers(
            {f"f{number:02}": work for number in range(30)},
            workers=2,
            stall=5,
            failed="could not be moved",
        )
    assert len(tried) <= 4


def test_stalled_transfer_is_given_up() -> None:
    release = threading.Event()
    written: list[str] = []

    def trickle(stream: Stream) -> None:
        for _byte in range(1000):
            release.wait(0.05)
            stream.add(1)
            written.append(stream.path)

    def quick(stream: Stream) -> None:
        stream.add(1 << 20)

    began = time.monotonic()
    with pytest.raises(
        ArtifactError,
        match=r"1 of 2 files could not be moved: slow \(less than 1 KiB came within 0.5 s",
    ):
        run_transfers(
            {"slow": trickle, "quick": quick}, workers=2, stall=0.5, failed="could not be moved"
        )
    assert time.monotonic() - began < 20
    after = len(written)
    time.sleep(0.3)
    assert len(written) <= after + 1, "a transfer that was given up goes on writing"


def test_slow_but_steady_transfer_is_not_given_up() -> None:
    def steady(stream: Stream) -> int:
        for _piece in range(8):
            time.sleep(0.1)
            stream.add(1024)
        return stream.moved

    assert run_transfers({"steady": steady}, workers=1, stall=0.4, failed="could not be moved") == {
        "steady": 8192
    }
