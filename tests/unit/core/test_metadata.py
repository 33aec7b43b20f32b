# SPDX-License-Identifier: Apache-2.0
"""MLmodel may be anybody's: what it says is a model, or a sentence says what is wrong with it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.metadata import (
    read_artifact,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.roots import (
    LocalRoot,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import (
    Artifact,
    Layout,
    Numbering,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.provenance import (
    Signature,
    Signer,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import ArtifactError
from ansible_collections.mlops.triton.plugins.module_utils._delivery.flavors.layouts import (
    layout_of,
)


def layout(folder: Path, mlmodel: str | bytes) -> Layout:
    for path in ("1/model.onnx", "model.ubj"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"weights")
    (folder / "MLmodel").write_bytes(mlmodel.encode() if isinstance(mlmodel, str) else mlmodel)
    return layout_of(
        read_artifact(LocalRoot(str(folder), 30)), None, Numbering("auto", None, False)
    )


@pytest.mark.parametrize(
    "mlmodel",
    [
        "{{{{ :",
        "flavors: [triton]",
        "flavors: triton",
        "flavors: {triton: yes-please}",
        "flavors: {triton: [data]}",
        "? {a: b}\n: c",
        "a: &a [*a]",
        "[" * 100_000,
        b"\xff\xfe\xff",
        b"a: \x00",
    ],
    ids=range(10),
)
def test_what_is_no_mlmodel_is_refused_with_a_sentence(
    tmp_path: Path, mlmodel: str | bytes
) -> None:
    with pytest.raises(ArtifactError, match="its MLmodel cannot be read: "):
        layout(tmp_path, mlmodel)


@pytest.mark.parametrize(
    "rest",
    [
        "when: 9999-99-99",
        f"size: {'9' * 100_000}",
        f"size: {'59:' * 300_000}59",  # a number to the base of 60, for which YAML takes seconds
        "signature: [1]",
        "signature: {inputs: '" + "[" * 100_000 + "'}",
        "signature: {inputs: {a: b}}",
    ],
    ids=range(6),
)
def test_what_mlmodel_says_beside_the_model_does_not_matter(tmp_path: Path, rest: str) -> None:
    found = layout(tmp_path, f"flavors: {{xgboost: {{data: model.ubj, code: null}}}}\n{rest}\n")
    assert (found.flavor, found.columns) == ("xgboost", ())


def test_mlmodel_without_flavors_is_as_if_it_said_nothing(tmp_path: Path) -> None:
    for text in ("flavors:", "- a", "{}", json.dumps({"flavors": {}})):
        assert layout(tmp_path, text).flavor == "triton"


def read_signed(folder: Path, *names: str, place: str = "") -> Artifact:
    """An artifact of which somebody signed these files, relative to the folder ``place``."""
    empty = hashlib.sha256(b"").hexdigest()
    for name in names:
        (folder / place / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / place / name).touch()
    (folder / place / "model.sig").touch()
    signature = Signature(Signer("a" * 64), dict.fromkeys(names, empty))
    return read_artifact(LocalRoot(str(folder), 30), lambda _body: signature)


def test_folders_beside_the_one_that_is_signed_are_as_if_they_were_not_there(
    tmp_path: Path,
) -> None:
    (tmp_path / "other/1").mkdir(parents=True)
    found = read_signed(tmp_path, "1/model.onnx", "config.pbtxt", place="churn")
    made = layout_of(found, None, Numbering("auto", None, False))
    assert [target for _source, target, _size in made.files] == ["1/model.onnx"]


@pytest.mark.parametrize("place", ["", "churn"])
def test_a_signed_file_that_is_gone_is_missed_wherever_it_lay(tmp_path: Path, place: str) -> None:
    """Only what MLflow's clients lay beside their MLmodel may be gone."""
    names = ("config.pbtxt", "1/model.onnx", "metadata/labels.txt", "registered_model_meta")
    read_signed(tmp_path, *names, place=place)
    (tmp_path / place / "metadata/labels.txt").rename(tmp_path / "aside")
    signature = dict.fromkeys(names, hashlib.sha256(b"").hexdigest())
    root = LocalRoot(str(tmp_path), 30)
    with pytest.raises(ArtifactError, match=r"metadata/labels\.txt is missing"):
        read_artifact(root, lambda _body: Signature(Signer("a" * 64), signature))
