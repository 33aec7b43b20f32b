# SPDX-License-Identifier: Apache-2.0
"""What models answered is written down without a loss: another type, dtype, name, order or last bit
is another text.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

numpy = pytest.importorskip("numpy")
pandas = pytest.importorskip("pandas")

from support.logged_models import values  # noqa: E402

FRAME = pandas.DataFrame({"a": [0.1, float("nan")], "b": ["x", None], "c": [1, 2]})
MOMENTS = pandas.DataFrame({"t": pandas.to_datetime(["2026-01-01T00:00:00.000000001", None])})
VALUES = (
    FRAME,
    FRAME[["c", "a", "b"]],
    FRAME.rename(columns={"a": "A"}),
    FRAME.astype({"c": "int32"}),
    FRAME.assign(a=[numpy.nextafter(0.1, 1), float("nan")]),
    FRAME.assign(b=["x", "nan"]),
    FRAME.set_axis([1, 2]),
    MOMENTS,
    MOMENTS.astype("datetime64[s]"),
    FRAME["a"],
    FRAME["a"].rename("other"),
    FRAME["a"].to_numpy(),
    FRAME[["a"]].to_numpy(),
    FRAME["a"].to_numpy().astype("float32"),
    [0.1, 1],
    [0.1, True],
    (0.1, 1),
    {"a": numpy.array([1])},
    {"a": [1]},
    numpy.float64(0.1),
    0.1,
    -0.0,
    0.0,
    0,
    "text",
    b"text",
    None,
)


def text(value: Any) -> str:
    return json.dumps(values.write(value))


def test_values_that_differ_have_different_texts() -> None:
    texts = [text(value) for value in VALUES]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_is_written_is_read_again(value: Any) -> None:
    written = json.loads(text(value))
    assert values.write(values.read(written)) == written


def test_text_is_text_in_whatever_type_pandas_holds_it() -> None:
    held = [numpy.array(["a", "b"], dtype=dtype) for dtype in (object, "U5", "U1")]
    assert len({text(one) for one in held}) == 1


def test_what_has_no_exact_form_is_refused() -> None:
    with pytest.raises(TypeError, match="complex has no exact form"):
        values.write(1j)
