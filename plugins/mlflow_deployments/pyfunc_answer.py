# SPDX-License-Identifier: Apache-2.0
"""What a model that MLflow's pyfunc runs answered, as pyfunc returns it: DataFrame, Series, array,
list or dictionary, with names and types.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ..module_utils._delivery.domain.served_pyfunc import KINDS, ServedPyfunc, SignatureField
from ..module_utils._delivery.errors import ServerError

_RESPONSE = "response"
_TYPES = {
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
}


def returned_by_pyfunc(outputs: Mapping[str, Any], served: ServedPyfunc, kind: str | None) -> Any:
    """The answer of ``pyfunc.predict``, as far as outputs and signature tell it.

    Args:
        outputs: tensor → array.
        kind: one of ``KINDS``, where the server says; else the signature decides.

    Raises:
        ServerError: the answer is not that of the signature.
    """
    kind = kind if kind in KINDS else None
    if served.in_json:
        return _of_document(outputs, served, kind)
    missing = [str(one.name) for one in served.outputs if one.name not in outputs]
    if missing:
        raise ServerError(f"the answer has no output '{missing[0]}', which the signature names")
    values = [_values(one, outputs[str(one.name)]) for one in served.outputs]
    return _assembled(served.outputs, values, kind or _kind_of(served.outputs))


def _kind_of(fields: tuple[SignatureField, ...]) -> str:
    named = len(fields) > 1 or any(one.column is not None for one in fields)
    if all(one.is_tensor for one in fields):
        return "dict" if named else "array"
    return "frame" if named else "series"


def _assembled(fields: tuple[SignatureField, ...], values: list[Any], kind: str) -> Any:
    names = [one.column if one.column is not None else str(one.name) for one in fields]
    if kind in ("frame", "dict"):
        table = dict(zip(names, values))
        return _frame(table) if kind == "frame" else table
    if len(values) != 1:
        raise ServerError(
            f"the answer is said to be one {kind}, and the signature has {len(values)}"
        )
    if kind == "list":
        return values[0].tolist()
    if kind == "series":
        return _series(values[0], fields[0].column)
    return values[0]


def _values(field: SignatureField, array: Any) -> Any:
    """An array with the values of an output, in the shape that the signature has."""
    import numpy

    flat = not field.is_tensor or (field.shape is not None and len(field.shape) == 1)
    if flat and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype != object or field.type == "binary":
        return array
    if field.type == "bytes":
        return array.astype(numpy.bytes_)
    try:
        texts = [one.decode() if isinstance(one, bytes) else one for one in array.ravel()]
    except UnicodeDecodeError as error:
        raise ServerError(f"output '{field.name}' has a text that is no UTF-8") from error
    if field.type == "datetime":
        return _dates(field, texts).reshape(array.shape)
    if field.is_tensor and field.type != "object":
        return numpy.array(texts, dtype=str).reshape(array.shape)
    found = numpy.empty(len(texts), dtype=object)
    found[:] = texts
    return found.reshape(array.shape)


def _dates(field: SignatureField, texts: list[Any]) -> Any:
    import numpy

    try:
        return numpy.array([one or "NaT" for one in texts], dtype="datetime64[ns]")
    except (TypeError, ValueError) as error:
        raise ServerError(f"output '{field.name}' has a text that is no date ({error})") from error


# -- pandas, where it is ---------------------------------------------------------------------------


def _frame(table: dict[str, Any]) -> Any:
    """A DataFrame; without pandas the dictionary of its columns."""
    try:
        import pandas
    except ImportError:
        return table
    return pandas.DataFrame({name: _listed(one) for name, one in table.items()})


def _series(values: Any, name: str | None) -> Any:
    try:
        import pandas
    except ImportError:
        return values
    return pandas.Series(_listed(values), name=name)


def _listed(values: Any) -> Any:
    """Of texts a list, of which pandas makes the type that it has for texts; bytes stay objects."""
    if getattr(getattr(values, "dtype", None), "kind", "") != "O":
        return values
    is_text = all(isinstance(one, str) or one is None for one in values)
    return values.tolist() if is_text else values


# -- documents of the scoring server ---------------------------------------------------------------


def _of_document(outputs: Mapping[str, Any], served: ServedPyfunc, kind: str | None) -> Any:
    document = document_of(outputs)
    if not isinstance(document, Mapping) or "predictions" not in document:
        return document
    found = document["predictions"]
    kind = kind or _kind_of_document(served, found)
    as_kind: dict[str, Callable[[Any, ServedPyfunc], Any]] = {
        "frame": _frame_of,
        "series": _series_of,
        "array": _array_of,
        "dict": _dict_of,
    }
    try:
        return as_kind[kind](found, served) if kind in as_kind else found
    except (TypeError, ValueError, KeyError, OverflowError, AttributeError) as error:
        raise ServerError(
            f"the answer is not what its signature says ({type(error).__name__}: {error})"
        ) from error


def document_of(outputs: Mapping[str, Any]) -> Any:
    """The document of an answer.

    Raises:
        ServerError: there is none.
    """
    try:
        text = outputs[_RESPONSE].ravel()[0]
        return json.loads(text)
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise ServerError(f"the answer is no document of MLflow's scoring server ({error})") from (
            error
        )


def _kind_of_document(served: ServedPyfunc, found: Any) -> str | None:
    """Without a signature the answer is as JSON has it."""
    fields = served.outputs
    if not fields:
        return None
    kind = _kind_of(fields)
    is_records = isinstance(found, list) and all(isinstance(one, Mapping) for one in found)
    if kind in ("frame", "series") and not is_records:
        return None  # a list, which a signature writes as a column without a name
    return kind


def _frame_of(found: Any, served: ServedPyfunc) -> Any:
    """With the columns of the answer: MLflow lets a model answer others than its signature has."""
    fields = {
        str(one.column if one.column is not None else one.name): one for one in served.outputs
    }
    columns = dict.fromkeys(str(key) for row in found for key in row) or fields
    cells = {name: [row.get(name) for row in found] for name in columns}
    return _frame({name: _cells(of_name, fields.get(name)) for name, of_name in cells.items()})


def _series_of(found: Any, served: ServedPyfunc) -> Any:
    field = served.outputs[0] if len(served.outputs) == 1 else None
    if found and isinstance(found[0], Mapping):
        found = [next(iter(row.values())) for row in found]
    return _series(_cells(found, field), field.column if field else None)


def _array_of(found: Any, served: ServedPyfunc) -> Any:
    import numpy

    field = served.outputs[0] if len(served.outputs) == 1 else None
    return _typed(field, found) if field is not None else numpy.array(found)


def _dict_of(found: Any, served: ServedPyfunc) -> Any:
    """With arrays where the signature has tensors, else as JSON has it."""
    fields = {
        one.column if one.column is not None else one.name: one
        for one in served.outputs
        if one.is_tensor
    }
    return {
        name: _typed(fields[name], one) if name in fields else one for name, one in found.items()
    }


def _typed(field: SignatureField, values: Any) -> Any:
    import numpy

    dtype = _TYPES.get(str(field.type), str(field.type))
    return numpy.array(values, dtype=object if dtype == "binary" else dtype)


def _cells(values: list[Any], field: SignatureField | None) -> Any:
    """A column in the type of the signature, where each of its values has that."""
    import numpy

    if field is None or not field.is_scalar:
        return values
    if field.type == "datetime":
        return _dates(field, values)
    dtype = _TYPES.get(str(field.type))
    nulls = any(one is None for one in values)
    if dtype is None or (nulls and not dtype.startswith("float")):
        return values
    return numpy.array([float("nan") if one is None else one for one in values], dtype=dtype)
