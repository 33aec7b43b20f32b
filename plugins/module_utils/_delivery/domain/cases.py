# SPDX-License-Identifier: Apache-2.0
"""What a user may say to verify with, as far as no model has to be known for it. Pure.

numpy makes something of almost everything, and says that it cannot be computed with when a model
that nobody has proven is live already.
"""

from __future__ import annotations

import json
import numbers
from collections.abc import Iterator, Mapping

from ..outside import Json, JsonDict, JsonObject

# What numpy's arrays may have.
_MOST_DIMENSIONS = 32
# What MLflow's scoring server takes; what they hold, the model's signature says.
_DOCUMENTS = frozenset({"dataframe_split", "dataframe_records", "inputs", "instances"})


def is_named(inputs: object) -> bool:
    """Whether each value has the name of its tensor: by key, or as Triton's requests say it."""
    if isinstance(inputs, (list, tuple)):
        return bool(inputs) and all(
            isinstance(one, Mapping) and isinstance(one.get("name"), str) and "data" in one
            for one in inputs
        )
    return isinstance(inputs, Mapping) and bool(inputs)


def why_no_case(case: JsonObject) -> str | None:
    """Why these inputs and outputs, which are named, are none; None where they are."""
    inputs = case["inputs"]
    values = inputs if isinstance(inputs, Mapping) else {e["name"]: e["data"] for e in inputs}
    if _is_document(values):
        values = {}
    for kind, tensors in (("inputs", values), ("outputs", case.get("outputs") or {})):
        for name, value in tensors.items():
            if reason := _why_no_array(value):
                return f"verify.{kind}.{name} {reason}"
    return None


def _is_document(inputs: Mapping[str, object]) -> bool:
    """Whether it is one of MLflow's, with values that no tensor has: mappings of columns."""
    wraps = [*(inputs.keys() & _DOCUMENTS)]
    if len(wraps) != 1 or {*inputs} - _DOCUMENTS - {"params"}:
        return False
    value = inputs[wraps[0]]
    rows = value if isinstance(value, (list, tuple)) else [value]
    return bool(rows) and (all(isinstance(row, Mapping) for row in rows) or len(inputs) > 1)


def as_json(case: JsonObject) -> JsonDict | None:
    """The case as a record holds it; None for one that JSON cannot hold, such as bytes that are no
    text.
    """
    try:
        found: JsonDict = json.loads(json.dumps(case, default=_for_json))
    except (TypeError, ValueError):
        return None
    return found


def is_same(one: JsonObject | None, other: JsonObject | None) -> bool:
    """Of two cases as records hold them; a number that is none is not equal to itself."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _for_json(value: Json) -> Json:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Mapping):
        return dict(value)
    if not hasattr(value, "tolist"):
        raise TypeError(type(value).__name__)
    return value.tolist()


def has_texts(value: Json) -> bool:
    """Of an array: one of its values is a text."""
    return any(isinstance(one, (str, bytes)) for one in _flat(_plain(value)))


def _why_no_array(value: Json) -> str | None:
    level = [_plain(value)]
    for _dimension in range(_MOST_DIMENSIONS):
        lists = [one for one in level if isinstance(one, list)]
        if not lists:
            return next(filter(None, map(_why_no_value, level)), None)
        if len(lists) < len(level) or len({*map(len, lists)}) > 1:
            return "is no regular array: its rows are not as long, or as deep, as one another"
        level = [_plain(one) for values in lists for one in values]
    return f"has more than {_MOST_DIMENSIONS} dimensions"


def _why_no_value(value: Json) -> str | None:
    if isinstance(value, (str, bytes, numbers.Number)):  # a boolean is a number
        return None
    if value is None:
        return "has null, which no tensor can hold; a number that is none is written .nan"
    return f"has {value!r}, which is neither a number nor a text nor a boolean"


def _plain(value: Json) -> Json:
    """Arrays of numpy, which Python's callers have, as lists."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return list(value) if isinstance(value, tuple) else value


def _flat(value: Json) -> Iterator[Json]:
    if not isinstance(value, list):
        yield value
        return
    for one in value:
        yield from _flat(_plain(one))
