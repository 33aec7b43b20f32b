# SPDX-License-Identifier: Apache-2.0
"""The publisher's manifest: what it says of a folder, and what it refuses."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.disk import hash_file
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import (
    FileEntry,
    Manifest,
    confine,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import ArtifactError
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.folder import (
    manifest_of_folder,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "1").mkdir()
    (tmp_path / "2" / "empty").mkdir(parents=True)
    (tmp_path / "1" / "model.onnx").write_bytes(b"weights")
    (tmp_path / "config.pbtxt").write_bytes(b"")
    return tmp_path


def test_folder(folder: Path) -> None:
    found = manifest_of_folder(str(folder))
    assert found == Manifest(
        (
            FileEntry("1/model.onnx", 7, hashlib.sha256(b"weights").hexdigest()),
            FileEntry("config.pbtxt", 0, hashlib.sha256().hexdigest()),
        ),
        ("2/empty",),
    )
    assert found.size == 7


def test_digest_does_not_depend_on_the_order() -> None:
    entries = [FileEntry(f"{number}/model", number, f"{number:064x}") for number in range(20)]
    shuffled = random.Random(1).sample(entries, len(entries))
    assert Manifest.of(entries, ["b", "a"]).digest == Manifest.of(shuffled, ["a", "b"]).digest


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "1/model.onnx").write_bytes(b"weighty"),
        lambda folder: (folder / "1/model.onnx").rename(folder / "1/model.plan"),
        lambda folder: (folder / "2/empty").rmdir(),
        lambda folder: (folder / "2/empty/labels.txt").write_text(""),
    ],
    ids=["bytes", "name", "folder", "empty file"],
)
def test_digest_sees(folder: Path, change: Any) -> None:
    before = manifest_of_folder(str(folder))
    change(folder)
    assert manifest_of_folder(str(folder)).digest != before.digest


def test_survives_json(folder: Path) -> None:
    found = manifest_of_folder(str(folder))
    assert Manifest.from_dict(found.to_dict()) == found


@pytest.mark.parametrize(
    "data",
    [
        {"schema": 2, "files": [], "folders": []},
        {"files": [], "folders": []},
        {"schema": 1, "files": [{"path": "../x", "size": 1, "sha256": None}], "folders": []},
        {"schema": 1, "files": [{"path": "x", "size": "many", "sha256": None}], "folders": []},
        {"schema": 1, "files": [], "folders": ["/etc"]},
        {"schema": 1, "files": 3, "folders": []},
    ],
    ids=["newer", "no schema", "leaves", "no size", "absolute", "no list"],
)
def test_foreign_manifest_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError):
        Manifest.from_dict(data)


@pytest.mark.parametrize("path", ["", ".", "/a", "..", "a/../../b", "a\0b", "a\\b"])
def test_path_that_leaves_is_refused(path: str) -> None:
    with pytest.raises(ArtifactError):
        confine(path)


def test_paths_are_normalised() -> None:
    assert confine("a//b/./c") == "a/b/c"


def test_special_files_are_refused(folder: Path) -> None:
    (folder / "link").symlink_to("config.pbtxt")
    with pytest.raises(ArtifactError, match="symbolic link"):
        manifest_of_folder(str(folder))
    (folder / "link").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(ArtifactError, match="neither a file nor a folder"):
        manifest_of_folder(str(folder))


def test_differences_in_words() -> None:
    wanted = Manifest.of(
        [FileEntry("a", 1, "0" * 64), FileEntry("b", 2, "1" * 64), FileEntry("c", 3)]
    )
    found = Manifest.of([FileEntry("a", 1, "f" * 64), FileEntry("b", 5), FileEntry("d", 4)])
    assert wanted.differences(found) == [
        "c is missing",
        "d is not in the manifest",
        "a has sha256 ffffffffffff… instead of 000000000000…",
        "b has 5 bytes instead of 2",
    ]
    assert not wanted.differences(wanted)


def test_large_file_is_hashed_in_pieces(tmp_path: Path) -> None:
    data = random.Random(2).randbytes(3 * (1 << 20) + 1)
    (tmp_path / "large").write_bytes(data)
    assert hash_file(str(tmp_path / "large")) == hashlib.sha256(data).hexdigest()


def test_strays_are_what_is_beside_the_files_of_a_manifest() -> None:
    wanted = Manifest.of([FileEntry("1/a", 1), FileEntry("1/deep/b", 1)], ["2"])
    more = [FileEntry(path, 1) for path in ("1/c", "1/deep/d", "7/a", "7/e/f", "notes")]
    found = Manifest.of([*wanted.files, *more], ["2/empty", "8"])
    assert wanted.strays(found) == ["1/c", "1/deep/d", "2/empty", "7", "8", "notes"]
    assert wanted.strays(wanted) == wanted.strays(Manifest.of([], ["1"])) == []
