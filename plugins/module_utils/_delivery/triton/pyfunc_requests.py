# SPDX-License-Identifier: Apache-2.0
"""What users hold becomes a request to a model that MLflow's pyfunc runs: tensors of its columns,
or a document of MLflow's scoring server.

What MLflow's schema enforcement takes is taken with the same values; of the rest, what can be said
without loss. pandas is not imported: whoever holds a DataFrame has it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..domain.served_pyfunc import ServedPyfunc, SignatureField
from ..errors import InvalidOption
from .pyfunc_values import column_of, is_array_like, json_text, shaped, tensor_of
from .tensors import (
    TABLES,
    Array,
    Request,
    Tensor,
    Values,
    document_of_frame,
    is_document,
    is_frame,
    is_null,
    is_sent,
    is_split,
    plain,
    read_request,
    without_brackets,
)

_REQUEST = "request"
_BESIDE = ("params", "parameters", "id", "outputs")
_FRAMES = ("dataframe_split", "dataframe_records")
# Triton and its clients keep these for themselves.
_RESERVED = frozenset(
    {"sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers"}
    | {"binary_data_output", "binary_data_size"}
)
_RESERVED_PREFIX = "triton_"
_SHOWN = 5


@dataclass(frozen=True)
class _Given:
    """What a user holds, unwrapped.

    Attributes:
        wrap: the key of the document that it was in; "" where it was in none.
        values: what the document wraps.
        beside: what else stands in the document.
    """

    wrap: str
    values: Values
    beside: Mapping[str, Values] = field(default_factory=dict)


def pyfunc_request(
    values: Values, served: ServedPyfunc, inputs: Mapping[str, Tensor], *, in_base64: bool = False
) -> Request:
    """The request that asks what ``pyfunc.predict(values)`` is asked.

    Args:
        values: a DataFrame or Series; a dictionary of columns or of one row; a list of records; an
            array or a list for a model with one input; a document of MLflow with any of these, and
            with ``params``, also as a JSON text.
        inputs: the tensors of the served configuration.
        in_base64: texts are bytes in base64 for a binary column, as in documents.

    Raises:
        InvalidOption: naming the column and the row, or the param.
    """
    names = {one.column: None for one in served.inputs if one.column is not None}
    given = _unwrapped(values, names, served)
    request_id = str(given.beside.get("id") or "")
    if given.beside.get("outputs"):
        raise InvalidOption(
            "outputs chooses among tensors, and what pyfunc returns is answered whole: leave it out"
        )
    parameters = _mapping(given.beside, "parameters")
    params = _mapping(given.beside, "params")
    if served.in_json:
        document = _document(given, served, in_base64, params)
        text = json_text(document, typed=bool(served.inputs))
        return Request({_REQUEST: _json_tensor(inputs, text)}, parameters, (), request_id)
    parameters = {**parameters, **request_parameters(params, served.params)}
    arrays = _arrays(given, served, inputs, in_base64)
    return Request(arrays, parameters, (), request_id)


def unknown_params(values: Values, served: ServedPyfunc) -> list[str]:
    """Params that are given and that the signature does not have: MLflow ignores them."""
    given = values.get("params") if isinstance(values, Mapping) else None
    names = {one.column for one in served.inputs}
    if not isinstance(given, Mapping) or "params" in names:
        return []
    return [str(name) for name in given if name not in served.params]


def _mapping(beside: Mapping[str, Values], key: str) -> dict[str, Values]:
    found = beside.get(key)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise InvalidOption(f"{key} is not a mapping of names to values")
    return {str(name): plain(value) for name, value in found.items()}


def _json_tensor(inputs: Mapping[str, Tensor], text: str) -> tuple[str, Array]:
    import numpy

    array = numpy.empty((1,), dtype=object)
    array[0] = text.encode()
    shape = inputs[_REQUEST].shape if _REQUEST in inputs else (1,)
    return "BYTES", array.reshape((1,) * max(len(shape), 1))


# -- documents -------------------------------------------------------------------------------------


def _unwrapped(values: Values, names: Mapping[str, None], served: ServedPyfunc) -> _Given:
    if isinstance(values, (str, bytes)):
        values = _parsed(values, names, served)
    if is_frame(values):
        values = _without_wrapping(values, names)
    values = without_brackets(values, names)  # type: ignore[arg-type]
    if not is_document(values, names):  # type: ignore[arg-type]
        if is_split(values, names):  # type: ignore[arg-type]
            return _Given("dataframe_split", values)
        return _Given("", values)
    wrap = next(key for key in ("inputs", *TABLES) if key in values and key not in names)
    beside = {key: values[key] for key in _BESIDE if key in values}
    for key in values:
        if key not in (wrap, *_BESIDE):
            default = "serving_default" if key == "signature_name" else None
            if values[key] not in (None, "", default):
                raise InvalidOption(
                    f"{key} stands beside the inputs, and the name of the deployment alone says"
                    " what is asked: leave it out (params, parameters and id may stand there)"
                )
    return _Given(wrap, values[wrap], beside)


def _parsed(values: str | bytes, names: Mapping[str, None], served: ServedPyfunc) -> Values:
    """A JSON text; any text of a model that takes one text."""
    meant = _needed(served)
    takes_text = not meant or (
        len(meant) == 1 and (not meant[0].is_scalar or meant[0].type in ("string", "binary"))
    )
    try:
        read = json.loads(values)
    except (ValueError, RecursionError) as error:
        if takes_text:
            return values
        raise InvalidOption("the text is not JSON") from error
    is_request = is_document(read, names) or is_document(  # type: ignore[arg-type]
        without_brackets(read, names),  # type: ignore[arg-type]
        names,  # type: ignore[arg-type]
    )
    return read if is_request or not takes_text else values


def _without_wrapping(frame: Values, names: Mapping[str, None]) -> Values:
    """The document that MLflow's command line read with ``pandas.read_json``."""
    columns = list(frame.columns)
    keys = dict.fromkeys(map(str, columns))
    wraps = is_document(keys, names) or is_split(keys, names)  # type: ignore[arg-type]
    if not wraps or not len(frame.index) or len(keys) < len(columns):
        return frame
    return document_of_frame(frame, columns, frame.index.tolist())


# -- params ----------------------------------------------------------------------------------------


def request_parameters(
    params: Mapping[str, Values], declared: Mapping[str, SignatureField]
) -> dict[str, object]:
    """Params as Triton's request parameters, which are booleans, whole numbers of 64 bits, floats
    and texts; anything else is a JSON text. Those of no param of the signature are left out, as
    MLflow ignores them.

    Raises:
        InvalidOption: naming the param.
    """
    found: dict[str, object] = {}
    for name, value in params.items():
        param = declared.get(name)
        if param is None or (value is None and not param.required):
            continue
        if name in _RESERVED or name.startswith(_RESERVED_PREFIX):
            raise InvalidOption(
                f"the param {name} has a name that Triton keeps for its own request parameters, so"
                " that it cannot be sent: leave it out, which means its default"
            )
        found[name] = _parameter(param, value)
    return found


def _parameter(param: SignatureField, value: Values) -> object:
    if value is None:
        raise InvalidOption(
            f"the param {param.name} is null, which no request parameter can be: leave it out,"
            " which means its default"
        )
    if param.shape is not None or not param.is_scalar:
        return json_text(value)
    if param.type == "datetime":
        return _date_param(param, value)
    kinds = {
        "boolean": (bool,),
        "integer": (int,),
        "long": (int,),
        "float": (int, float),
        "double": (int, float),
        "string": (str,),
    }.get(str(param.type), ())
    # A boolean is an int to Python, and not to MLflow.
    fits = isinstance(value, kinds) and (isinstance(value, bool) == (kinds == (bool,)))
    if fits and float in kinds and isinstance(value, int) and abs(value) > 2**53:
        fits = False
    if fits and kinds == (int,):
        bits = 31 if param.type == "integer" else 63
        fits = -(2**bits) <= value < 2**bits
    if not fits:
        raise InvalidOption(
            f"the param {param.name} is {param.type}, and {value!r} ({type(value).__name__}) cannot"
            " be one without loss"
        )
    if isinstance(value, str) and "\0" in value:
        raise InvalidOption(
            f"the param {param.name} has the character \\x00, after which Triton cuts a text"
        )
    return float(value) if float in kinds else value


def _date_param(param: SignatureField, value: Values) -> str:
    text = value.isoformat() if hasattr(value, "isoformat") else str(value)
    if not isinstance(value, str) and not hasattr(value, "isoformat"):
        raise InvalidOption(f"the param {param.name} is datetime, and {value!r} is no date")
    return text


# -- tensors ---------------------------------------------------------------------------------------


def _arrays(
    given: _Given, served: ServedPyfunc, inputs: Mapping[str, Tensor], in_base64: bool
) -> dict[str, tuple[str, Array]]:
    values = given.values
    if not given.wrap.startswith("dataframe") and is_sent(values):
        return dict(read_request(values, inputs).arrays)
    if any(one.is_tensor for one in served.inputs):
        wrapped = {given.wrap: values} if given.wrap else values
        return dict(read_request(shaped(wrapped, served.inputs, inputs), inputs).arrays)
    table = _table(given, served)
    found = {}
    for column in _wanted(table, served):
        name = str(column.name)
        tensor = inputs.get(name)
        if tensor is None:
            raise InvalidOption(
                f"the served configuration has no input '{name}', which its signature names: load"
                " the model again"
            )
        array = column_of(
            column, table[name], in_base64=in_base64 or given.wrap in _FRAMES, nulls=False
        )
        if array is not None:
            found[name] = (tensor.datatype, array.reshape(-1, 1))
    return found


def _wanted(table: Mapping[str, Values], served: ServedPyfunc) -> list[SignatureField]:
    """The columns of the signature that the table has; further ones are ignored, as by MLflow."""
    missing = [str(one.name) for one in served.inputs if one.required and one.name not in table]
    if missing:
        unknown = [name for name in table if name not in {one.name for one in served.inputs}]
        also = f", and has {_listed(unknown)}, which the model does not know" if unknown else ""
        raise InvalidOption(
            f"the table has no column {_listed(missing)}{also} (its columns are"
            f" {_listed([str(one.name) for one in served.inputs])})"
        )
    return [one for one in served.inputs if one.name in table]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


# -- tables ----------------------------------------------------------------------------------------


def _table(given: _Given, served: ServedPyfunc) -> dict[str, Values]:
    """Column → its values, all as many."""
    values = given.values
    if given.wrap == "dataframe_split":
        table = _from_split(values)
    elif given.wrap == "dataframe_records" or _is_records(values):
        table = _from_records(values)
    elif is_frame(values):
        table = _from_frame(values)
    elif hasattr(values, "to_frame"):
        table = _from_frame(values.to_frame())
    elif isinstance(values, Mapping):
        table = _from_mapping(values)
    else:
        table = _only_column(values, served)
    lengths = {name: len(of_name) for name, of_name in table.items()}
    if len({*lengths.values()}) > 1:
        few, many = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
        raise InvalidOption(
            f"the columns are not equally long: {few} has {lengths[few]} rows, and {many} has"
            f" {lengths[many]}"
        )
    return table


def _is_records(values: Values) -> bool:
    is_list = isinstance(values, (list, tuple)) and bool(values)
    return is_list and all(isinstance(one, Mapping) for one in values)


def _from_split(values: Values) -> dict[str, Values]:
    if not isinstance(values, Mapping) or "data" not in values:
        raise InvalidOption("dataframe_split is not {columns: […], data: [[…], …]}")
    rows, labels = values["data"], values.get("columns")
    rows = rows.tolist() if is_array_like(rows) else rows
    if not isinstance(rows, Sequence) or isinstance(rows, (str, bytes)):
        raise InvalidOption("data of dataframe_split is not a list of rows")
    if not isinstance(labels, Sequence) or isinstance(labels, str):
        raise InvalidOption("dataframe_split has no columns, and those of the model have names")
    if not all(isinstance(row, Sequence) and len(row) == len(labels) for row in rows):
        raise InvalidOption("the rows of the table are not as long as its columns are many")
    _refuse_twice(labels)
    return {str(label): [row[place] for row in rows] for place, label in enumerate(labels)}


def _from_records(values: Values) -> dict[str, Values]:
    if not _is_records(values):
        raise InvalidOption("the records are not a list of mappings of columns to values")
    columns = dict.fromkeys(str(label) for row in values for label in row)
    rows = [{str(label): value for label, value in row.items()} for row in values]
    return {name: [row.get(name) for row in rows] for name in columns}


def _from_frame(frame: Values) -> dict[str, Values]:
    _refuse_twice(frame.columns)
    return {str(label): frame.iloc[:, place] for place, label in enumerate(frame.columns)}


def _from_mapping(values: Mapping[object, Values]) -> dict[str, Values]:
    """Columns; or one row, where each value is a single one."""
    if not values:
        raise InvalidOption("nothing is given")
    lists = {str(name): one for name, one in values.items() if _is_several(one)}
    rows = len(next(iter(lists.values()))) if lists else 1
    return {str(name): lists.get(str(name), [one] * rows) for name, one in values.items()}


def _needed(served: ServedPyfunc) -> list[SignatureField]:
    """What is meant where nothing is named."""
    return [one for one in served.inputs if one.required] or [*served.inputs]


def _only_column(values: Values, served: ServedPyfunc) -> dict[str, Values]:
    """What has no name, for a model with one column, or one that it needs."""
    needed = _needed(served)
    if len(needed) != 1:
        names = _listed([str(one.name) for one in served.inputs])
        raise InvalidOption(
            f"its columns are {names}: give a DataFrame or a dictionary with them, as values alone"
            " do not say which is meant"
        )
    if values is None:
        raise InvalidOption("nothing is given")
    return {str(needed[0].name): values if _is_several(values) else [values]}


def _is_several(value: Values) -> bool:
    if isinstance(value, (str, bytes, bytearray, Mapping)) or is_null(value):
        return False
    return isinstance(value, (list, tuple)) or (is_array_like(value) and value.ndim > 0)


def _refuse_twice(labels: Iterable[object]) -> None:
    seen: set[str] = set()
    for label in map(str, labels):
        if label in seen:
            raise InvalidOption(f"the table has two columns called {label}")
        seen.add(label)


# -- documents of the scoring server ---------------------------------------------------------------


def _document(
    given: _Given, served: ServedPyfunc, in_base64: bool, params: Mapping[str, Values]
) -> dict[str, Values]:
    wrap, values = _scored(given, served, in_base64)
    more = {"params": dict(params)} if params else {}
    return {wrap: values, **more}


def _scored(given: _Given, served: ServedPyfunc, in_base64: bool) -> tuple[str, Values]:
    """A table is sent as one, judged where its columns have scalar types: the scoring server cuts
    1.5 to 1 for a whole number, and makes the text "None" of null.
    """
    values = given.values
    tables = given.wrap in _FRAMES or is_frame(values) or hasattr(values, "to_frame")
    scalars = served.has_named_columns and all(one.is_scalar for one in served.inputs)
    if served.has_named_columns and (tables or scalars):
        table = _table(given, served)
        in_base64 = in_base64 or given.wrap in _FRAMES
        columns = {}
        for one in _wanted(table, served):
            cells = _json_column(one, table[str(one.name)], in_base64)
            if cells is not None:
                columns[str(one.name)] = cells
        rows = len(next(iter(table.values()), ()))
        data = [[cells[row] for cells in columns.values()] for row in range(rows)]
        return "dataframe_split", {"columns": [*columns], "data": data}
    if given.wrap and not is_frame(values):
        return given.wrap, values
    if is_frame(values) or hasattr(values, "to_frame"):
        frame = values if is_frame(values) else values.to_frame()
        cells = [_by_place(frame.iloc[:, at], at, served) for at in range(len(frame.columns))]
        data = [list(row) for row in zip(*cells)]
        return "dataframe_split", {"columns": list(frame.columns), "data": data}
    if len(served.inputs) == 1 and served.inputs[0].is_tensor and not isinstance(values, Mapping):
        return "inputs", tensor_of(served.inputs[0], values)
    if isinstance(values, Mapping) and served.inputs and served.inputs[0].is_tensor:
        fields = {one.name: one for one in served.inputs}
        return "inputs", {
            name: tensor_of(fields[name], one) if name in fields else one
            for name, one in values.items()
        }
    return "inputs", values


def _by_place(values: Values, place: int, served: ServedPyfunc) -> list[Values]:
    """One column of a DataFrame, judged where the signature has one without a name there. Column by
    column: beside floats pandas makes floats of whole numbers.
    """
    if place < len(served.inputs) and not any(one.column for one in served.inputs):
        column = replace(served.inputs[place], name=str(place), required=True)
        if not column.is_tensor:
            return _json_column(column, values, False) or []
    found: list[Values] = values.tolist()
    return found


def _json_column(column: SignatureField, values: Values, in_base64: bool) -> list[Values] | None:
    """As ``pandas`` would write it, with null where nothing is."""
    if not column.is_scalar:
        return list(values.tolist() if is_array_like(values) else values)
    array = column_of(column, values, in_base64=in_base64, nulls=True)
    if array is None:
        return None
    if column.type in ("string", "datetime"):
        return [one.decode() if isinstance(one, bytes) else one for one in array.tolist()]
    return [None if _is_nan(one) else one for one in array.tolist()]


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
