# SPDX-License-Identifier: Apache-2.0
"""What may be said to verify with: refused when the options are read, and not when an unproven
model is live.
"""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.cases import has_texts
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import InvalidOption

DEEP: Any = 1
for _level in range(40):
    DEEP = [DEEP]


def read(verify: Any) -> Any:
    options = {"name": "net", "model_uri": "models:/net/1", "verify": verify}
    return DesiredModel.from_options(options).verify


def outputs(value: Any) -> dict[str, Any]:
    return {"inputs": {"x": [[1, 2]]}, "outputs": {"y": value}}


@pytest.mark.parametrize("where", ["inputs", "outputs"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([[2, None, 6]], "has null, which no tensor can hold; a number that is none is written"),
        (None, "has null"),
        ([[2, 4], [1]], "is no regular array"),
        ([[2, 4], 1], "is no regular array"),
        ({"a": 1}, "has {'a': 1}, which is neither a number nor a text nor a boolean"),
        ([[1, {"a": 1}]], "has {'a': 1}, which is neither a number nor a text nor a boolean"),
        (DEEP, "has more than 32 dimensions"),
    ],
)
def test_values_that_are_no_array_are_refused(where: str, value: Any, words: str) -> None:
    verify = {"inputs": {"x": [[1]]}, where: {"t": value}}
    with pytest.raises(InvalidOption) as caught:
        read(verify)
    assert f"verify.{where}.t {words}" in str(caught.value)
    assert str(caught.value).endswith("Nothing was changed.")


@pytest.mark.parametrize(
    "verify",
    [
        {"nonsense": 1},
        {"inputs": {}},
        {"inputs": [1]},
        {"inputs": [{"name": "x", "shape": [1, 2]}]},
        {"inputs": [{"data": [1]}]},
        {"inputs": {"x": 1}, "outputs": [1]},
        {"inputs": {"x": 1}, "outputs": [{"name": "y", "data": [1]}]},
    ],
)
def test_tensors_are_named(verify: Any) -> None:
    with pytest.raises(InvalidOption, match="inputs and outputs map names of tensors to nested"):
        read(verify)


@pytest.mark.parametrize(
    "verify",
    [
        outputs([[1, 2.5, True]]),
        outputs([["a", "b"]]),
        outputs([["a", 1]]),
        outputs(5),
        outputs([]),
        outputs([[], []]),
        outputs(((1, 2), [3, 4])),
        outputs([float("nan")]),
        {"inputs": {"x": [1]}, "outputs": None, "tolerance": None},
        {"inputs": {"x": [1]}, "outputs": {}},
        {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]},
    ],
)
def test_regular_arrays_of_numbers_texts_and_booleans_are_taken(verify: Any) -> None:
    assert read(verify) == verify


def test_arrays_of_pythons_callers_are_taken() -> None:
    numpy = pytest.importorskip("numpy")
    for value in (numpy.ones((2, 3)), [numpy.float32(1), 2], numpy.array(["a"], object)):
        read(outputs(value))
    with pytest.raises(InvalidOption, match=r"verify\.outputs\.y has null"):
        read(outputs(numpy.array([None])))


@pytest.mark.parametrize(
    ("value", "expected"), [([[1, "a"]], True), ("a", True), ([[1, True, 2.5]], False), ([], False)]
)
def test_which_have_texts(value: Any, expected: bool) -> None:
    assert has_texts(value) is expected
