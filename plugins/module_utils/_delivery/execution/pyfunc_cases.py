# SPDX-License-Identifier: Apache-2.0
"""What a user says to verify a model with that MLflow's pyfunc runs: columns and their values, or a
document of MLflow's scoring server, and what is expected, in both forms that such a model has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ..domain.served_pyfunc import ServedPyfunc, SignatureField
from ..errors import InvalidOption, VerificationFailed
from ..triton.inference import Interface
from ..triton.pyfunc_requests import pyfunc_request
from ..triton.tensors import Request, Tensor

_REQUEST, _RESPONSE = "request", "response"
_PREDICTIONS = "predictions"
_TEXTS = ("string", "binary", "datetime")


def request_of_case(
    values: object, interface: Interface, as_meant: Callable[[Tensor, object], object]
) -> Request:
    """The request that ``verify.inputs`` means.

    Args:
        values: columns and their values, or a document of MLflow.
        as_meant: what YAML and templates made of a value, as the input's type says.

    Raises:
        InvalidOption: naming the column.
    """
    pyfunc = _pyfunc(interface)
    columns = {one.name: one for one in pyfunc.inputs}
    if isinstance(values, Mapping) and {*values} == {_REQUEST} and _REQUEST not in columns:
        values = _only(values[_REQUEST])
    if isinstance(values, Mapping) and all(name in columns for name in values):
        values = {
            name: as_meant(_tensor(columns[name], interface), value)
            for name, value in values.items()
        }
    if isinstance(values, list):
        values = {"inputs": values}
    return pyfunc_request(values, pyfunc, interface.inputs, in_base64=True)


def _pyfunc(interface: Interface) -> ServedPyfunc:
    if interface.pyfunc is None:
        raise RuntimeError("only a model that pyfunc runs has such a case")
    return interface.pyfunc


def _tensor(column: SignatureField, interface: Interface) -> Tensor:
    """For what YAML means; documents have no tensors of columns."""
    import numpy

    found = interface.inputs.get(str(column.name))
    if found is not None:
        return found
    is_text = not column.is_scalar or column.type in _TEXTS
    kind = "BYTES" if is_text else "BOOL" if column.type == "boolean" else "FP64"
    return Tensor(str(column.name), kind, (-1,), numpy.dtype(object))


def _only(value: Any) -> object:
    while isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    return value


def output_names(interface: Interface) -> dict[str, str]:
    """What ``verify.outputs`` may name → the output that is meant."""
    pyfunc = _pyfunc(interface)
    if pyfunc.in_json:
        names = [_RESPONSE, _PREDICTIONS, *(one.column or one.name for one in pyfunc.outputs)]
        return {str(name): _RESPONSE for name in names if name is not None}
    columns = {one.column: str(one.name) for one in pyfunc.outputs if one.column is not None}
    return {**columns, **{name: name for name in interface.outputs}}


def found_output(
    name: str, expected: object, answer: Mapping[str, Any], interface: Interface
) -> Any:
    """The array that ``verify.outputs.<name>`` is compared with; None where there is none. The
    values of a column may be written without the dimension of one that its tensor has.

    Raises:
        VerificationFailed: the answer is no document of MLflow's scoring server.
    """
    import numpy

    pyfunc = _pyfunc(interface)
    if not pyfunc.in_json:
        found: Any = answer.get(output_names(interface).get(name, name))
        is_flat = isinstance(expected, list) and not isinstance(next(iter(expected), None), list)
        is_column = getattr(found, "ndim", 0) == 2 and found.shape[1] == 1
        return found[:, 0] if is_flat and is_column else found
    if name == _RESPONSE and isinstance(_only(expected), str):
        return answer.get(_RESPONSE)
    values = _of_document(name, answer)
    if values is None:
        return None
    try:
        array = numpy.array(values)
    except ValueError:
        array = numpy.empty((), dtype=object)
    return array.astype(object) if array.dtype.kind in "US" else array


def _of_document(name: str, answer: Mapping[str, Any]) -> Any:
    try:
        document = json.loads(answer[_RESPONSE].ravel()[0])
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise VerificationFailed(
            f"the answer is no document of MLflow's scoring server ({error})", step="verify"
        ) from error
    found = document.get(_PREDICTIONS, document) if isinstance(document, Mapping) else document
    rows = found if isinstance(found, list) else []
    if rows and all(isinstance(row, Mapping) for row in rows):
        # A Series without a name, and a single column, are the predictions.
        only = name == _PREDICTIONS and all(len(row) == 1 for row in rows)
        if only:
            return [next(iter(row.values())) for row in rows]
        return [row[name] for row in rows] if all(name in row for row in rows) else None
    if isinstance(found, Mapping):
        return found.get(name)
    return found


def refuse_outputs(
    expected: Mapping[str, object], interface: Interface, has_texts: Callable[[Any], bool]
) -> str | None:
    """Why no model of this configuration answers these outputs; None where one may."""
    names = output_names(interface)
    for name, values in expected.items():
        pyfunc = _pyfunc(interface)
        if pyfunc.in_json:
            if pyfunc.outputs and name not in names:
                return f"verify names the output '{name}', and the model has {', '.join(names)}"
            continue
        if name not in names:
            return f"verify names the output '{name}', and the model has {', '.join(names)}"
        datatype = interface.outputs[names[name]].datatype
        if datatype != "BYTES" and has_texts(values):
            return f"verify.outputs.{name} has texts, and the output is {datatype}"
    return None


def refused(error: InvalidOption, name: str) -> InvalidOption:
    return InvalidOption(f"verify.inputs: {error.message}", model=name, step="verify")
