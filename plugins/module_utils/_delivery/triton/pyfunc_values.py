# SPDX-License-Identifier: Apache-2.0
"""The values of a column or a tensor of MLflow's signatures: what MLflow's schema enforcement takes
keeps its values here, and nothing is taken that changes one.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import decimal
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from ..domain.served_pyfunc import SignatureField
from ..errors import InvalidOption
from .tensors import Array, Tensor, Values, as_it_stands, is_null, plain

_TENSORS = {
    "boolean": ("BOOL", "bool"),
    "integer": ("INT32", "int32"),
    "long": ("INT64", "int64"),
    "float": ("FP32", "float32"),
    "double": ("FP64", "float64"),
}
# Which kinds of numpy's types MLflow reads as one: a float is never a whole number, and a boolean
# no number.
_KINDS = {"boolean": "b", "integer": "iu", "long": "iu", "float": "fiu", "double": "fiu"}
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?))?(Z|[+-]\d\d(?::?\d\d)?)?"
)
_LAST_SECOND = 9_223_372_036
"""Seconds around 1970 that nanoseconds of 64 bits reach."""
_NO_DATE = "NaT"
_Convert = Callable[[Values], "bytes | str"]


def is_array_like(value: Values) -> bool:
    """An array of numpy, or a Series or an array of pandas."""
    return hasattr(value, "dtype") and hasattr(value, "tolist")


# -- columns ---------------------------------------------------------------------------------------


def column_of(
    column: SignatureField, values: Values, *, in_base64: bool, nulls: bool
) -> Array | None:
    """The values as an array with one dimension; None of an optional column that has none and
    cannot say so.

    Args:
        in_base64: a text is bytes in base64, for a column of bytes.
        nulls: texts and bytes may be null, which no tensor can hold.

    Raises:
        InvalidOption: naming the column, and the row from 0 on, as a DataFrame counts.
    """
    kind = str(column.type)
    values = _inferred(values) if kind not in ("string", "binary") else values
    dtype = getattr(values, "dtype", None)
    if kind in _TENSORS and dtype is not None and dtype.kind != "O":
        if dtype.kind not in _KINDS[kind]:
            raise _misfit(column, f"{dtype} values")
        if getattr(dtype, "na_value", None) is None or _is_numpy(dtype):
            return as_it_stands(_tensor(column), _flat(values))
    if kind == "datetime" and dtype is not None and dtype.kind != "O":
        return _dates_of_type(column, values)
    if dtype is not None and dtype.kind not in "OUS" and kind in ("string", "binary"):
        raise _misfit(column, f"{dtype} values")
    if str(dtype) == "category":
        raise _misfit(column, "a category, which MLflow takes for no column")
    cells = [_single(column, one, row) for row, one in enumerate(_listed(values))]
    has_nothing = bool(cells) and all(map(_is_nothing, cells))
    holds_nothing = kind in ("float", "double", "datetime") or (nulls and kind not in _TENSORS)
    if has_nothing and not column.required and not holds_nothing:
        return None
    if kind in _TENSORS:
        return _numbers(column, cells)
    convert: _Convert = {
        "string": partial(_text, column),
        "binary": partial(_bytes, column, in_base64),
    }.get(kind, partial(_date, column))
    return _objects(column, cells, convert, nulls or kind == "datetime")


def _is_numpy(dtype: Array) -> bool:
    import numpy

    return isinstance(dtype, numpy.dtype)


def _tensor(column: SignatureField) -> Tensor:
    import numpy

    datatype, dtype = _TENSORS[str(column.type)]
    return Tensor(str(column.name), datatype, (-1,), numpy.dtype(dtype))


def _inferred(values: Values) -> Values:
    """A column of objects in the type that all of them have, as MLflow reads it."""
    return values.infer_objects() if hasattr(values, "infer_objects") else values


def _flat(values: Values) -> Array:
    import numpy

    array = numpy.asarray(values)
    return array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array


def _listed(values: Values) -> list[Values]:
    return list(values.tolist() if is_array_like(values) else values)


def _single(column: SignatureField, value: Values, row: int) -> Values:
    """A row may be written as a list of its one value, as tensors have it."""
    value = plain(value)
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = plain(value[0])
    if isinstance(value, (list, tuple, Mapping)) or bool(getattr(value, "ndim", False)):
        raise _misfit(column, f"a {type(value).__name__}", row)
    return value


def _is_nothing(value: Values) -> bool:
    """None, pandas' NA and NaT, and the NaN that pandas has for nothing in a column of texts."""
    return is_null(value) or (isinstance(value, float) and math.isnan(value)) or _is_nat(value)


def _is_nat(value: Values) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and value is getattr(pandas, "NaT", ...)


def _numbers(column: SignatureField, cells: list[Values]) -> Array:
    is_float = column.type in ("float", "double")
    if is_float:
        cells = [float(one) if isinstance(one, decimal.Decimal) else one for one in cells]
    for row, one in enumerate(cells):
        if is_null(one) and not is_float:
            raise _absent(column, row)
        if not is_null(one) and not isinstance(one, (bool, int, float)):
            raise _misfit(column, f"{type(one).__name__} {one!r}", row)
        if not is_float and isinstance(one, float) and math.isnan(one):
            raise _absent(column, row)
    if is_float:
        cells = [float("nan") if is_null(one) else one for one in cells]
    return as_it_stands(_tensor(column), cells)


def _objects(
    column: SignatureField, cells: Iterable[Values], convert: _Convert, nulls: bool
) -> Array:
    import numpy

    cells = list(cells)
    array = numpy.empty((len(cells),), dtype=object)
    for row, one in enumerate(cells):
        if _is_nothing(one):
            if not nulls:
                raise _absent(column, row)
            array[row] = _NO_DATE.encode() if column.type == "datetime" else None
            continue
        try:
            array[row] = convert(one)
        except _Refused as error:
            raise _misfit(column, str(error), row) from error
    return array


class _Refused(Exception):
    """Says what a column cannot take."""


def _text(column: SignatureField, value: Values) -> bytes:
    if not isinstance(value, str):
        raise _Refused(f"{type(value).__name__} {value!r}")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise _Refused(f"the text {value!a}, which UTF-8 does not have") from error


def _bytes(column: SignatureField, in_base64: bool, value: Values) -> bytes:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, str) and in_base64:
        try:
            return binascii.a2b_base64(value)
        except (ValueError, binascii.Error) as error:
            raise _Refused(f"a text that is not base64 ({error})") from error
    raise _Refused(f"{type(value).__name__} {value!r}")


# -- dates -----------------------------------------------------------------------------------------


def _dates_of_type(column: SignatureField, values: Values) -> Array:
    """A column of dates, of any precision; those of a time zone MLflow refuses too."""
    import numpy

    if values.dtype.kind != "M":
        raise _misfit(column, f"{values.dtype} values")
    if not _is_numpy(values.dtype):
        raise _misfit(column, _zone(f"the type {values.dtype}"))
    dates = _flat(values)
    seconds = dates.astype("datetime64[s]").astype("int64")
    known = ~numpy.isnat(dates)
    beyond = known & (numpy.abs(seconds) >= _LAST_SECOND)
    if beyond.any():
        row = int(numpy.argmax(beyond))
        raise _misfit(column, f"{dates[row]}, which has no nanoseconds of 64 bits", row)
    texts = numpy.datetime_as_string(dates.astype("datetime64[ns]"))
    array = numpy.empty(texts.shape, dtype=object)
    array[:] = [str(one).encode() for one in texts]
    return array


def _date(column: SignatureField, value: Values) -> bytes:
    import numpy

    if isinstance(value, numpy.datetime64):
        text = str(value)
    elif isinstance(value, (datetime.datetime, datetime.date)):  # pandas' Timestamp is one
        text = value.isoformat()
    elif isinstance(value, str):
        text = value.strip()
    else:
        raise _Refused(f"{type(value).__name__} {value!r}")
    if text == _NO_DATE:
        return text.encode()
    found = _ISO.fullmatch(text)
    if found is None:
        raise _Refused(f"{text!r}, which is no date of ISO 8601 (2026-11-30T12:00:00)")
    day, time, zone = found.groups()
    if zone:
        raise _Refused(_zone(text))
    try:
        stamp = numpy.datetime64(f"{day}T{time or '00:00'}", "ns")
        second = int(numpy.datetime64(f"{day}T{time or '00:00'}", "s").astype("int64"))
    except ValueError as error:
        raise _Refused(f"{text!r}, which is no date ({error})") from error
    if abs(second) >= _LAST_SECOND:
        raise _Refused(f"{text}, which has no nanoseconds of 64 bits")
    return str(stamp).encode()


def _zone(what: str) -> str:
    return (
        f"{what}, which has a time zone: MLflow's columns of dates have none; "
        ".dt.tz_convert('UTC').dt.tz_localize(None) makes it UTC without one"
    )


# -- sentences -------------------------------------------------------------------------------------


def _misfit(column: SignatureField, what: str, row: int | None = None) -> InvalidOption:
    where = "" if row is None else f" (row {row})"
    return InvalidOption(f"column '{column.name}' is {column.type} and cannot take {what}{where}")


def _absent(column: SignatureField, row: int) -> InvalidOption:
    remedy = {
        "boolean": "",
        "string": ", or log the model with a signature in which the column is optional",
        "binary": ", or log the model with a signature in which the column is optional",
    }.get(str(column.type), ", or log the model with a signature that says double")
    return InvalidOption(
        f"column '{column.name}' has no value in row {row}, and {column.type} has nothing for that:"
        f" give it one{remedy}"
    )


# -- tensors ---------------------------------------------------------------------------------------


def shaped(
    values: Values, fields: Iterable[SignatureField], inputs: Mapping[str, Tensor]
) -> Values:
    """An array with one dimension, where the signature has that and Triton wants [rows, 1]."""
    flat = {
        str(one.name)
        for one in fields
        if one.shape is not None and len(one.shape) == 1 and str(one.name) in inputs
        if len(inputs[str(one.name)].shape) == 2
    }
    if not flat:
        return values
    if isinstance(values, Mapping):
        only = len(inputs) == 1
        return {
            name: _upright(one) if name in flat or (only and name == "inputs") else one
            for name, one in values.items()
        }
    return _upright(values) if len(inputs) == 1 else values


def _upright(value: Values) -> Values:
    if getattr(value, "ndim", 0) == 1 and hasattr(value, "reshape"):
        return value.reshape(-1, 1)
    return value


def tensor_of(field: SignatureField, values: Values) -> Values:
    """A tensor as nested lists for a document, in the signature's type where numbers are lost by
    none of them; the scoring server casts without a look.
    """
    import numpy

    values = values.toarray() if hasattr(values, "toarray") else values
    try:
        dtype = numpy.dtype(str(field.type))
    except TypeError:
        return values
    if dtype.kind not in "biuf":
        return values
    tensor = Tensor(str(field.name or "inputs"), dtype.name, (), dtype)
    return as_it_stands(tensor, values).tolist()


# -- JSON ------------------------------------------------------------------------------------------


def json_text(value: Values, *, typed: bool = True) -> str:
    """As MLflow's scoring server reads it: bytes in base64, dates in ISO 8601.

    Args:
        typed: a signature says what these texts are; without one the model would get the texts.

    Raises:
        InvalidOption: it holds what JSON has nothing for.
    """
    try:
        text = json.dumps(value, default=_for_json if typed else _untyped, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidOption(f"it cannot be written as JSON ({error})") from error
    return text


def _for_json(value: Values) -> Values:
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, (datetime.datetime, datetime.date)) and not _is_nat(value):
        return value.isoformat()
    if is_array_like(value) and value.dtype.kind == "M" and not getattr(value, "ndim", 0):
        return str(value)
    return _untyped(value)


def _untyped(value: Values) -> Values:
    if _is_nothing(value):
        return None
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return value.to_dict(orient="list")
    if is_array_like(value) and value.dtype.kind not in "mM":
        return value.tolist()
    said = " for a model whose signature does not say what it is"
    raise TypeError(f"a value of type {type(value).__name__} has no form there{said}")
