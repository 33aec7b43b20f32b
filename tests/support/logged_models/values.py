# SPDX-License-Identifier: Apache-2.0
"""What a model was asked and what it answered, as JSON that loses nothing: types, dtypes, names,
order, and floats to their last bit. No pickle, because two environments compare with it.
"""

from __future__ import annotations

import base64
import datetime
from typing import Any

import numpy
import pandas


def write(value: Any) -> Any:
    """JSON of a value; those that are equal in everything a user sees have equal JSON."""
    if isinstance(value, pandas.DataFrame):
        columns = [[_label(name), _array(value[name])] for name in value.columns]
        return {"frame": columns, "index": _index(value.index)}
    if isinstance(value, pandas.Series):
        return {"series": _array(value), "name": _label(value.name), "index": _index(value.index)}
    if isinstance(value, numpy.ndarray):
        return {"array": _array(value.reshape(-1)), "shape": list(value.shape)}
    if isinstance(value, numpy.generic):
        return {"scalar": _array(numpy.array([value]))}
    if isinstance(value, dict):
        return {"dict": [[key, write(one)] for key, one in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [write(one) for one in value]}
    return _cell(value)


def _index(index: Any) -> Any:
    plain = isinstance(index, pandas.RangeIndex) and (index.start, index.step) == (0, 1)
    return len(index) if plain else [_cell(one) for one in index]


def _label(name: Any) -> Any:
    return name.item() if isinstance(name, numpy.generic) else name


def _array(values: Any) -> dict[str, Any]:
    """Text is text, whether this pandas or numpy holds it as objects or as a type of its own."""
    dtype = str(values.dtype)
    cells = [_cell(one) for one in values.tolist()]
    known = [cell for cell in cells if cell is not None and cell != {"float": "nan"}]
    if values.dtype.kind in "OUT" and all(isinstance(cell, str) for cell in known):
        return {"dtype": "text", "values": [cell if cell in known else None for cell in cells]}
    return {"dtype": dtype, "values": cells}


def _cell(value: Any) -> Any:
    if isinstance(value, numpy.generic):
        value = value.item()
    if value is pandas.NaT:
        return {"time": None}
    if value is None or value is pandas.NA or isinstance(value, (bool, int, str)):
        return None if value is pandas.NA else value
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, datetime.date):
        return {"time": value.isoformat()}
    if isinstance(value, (list, dict, tuple, numpy.ndarray)):
        return write(value)
    raise TypeError(f"{type(value).__name__} has no exact form here")


def read(value: Any) -> Any:
    """The value of which ``write`` made this JSON."""
    if not isinstance(value, dict):
        return value
    if "frame" in value:
        columns = {name: _read_array(one) for name, one in value["frame"]}
        return pandas.DataFrame(columns, index=_read_index(value["index"]))
    if "series" in value:
        index = _read_index(value["index"])
        return pandas.Series(_read_array(value["series"]), name=value["name"], index=index)
    if "array" in value:
        return numpy.asarray(_read_array(value["array"])).reshape(value["shape"])
    if "dict" in value:
        return {name: read(one) for name, one in value["dict"]}
    if "list" in value:
        return [read(one) for one in value["list"]]
    if "tuple" in value:
        return tuple(read(one) for one in value["tuple"])
    if "scalar" in value:
        return _read_array(value["scalar"])[0]
    return _read_cell(value)


def _read_index(value: Any) -> Any:
    return range(value) if isinstance(value, int) else [_read_cell(one) for one in value]


def _read_array(value: dict[str, Any]) -> Any:
    cells = [_read_cell(one) for one in value["values"]]
    if value["dtype"].startswith("datetime64"):
        return pandas.array(cells, dtype=value["dtype"])
    dtype = object if value["dtype"] == "text" else value["dtype"]
    made = numpy.empty(len(cells), dtype=dtype)
    made[:] = cells
    return made


def _read_cell(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "float" in value:
        return float.fromhex(value["float"])
    if "time" in value:
        return pandas.NaT if value["time"] is None else pandas.Timestamp(value["time"])
    if "bytes" in value:
        return base64.b64decode(value["bytes"])
    return read(value)
