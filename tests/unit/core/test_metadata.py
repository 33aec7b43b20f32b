# SPDX-License-Identifier: Apache-2.0
"""MLmodel may be anybody's: what it says is a model, or a sentence says what is wrong with it."""

from __future__ import annotations

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
    Layout,
    Numbering,
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
