# SPDX-License-Identifier: Apache-2.0
"""What users hold becomes tensors: documents of MLflow and Triton, tables, arrays, lists. Nothing
is lost on the way, and the sentence of a refusal names the tensor.

numpy is imported where it is needed; pandas is not imported at all.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..errors import InvalidOption
from .columns import places_of

Array: TypeAlias = Any
"""A numpy array."""
Values: TypeAlias = Any
"""What a user holds."""
_KINDS = {"U": "texts", "S": "texts", "M": "dates", "O": "values that are no numbers"}
_FIRST_LOST = 2**53
"""Up to it float64 has every whole number."""
_LARGEST_COUNT = 2**31
_WHICH_MODEL = ("model_name", "model_version", "signature_name")
_BESIDE = frozenset({"parameters", "params", "outputs", "id", *_WHICH_MODEL})
_OF_SENT = frozenset({"data", "shape", "datatype", "parameters"})
_SPELLINGS = {
    "BOOLEAN": "BOOL",
    "STRING": "BYTES",
    "FLOAT16": "FP16",
    "FLOAT32": "FP32",
    "FLOAT64": "FP64",
    "BFLOAT16": "BF16",
}
"""How numpy and configurations call what Triton's requests call otherwise."""
TABLES = ("dataframe_split", "dataframe_records", "instances")
"""Which wrap rows, beside ``inputs``."""
FORMS = (
    "{tensor: values}, Triton's {inputs: [{name, shape, datatype, data}]}, MLflow's {inputs: …},"
    " {dataframe_split: {columns, data}}, {dataframe_records: […]} and {instances: […]}"
)


@dataclass(frozen=True)
class Tensor:
    """An input as the model declares it; ``shape`` has the batch dimension, and -1 where any size
    will do. ``columns`` names those of its rows, where that is known. A request may leave out an
    ``optional`` one.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    dtype: Array
    columns: tuple[str, ...] = ()
    optional: bool = False


@dataclass(frozen=True)
class Request:
    """What is to be asked.

    Attributes:
        arrays: tensor name → datatype and array.
        parameters: Triton's, those of sequences among them.
        outputs: the outputs that are wanted; empty for all.
        classes: output → how many of its classes are wanted instead of its values, for outputs that
            are asked so.
    """

    arrays: Mapping[str, tuple[str, Array]]
    parameters: Mapping[str, object] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    request_id: str = ""
    classes: Mapping[str, int] = field(default_factory=dict)


def read_request(values: Values, inputs: Mapping[str, Tensor]) -> Request:
    """Read what a user holds.

    Args:
        values: a mapping of tensor names to arrays, lists, numbers or texts; a DataFrame; for a
            model with one input, that input alone; a document of Triton or MLflow, also as a JSON
            text.

    Raises:
        InvalidOption: naming the tensor, or the form.
    """
    by_rows = False
    if is_frame(values):
        values, by_rows = _from_frame(values, inputs)
    values = without_brackets(_read_json(values, inputs), inputs)
    document = values if is_document(values, inputs) else {}
    _refuse_beside(document)
    if not by_rows:
        values = _unwrap(values, inputs)
    if values is None or _is_empty(values, inputs):
        raise InvalidOption(f"nothing is given (forms that are taken: {FORMS})")
    if not isinstance(values, Mapping):
        only = _only(inputs)
        if only is None:
            raise InvalidOption(
                f"it has the inputs {', '.join(inputs)}: give a dictionary, as one value alone does"
                " not say which is meant"
            )
        values = {only.name: values}
    found = {}
    for name, value in values.items():
        tensor = inputs.get(name)
        if tensor is None:
            raise InvalidOption(
                f"it has no input '{name}' (inputs: {', '.join(inputs)}; forms that are taken:"
                f" {FORMS})"
            )
        found[tensor.name] = (tensor.datatype, _read(tensor, value, by_rows))
    outputs = _wanted(document.get("outputs"))
    return Request(
        found,
        {name: plain(value) for name, value in (document.get("parameters") or {}).items()},
        tuple(outputs),
        str(document.get("id") or ""),
        {name: count for name, count in outputs.items() if count},
    )


def _is_empty(values: Values, inputs: Mapping[str, Tensor]) -> bool:
    """No value for a model that needs one."""
    needs = any(not tensor.optional for tensor in inputs.values())
    return needs and isinstance(values, (Mapping, list, tuple)) and not values


def _only(inputs: Mapping[str, Tensor]) -> Tensor | None:
    """The input that is meant where none is named: the only one, or the only one that is needed."""
    needed = [tensor for tensor in inputs.values() if not tensor.optional]
    found = needed or [*inputs.values()]
    return found[0] if len(found) == 1 else None


def _read(tensor: Tensor, value: Values, by_rows: bool) -> Array:
    if isinstance(value, _Sent):
        return _sent(tensor, value)
    if isinstance(value, _Rows):
        return _each_a_row(tensor, value.rows)
    return as_array(tensor, value, by_rows)


def arrays_of(values: Values, inputs: Mapping[str, Tensor]) -> dict[str, tuple[str, Array]]:
    """Tensor name → datatype and array; see ``read_request``."""
    return dict(read_request(values, inputs).arrays)


# -- documents -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sent:
    """A tensor as Triton's requests write it: ``data`` in a row or nested, and its ``shape``."""

    datatype: object
    shape: object
    data: object


@dataclass(frozen=True)
class _Rows:
    """Values each of which is a row, and none of them a part of one."""

    rows: Sequence[Values]


def _read_json(values: Values, inputs: Mapping[str, Tensor]) -> Values:
    """JSON texts, where a text cannot be the input itself: a model of one input. Where others may
    be left out, only what names inputs is no text for the one that is needed.
    """
    only = _only(inputs)
    is_text = only is not None and only.datatype == "BYTES"
    if not isinstance(values, (str, bytes)) or (is_text and len(inputs) == 1):
        return values
    try:
        read = json.loads(values)
    except (ValueError, RecursionError) as error:
        if is_text:
            return values
        raise InvalidOption("the text is not JSON") from error
    names_inputs = isinstance(read, Mapping) and (
        is_document(read, inputs) or bool(read.keys() & inputs.keys())
    )
    return read if names_inputs or not is_text else values


def is_document(values: Values, inputs: Mapping[str, Tensor]) -> bool:
    """A wrapping that MLflow or Triton define. A tensor of that name goes before."""
    if not isinstance(values, Mapping):
        return False
    keys = {*values}
    wraps = [key for key in ("inputs", *TABLES) if key in keys and key not in inputs]
    return len(wraps) == 1 and keys - {wraps[0]} <= _BESIDE


def is_split(values: Values, inputs: Mapping[str, Tensor]) -> bool:
    """What pandas writes with ``orient="split"``, and MLflow as an example; names that are the
    default are left out.
    """
    return (
        isinstance(values, Mapping)
        and "data" in values
        and "data" not in inputs
        and {*values} <= {"data", "columns", "index"}
    )


def without_brackets(values: Values, inputs: Mapping[str, Tensor]) -> Values:
    """A document that is the one entry of a list, as a file for MLflow's command line needs it."""
    is_one = isinstance(values, list) and len(values) == 1 and is_document(values[0], inputs)
    return values[0] if is_one else values


def _refuse_beside(document: Mapping[str, object]) -> None:
    for key in _WHICH_MODEL:
        default = "serving_default" if key == "signature_name" else None
        if document.get(key) not in (None, "", default):
            raise InvalidOption(
                f"{key} stands beside the inputs, and the name of the deployment alone says what is"
                " asked: leave it out (parameters, outputs and id may stand there)"
            )
    if document.get("params"):
        raise InvalidOption(
            "params belong to models that MLflow runs; what Triton's requests have is parameters"
        )
    if not isinstance(document.get("parameters") or {}, Mapping):
        raise InvalidOption("parameters is not a mapping of names to values")


def _unwrap(values: Values, inputs: Mapping[str, Tensor]) -> Values:
    """What a document wraps."""
    if is_split(values, inputs):
        return _from_table(values.get("columns"), values["data"], inputs)
    if not is_document(values, inputs):
        return _from_list(values, inputs)
    if "inputs" in values and "inputs" not in inputs:
        return _from_list(values["inputs"], inputs)
    if "dataframe_split" in values:
        table = values["dataframe_split"]
        if not isinstance(table, Mapping) or "data" not in table:
            raise InvalidOption("dataframe_split is not {columns: […], data: [[…], …]}")
        return _from_table(table.get("columns"), table["data"], inputs)
    rows = values.get("dataframe_records", values.get("instances"))
    if not isinstance(rows, Sequence) or isinstance(rows, (str, bytes)) or not rows:
        raise InvalidOption(f"{_key_of(values)} is not a list of rows")
    if not isinstance(rows[0], Mapping):
        return _Rows(rows)
    return _from_records(rows, _key_of(values), inputs)


def _from_list(given: Values, inputs: Mapping[str, Tensor]) -> Values:
    """Triton's tensors or records, where a list has those."""
    if not isinstance(given, (list, tuple)) or not given or not isinstance(given[0], Mapping):
        return given
    is_record = all({*one} <= {*inputs} for one in given if isinstance(one, Mapping))
    if is_sent(given) and all({*one} & _OF_SENT for one in given) and not is_record:
        return _sent_tensors(given)
    return _from_records(given, "the list", inputs)


def _from_records(
    rows: Sequence[Mapping[str, Values]], called: str, inputs: Mapping[str, Tensor]
) -> Values:
    columns = [*rows[0]]
    if not all(isinstance(row, Mapping) and {*row} == {*columns} for row in rows):
        raise InvalidOption(f"the rows of {called} do not have the same columns")
    return _from_table(columns, [[row[key] for key in columns] for row in rows], inputs)


def _key_of(values: Mapping[str, object]) -> str:
    return next(key for key in TABLES if key in values)


def _from_table(columns: object, rows: Values, inputs: Mapping[str, Tensor]) -> Values:
    """A column for each input; or, for a model with one input, rows of it, whatever the columns are
    called where the model has no names for them.
    """
    if not isinstance(rows, Sequence) or isinstance(rows, (str, bytes)) or not rows:
        raise InvalidOption("the table has no rows")
    labels = [*columns] if isinstance(columns, Sequence) else []
    named = [str(label) for label in labels]
    if named and all(column in inputs for column in named):
        if not all(isinstance(row, Sequence) and len(row) == len(named) for row in rows):
            raise InvalidOption("the rows of the table are not as long as its columns are many")
        return {name: _Rows([row[place] for row in rows]) for place, name in enumerate(named)}
    if len(inputs) == 1:
        only = next(iter(inputs.values()))
        places = None if _is_vectors(rows) else places_of(only.columns, labels)
        return {only.name: rows if places is None else _in_order(rows, places, len(named))}
    raise InvalidOption(
        f"the table has the columns {', '.join(named) or 'without names'}; it takes a column for"
        f" each input ({', '.join(inputs)})"
    )


def _is_vectors(rows: Sequence[Values]) -> bool:
    """One column that has a list in each row."""
    return all(isinstance(row, Sequence) and len(row) == 1 and _is_listed(row[0]) for row in rows)


def _is_listed(value: Values) -> bool:
    """A list, or an array of numpy."""
    return hasattr(value, "__len__") and not isinstance(value, (str, bytes))


def _in_order(rows: Sequence[Values], places: list[int], width: int) -> list[list[Values]]:
    if not all(isinstance(row, Sequence) and len(row) == width for row in rows):
        raise InvalidOption("the rows of the table are not as long as its columns are many")
    return [[row[place] for place in places] for row in rows]


def is_sent(given: Values) -> bool:
    return (
        isinstance(given, Sequence)
        and not isinstance(given, (str, bytes))
        and bool(given)
        and all(isinstance(one, Mapping) and "name" in one for one in given)
    )


def _sent_tensors(given: Iterable[Mapping[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for one in given:
        if "data" not in one:
            raise InvalidOption(
                f"input '{one['name']}' has no data in the request: binary data and shared memory"
                " go with Triton's own clients; give its values as data"
            )
        found[str(one["name"])] = _Sent(one.get("datatype"), one.get("shape"), one["data"])
    return found


def _sent(tensor: Tensor, given: _Sent) -> Array:
    """A tensor of Triton's request form, in the shape that stands there."""
    spelled = str(given.datatype or tensor.datatype).upper().removeprefix("TYPE_")
    if _SPELLINGS.get(spelled, spelled) != tensor.datatype:
        raise InvalidOption(
            f"input '{tensor.name}' is {tensor.datatype}, and the request says {given.datatype}"
        )
    array = _cast(tensor, _from_lists(tensor, given.data), exact=False)
    shape = given.shape if isinstance(given.shape, Sequence) else array.shape
    if not shape and array.size == 1:
        # Triton has no tensor without a dimension, though ONNX and those who ask have.
        return _in_shape(array.reshape(()), tensor.shape, False)
    try:
        return array.reshape([int(size) for size in shape])
    except (TypeError, ValueError) as error:
        raise InvalidOption(
            f"input '{tensor.name}' has {array.size} values, and the request says shape {shape}"
        ) from error


def _wanted(outputs: object) -> dict[str, int]:
    """Output → how many classes of it are wanted; 0 for its values."""
    if not outputs:
        return {}
    if not is_sent(outputs):
        raise InvalidOption("outputs is not a list of {name: …}")
    found = {}
    for one in outputs:  # type: ignore[attr-defined]
        name, parameters = str(one["name"]), one.get("parameters") or {}
        if not isinstance(parameters, Mapping):
            raise InvalidOption(
                f"parameters of output '{name}' is not a mapping of names to values"
            )
        # Whether numbers travel as JSON is nothing that the answer shows.
        unknown = [key for key in parameters if key not in ("classification", "binary_data")]
        if unknown:
            raise InvalidOption(
                f"output '{name}' has the parameter '{unknown[0]}', which is not passed on: the one"
                " that is, is classification"
            )
        count = plain(parameters.get("classification", 0))
        is_count = isinstance(count, int) and not isinstance(count, bool)
        if not is_count or not 0 <= count < _LARGEST_COUNT:
            raise InvalidOption(
                f"output '{name}' has the classification {count!r}, which is no number of classes"
            )
        found[name] = count
    return found


# -- DataFrames ------------------------------------------------------------------------------------


def is_frame(values: Values) -> bool:
    """True for a DataFrame of pandas, which whoever made it has imported."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(values, getattr(pandas, "DataFrame", ()))


def _from_frame(frame: Values, inputs: Mapping[str, Tensor]) -> tuple[Values, bool]:
    """The shapes that people use: one column indexed by tensor names, one row per example with a
    column per input, a table of the only input, and what ``pandas.read_json`` makes of a document.
    """
    if not len(frame.index) or not len(frame.columns):
        raise InvalidOption("the DataFrame is empty")
    columns, labels = list(frame.columns), frame.index.tolist()
    if len(columns) == 1 and all(label in inputs for label in labels):
        return dict(zip(labels, frame[columns[0]].tolist())), False
    twice = [str(one) for one, count in Counter(columns).items() if count > 1]
    if twice and (len(inputs) != 1 or twice[0] in inputs):
        raise InvalidOption(f"the DataFrame has two columns called {twice[0]}")
    keys = dict.fromkeys(map(str, columns))
    wraps = not twice and (is_document(keys, inputs) or is_split(keys, inputs))
    document = document_of_frame(frame, columns, labels) if wraps else {}
    rows = document.get("inputs")
    only_rows = (
        columns == ["inputs"] and isinstance(rows, list) and not isinstance(rows[0], Mapping)
    )
    if only_rows and "inputs" not in inputs and len(inputs) == 1:
        return {next(iter(inputs)): rows}, True
    if wraps:
        return document, False
    unknown = [str(column) for column in columns if column not in inputs]
    if unknown and len(inputs) == 1:
        only = next(iter(inputs.values()))
        vectors = len(columns) == 1 and _is_listed(frame.iloc[0, 0])
        places = None if vectors else places_of(only.columns, columns)
        return {only.name: _rows_of(frame if places is None else frame.iloc[:, places])}, False
    if unknown:
        raise InvalidOption(
            f"the DataFrame has the column {', '.join(unknown)}; it takes a column for each input"
            f" ({', '.join(inputs)}), or one column indexed by the names of the inputs"
        )
    return {column: _Rows(frame[column].tolist()) for column in columns}, False


def _rows_of(frame: Values) -> list[Values]:
    """The rows with each value as its column has it: beside floats, and of dates, pandas makes
    other numbers.
    """
    kinds = {*frame.dtypes}
    alike = len(kinds) == 1 and next(iter(kinds)).kind in "iufb"
    rows: list[Values] = (frame if alike else frame.astype(object)).to_numpy().tolist()
    return rows


def document_of_frame(
    frame: Values, columns: list[object], labels: list[object]
) -> dict[str, Values]:
    """The document in a file that MLflow's command line read with ``pandas.read_json``. A key is a
    column: a mapping has its keys as labels, a list its entries in the rows, anything else is the
    same in each row. A document in brackets is one row of whole values.
    """
    cells = {str(column): frame[column].tolist() for column in columns}
    row = {key: of_key[0] for key, of_key in cells.items()}
    if len(labels) == 1 and _has_whole_values(row):
        return row
    named = all(isinstance(label, str) for label in labels)
    found: dict[str, Values] = {**cells}
    if named and len(cells) == 1:
        found = {key: dict(zip(labels, of_key)) for key, of_key in cells.items()}
    elif named:
        found = {key: _labelled(labels, of_key) for key, of_key in cells.items()}
    return {**found, **({"id": cells["id"][0]} if "id" in cells else {})}


def _has_whole_values(row: Mapping[str, Values]) -> bool:
    """Of a document in brackets; a row of one without them has entries of its lists."""
    lists = [row[key] for key in ("inputs", *TABLES) if isinstance(row.get(key), list)]
    return (
        isinstance(row.get("outputs"), list)
        or any(isinstance(row.get(key), Mapping) for key in ("parameters", "dataframe_split"))
        or any(bool(one) and isinstance(one[0], Mapping) for one in lists)
    )


def _labelled(labels: list[object], cells: list[Values]) -> dict[object, Values]:
    """Without what pandas put where another key of the document has a label. It makes floats of the
    whole numbers beside it.
    """
    given = {
        label: cell
        for label, cell in zip(labels, cells)
        if cell is not None and not (isinstance(cell, float) and math.isnan(cell))
    }
    if len(given) == len(labels) or not all(isinstance(cell, float) for cell in given.values()):
        return given
    if any(abs(cell) >= _FIRST_LOST for cell in given.values()):
        raise InvalidOption(
            "pandas, which reads the file for MLflow's command line, does not keep the digits of a"
            " number in it: put the document in brackets, [{…}]"
        )
    return {label: int(cell) if cell == int(cell) else cell for label, cell in given.items()}


# -- values ----------------------------------------------------------------------------------------


def as_array(tensor: Tensor, value: Values, by_rows: bool = False) -> Array:
    """The value in the tensor's type, where nothing of it is lost; lists get the dimension that
    they leave out.

    A number in a list, in JSON or in a DataFrame has no type of its own and is read as the
    tensor's; an array has one, and is cast only where each of its values stays what it is.
    """
    import numpy

    value = _without_objects(tensor, value)
    array = as_it_stands(tensor, value)
    if isinstance(value, numpy.ndarray) and value.ndim:
        return array
    return _in_shape(array, tensor.shape, by_rows)


def as_it_stands(tensor: Tensor, value: Values) -> Array:
    """The same in the shape that is written there.

    Raises:
        InvalidOption: it cannot be in the tensor's type without loss.
    """
    import numpy

    value = _without_objects(tensor, value)
    if is_null(value):
        raise InvalidOption(f"input '{tensor.name}' is null: give it a value, or leave it out")
    if isinstance(value, numpy.ndarray):
        return _cast(tensor, value, exact=True)
    if isinstance(value, (str, bytes, bytearray)):
        value = bytes(value) if isinstance(value, bytearray) else value
        array = numpy.empty((), dtype=object)
        array[()] = value
    else:
        array = _from_lists(tensor, value)
    return _cast(tensor, array, exact=False)


def _without_objects(tensor: Tensor, value: Values) -> Values:
    """An array of objects has no type of its own: for numbers it is the list of these objects."""
    import numpy

    is_list = isinstance(value, numpy.ndarray) and value.dtype == object
    return value.tolist() if is_list and tensor.datatype != "BYTES" else value


def is_null(value: Values) -> bool:
    """What JSON calls null; pandas has an object of its own for it."""
    pandas = sys.modules.get("pandas")
    return value is None or (pandas is not None and value is getattr(pandas, "NA", None))


def _from_lists(tensor: Tensor, value: Values) -> Array:
    import numpy

    try:
        if tensor.datatype == "BYTES":
            return numpy.array(value, dtype=object)
        # Not in the tensor's type at once: numpy would cut 1.5 down to 1 without a word.
        array = numpy.array(value)
        # numpy makes floats of whole numbers that stand beside floats, also of those that are none.
        if array.dtype == "float64" and (numpy.abs(array) >= _FIRST_LOST).any():
            array = numpy.array(value, dtype=object)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidOption(f"input '{tensor.name}' is not a regular array ({error})") from error
    return _each_judged(tensor, array) if array.dtype == object else array


def _each_judged(tensor: Tensor, array: Array) -> Array:
    """Numbers of several kinds as one type that holds each of them; what is no number stays as it
    is. For floats null is NaN, as MLflow and pandas write it; whole numbers have nothing for it.
    """
    import numpy

    values = [plain(one) for one in array.flat]
    if any(map(is_null, values)):
        if not is_float(tensor.dtype):
            raise _loss_error(tensor, "null")
        values = [math.nan if is_null(one) else one for one in values]
    if not values or not all(isinstance(one, (int, float)) for one in values):
        return array
    if all(isinstance(one, int) for one in values) and not all(map(_has_64_bits, values)):
        raise _loss_error(tensor, "a whole number beyond 64 bits")
    for one in values:
        if not _holds(tensor, one):
            kind = "whole number" if isinstance(one, int) else "number"
            raise _loss_error(tensor, f"the {kind} {one}")
    wanted = "float64" if is_float(tensor.dtype) else tensor.dtype
    return numpy.array(values, dtype=wanted).reshape(array.shape)


def plain(value: Values) -> Values:
    """Python's own of what numpy has: a number, or an array without dimensions."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _has_64_bits(value: int) -> bool:
    return -(2**63) <= value < 2**64


def _holds(tensor: Tensor, value: float) -> bool:
    """True where the tensor can have exactly this number, as Python compares numbers: to the last
    digit. A float is rounded to a tensor of floats later.
    """
    import numpy

    if is_float(tensor.dtype):
        if isinstance(value, float):
            return True
        # Beyond 64 bits Python may refuse to make a float.
        return _has_64_bits(value) and float(_in_type(tensor, numpy.array(float(value)))) == value
    if tensor.dtype.kind == "b":
        return value in (0, 1)
    limits = numpy.iinfo(tensor.dtype)
    return int(limits.min) <= value <= int(limits.max) and int(value) == value


def _in_type(tensor: Tensor, array: Array) -> Array:
    import numpy

    with numpy.errstate(all="ignore"):
        if tensor.datatype == "BF16":
            return _as_bfloat16(array, tensor.dtype)
        return array.astype(tensor.dtype)


def _cast(tensor: Tensor, array: Array, exact: bool) -> Array:
    import numpy

    if tensor.datatype == "BYTES":
        return _as_bytes(tensor, array)
    if array.dtype == tensor.dtype and tensor.datatype != "BF16":
        return array
    if array.dtype.kind not in "iub" and not is_float(array.dtype) and array.size:
        raise _loss_error(tensor, _KINDS.get(array.dtype.kind, f"values of type {array.dtype}"))
    cast = _in_type(tensor, array)
    # numpy calls the way from 64-bit whole numbers to floats safe, and it is not.
    wide = array.dtype.kind in "iu" and array.dtype.itemsize == 8 and tensor.dtype.kind == "f"
    if not wide and tensor.datatype != "BF16" and numpy.can_cast(array.dtype, tensor.dtype, "safe"):
        return cast
    rounding = not exact and is_float(array.dtype) and is_float(tensor.dtype)
    same = numpy.isfinite(cast) == numpy.isfinite(array) if rounding else _equal(array, cast)
    if not numpy.all(same):
        first = array[numpy.logical_not(same)].flat[0]
        raise _loss_error(
            tensor,
            f"{array.dtype} values such as {first!s}",
            f"; {_how_to_lose(tensor)} says that this is meant" if exact else "",
        )
    return cast


def _how_to_lose(tensor: Tensor) -> str:
    """numpy alone has no bfloat16, and lists are rounded to what a tensor of floats can hold."""
    return (
        ".astype('float32').tolist()"
        if tensor.datatype == "BF16"
        else (f".astype('{tensor.dtype}')")
    )


def _equal(array: Array, cast: Array) -> Array:
    """Which values survive the way there and back; the sign tells -1 from the largest number of an
    unsigned type. A float that is too large for a whole number becomes what the processor likes,
    the largest one too, which is as large as the float again when it comes back.
    """
    import numpy

    with numpy.errstate(all="ignore"):
        same = (cast.astype(array.dtype) == array) & ((cast < 0) == (array < 0))
        for floats, whole in ((array, cast), (cast, array)):
            if is_float(floats.dtype) and whole.dtype.kind in "iu":
                same &= floats.astype("float64") < float(int(numpy.iinfo(whole.dtype).max) + 1)
    if is_float(array.dtype) and is_float(cast.dtype):
        same |= numpy.isnan(array) & numpy.isnan(cast)
    return same


def is_float(dtype: Array) -> bool:
    """True of numpy's floats, and of the bfloat16 that newer releases of tritonclient use."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _as_bfloat16(array: Array, dtype: Array) -> Array:
    """Rounded to what bfloat16 can hold. Older releases of tritonclient take float32 for it, and
    cut its lower half off.
    """
    import numpy

    if dtype.name == "bfloat16":
        return array.astype(dtype)
    single = numpy.ascontiguousarray(array, "float32").reshape(array.shape)
    bits = single.view("uint32")
    # To the nearest, and of two that are equally near to the even one; what is not finite stays as
    # it is.
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype("uint32").view("float32")
    return numpy.where(numpy.isfinite(single), rounded, single)


def _as_bytes(tensor: Tensor, array: Array) -> Array:
    import numpy

    if array.dtype.kind not in "OSU":
        raise _loss_error(tensor, f"values of type {array.dtype}")
    flat = numpy.empty(array.size, dtype=object)
    for index, one in enumerate(array.ravel()):
        if is_null(one):
            raise _loss_error(tensor, "null")
        if not isinstance(one, (str, bytes)):
            raise _loss_error(tensor, f"a value of type {type(one).__name__}")
        # numpy's own bytes are bytes too, of which tritonclient would send how they are shown.
        flat[index] = one.encode() if isinstance(one, str) else bytes(one)
    return flat.reshape(array.shape)


def _loss_error(tensor: Tensor, what: str, hint: str = "") -> InvalidOption:
    return InvalidOption(
        f"input '{tensor.name}' is {tensor.datatype} and cannot take {what} without loss{hint}"
    )


def _in_shape(array: Array, shape: tuple[int, ...], by_rows: bool) -> Array:
    """Lists and frames leave out what Triton wants: the dimension of the batch, or that of a single
    feature.
    """
    if array.ndim == len(shape):
        return array
    if array.ndim == 0 and all(size in (1, -1) for size in shape):
        return array.reshape((1,) * len(shape))
    if array.ndim == len(shape) + 1 and array.shape[0] == 1:
        return array[0]
    if array.ndim == len(shape) - 1:
        if by_rows and shape[-1] in (1, -1):
            return array[..., None]
        if all(size in (-1, have) for size, have in zip(shape[1:], array.shape)) and shape[0] in (
            1,
            -1,
        ):
            return array[None]
        if shape[-1] in (1, -1):
            return array[..., None]
    return array


def _each_a_row(tensor: Tensor, rows: Sequence[Values]) -> Array:
    """Rows may leave out a dimension of one, where their shape says which; never are several rows
    taken for the values of one, however well they would fit.
    """
    array, shape = as_it_stands(tensor, rows), tensor.shape
    if array.ndim == len(shape):
        return array
    if array.ndim == len(shape) + 1 and len(rows) == 1:
        return array[0]  # of a model that takes no batch
    if array.ndim == len(shape) - 1:
        have = array.shape
        shapes = {(*have[:place], 1, *have[place:]) for place in range(1, len(shape))}
        fitting = [one for one in shapes if _fits(shape[1:], one[1:])]
        if len(fitting) == 1:
            return array.reshape(fitting[0])
    raise InvalidOption(
        f"input '{tensor.name}' takes rows of the shape {list(shape[1:])}, and each row that is"
        f" given has {list(array.shape[1:])}: write it in the whole shape, or what is one tensor"
        " as {inputs: …}"
    )


def _fits(shape: tuple[int, ...], given: tuple[int, ...]) -> bool:
    return all(size in (-1, have) for size, have in zip(shape, given))
