# SPDX-License-Identifier: Apache-2.0
"""A repository that is a folder, with entries of other people in it."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.folder import (
    FolderRepository,
)


def test_an_entry_that_cannot_be_read_hinders_no_other(tmp_path: Path) -> None:
    for name, file in (("odd", "mlflow-meta.json"), ("odd", "config.pbtxt")):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / file).symlink_to(file)  # to itself: nobody can open it, nor can root
    (tmp_path / "good").mkdir()
    (tmp_path / "good/mlflow-meta.json").write_text("{}")
    (tmp_path / "good/config.pbtxt").write_text("max_batch_size: 1")
    (tmp_path / "a file").write_text("")
    repository = FolderRepository(str(tmp_path))
    assert {name: repository.meta(name) for name in ("odd", "good", "a file", "nothing")} == {
        "odd": None,
        "good": b"{}",
        "a file": None,
        "nothing": None,
    }
    assert list(repository.configs()) == [b"max_batch_size: 1"]
