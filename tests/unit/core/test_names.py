# SPDX-License-Identifier: Apache-2.0
"""Names of deployments, and in which order what a user gave is judged."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import InvalidOption
from ansible_collections.mlops.triton.plugins.module_utils._delivery.names import check_model_name

# NVIDIA's tests of its plugin (qa/L0_mlflow) look for these words.
EMPTY = "Model name cannot be empty. Please enter a valid name to deploy."
PATH = "Path traversal is not allowed in model's name: "


@pytest.mark.parametrize("name", ["fraud", "a.b", "a@b", "a-1_2", "..a", "x" * 200])
def test_names_that_can_be(name: str) -> None:
    assert check_model_name(name) == name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", EMPTY),
        (None, EMPTY),
        (" \t\n", EMPTY),
        ("..", f"{PATH}.."),
        (".", f"{PATH}."),
        ("../fraud", f"{PATH}../fraud"),
        ("a/b", f"{PATH}a/b"),
        ("/etc", f"{PATH}/etc"),
        ("a\\b", f"{PATH}a\\b"),
        (" fraud", "begins or ends with a space"),
        ("a b", "letters, digits"),
        ("x" * 201, "at most 200"),
        (".mlops-triton", "is reserved"),
    ],
)
def test_names_that_cannot_be(name: Any, words: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        check_model_name(name)
    assert words in str(caught.value)


@pytest.mark.parametrize(("name", "words"), [("", EMPTY), ("../fraud", PATH)])
def test_the_name_is_judged_before_the_uri(name: str, words: str) -> None:
    """A URI that is wrong too is not what the answer is about."""
    pytest.importorskip("mlflow")
    from ansible_collections.mlops.triton.plugins.mlflow_deployments.client import (
        TritonDeploymentClient,
    )
    from mlflow.exceptions import MlflowException

    with pytest.raises(InvalidOption) as judged:
        DesiredModel.from_options({"name": name, "model_uri": "s3://nowhere"})
    assert words in str(judged.value)
    client = TritonDeploymentClient("triton")
    for verb in (client.create_deployment, client.update_deployment):
        with pytest.raises(MlflowException) as caught:
            verb(name, "s3://nowhere", config={"no_such_option": 1})
        assert words in str(caught.value)
