# SPDX-License-Identifier: Apache-2.0
"""YAML of a publisher keeps its texts."""

from __future__ import annotations

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.yaml_text import (
    read_yaml,
)

pytest.importorskip("yaml")


@pytest.mark.parametrize("text", ["network", "numpy==1.26", "Nothing", "~/models", "nullable"])
def test_a_text_that_begins_as_null_does_is_a_text(text: str) -> None:
    assert read_yaml(f"data: {text}".encode()) == {"data": text}


@pytest.mark.parametrize("text", ["null", "~", "Null", "NULL", ""])
def test_null_is_nothing(text: str) -> None:
    assert read_yaml(f"data: {text}".encode()) == {"data": None}
