# SPDX-License-Identifier: Apache-2.0
"""Inference as MLflow's users ask for it: what they hold becomes tensors, and the answer keeps the
shape their scripts parse.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..module_utils._delivery.errors import (
    DeliveryError,
    InvalidOption,
    NotFound,
    ServerError,
    ServerRefused,
)
from ..module_utils._delivery.libraries import require
from ..module_utils._delivery.triton.server import TritonServer
from .failures import to_mlflow_error

_STEP = "predict"
_KINDS = {"U": "texts", "S": "texts", "M": "dates", "O": "values that are no numbers"}


@dataclass(frozen=True)
class Tensor:
    """An input as the model declares it; ``shape`` has the batch dimension, and -1 where any size
    will do.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    dtype: Any


@dataclass(frozen=True)
class Known:
    """The inputs of a model, and what was deployed when they were asked for."""

    inputs: Mapping[str, Tensor]
    stamp: object


class Predictor:
    """Inference on the servers of one target; may be used from several threads.

    Args:
        connect: makes a ``TritonServer`` for a URL. Each thread gets its own: HTTP clients of
            tritonclient belong to one thread.
        stamp: what changes when another model is deployed under a name, as far as that can be seen
            without asking a server.
    """

    def __init__(
        self, connect: Callable[[str], TritonServer], stamp: Callable[[str], object]
    ) -> None:
        self._connect = connect
        self._stamp = stamp
        self._own = threading.local()
        self._known: dict[tuple[str, str], Known] = {}

    def server(self, url: str) -> TritonServer:
        servers = self._own.__dict__.setdefault("servers", {})
        if url not in servers:
            servers[url] = self._connect(url)
        return servers[url]

    def forget(self, name: str) -> None:
        for key in [key for key in list(self._known) if key[1] == name]:
            self._known.pop(key, None)

    def predict(self, url: str, name: str, values: Any) -> Any:
        """One inference.

        Raises:
            NotFound: the server does not serve the model.
            InvalidOption: values that are not inputs of the model, or do not fit their types.
            ServerError: the server refused or did not answer.
        """
        server = self.server(url)
        known = self._inputs(server, name)
        try:
            return _answer(server, name, values, known.inputs)
        except (InvalidOption, ServerError) as error:
            refused = isinstance(error, ServerRefused) and error.knows_no_such_model
            if isinstance(error, ServerError) and not refused:
                raise
            # Another process may have deployed another model since its inputs were asked for.
            fresh = self._ask(server, name)
            if fresh.inputs == known.inputs:
                raise
            return _answer(server, name, values, fresh.inputs)

    def _inputs(self, server: TritonServer, name: str) -> Known:
        known = self._known.get((server.url, name))
        if known is None or known.stamp != self._stamp(name):
            known = self._ask(server, name)
        return known

    def _ask(self, server: TritonServer, name: str) -> Known:
        with require("tritonclient", "to predict"):
            import numpy
            from tritonclient.utils import triton_to_np_dtype
        stamp = self._stamp(name)
        inputs = {}
        for entry in server.metadata(name)["inputs"]:
            dtype = numpy.dtype(
                object if entry["datatype"] == "BYTES" else triton_to_np_dtype(entry["datatype"])
            )
            inputs[entry["name"]] = Tensor(
                entry["name"],
                entry["datatype"],
                tuple(int(size) for size in entry.get("shape", ())),
                dtype,
            )
        known = self._known[(server.url, name)] = Known(inputs, stamp)
        return known


def _answer(server: TritonServer, name: str, values: Any, inputs: Mapping[str, Tensor]) -> Any:
    try:
        tensors = _tensors(server, arrays_of(values, inputs))
        result = server.ask(_STEP, server.transport.call, "infer", name, tensors)
    except ServerError as error:
        if isinstance(error, ServerRefused) and "unknown model" in error.reason:
            raise NotFound(
                f"Triton at {server.url} does not serve it ({error.reason})",
                model=name,
                step=_STEP,
            ) from error
        raise error.about(model=name) from error.__cause__
    except DeliveryError as error:
        raise error.about(model=name, step=_STEP) from error.__cause__
    return _to_frame({one: result.as_numpy(one) for one in _outputs(result.get_response())})


def _tensors(server: TritonServer, arrays: Mapping[str, tuple[str, Any]]) -> list[Any]:
    if server.address.scheme.startswith("grpc"):
        from tritonclient.grpc import InferInput
    else:
        from tritonclient.http import InferInput
    tensors = []
    for name, (datatype, array) in arrays.items():
        tensor = InferInput(name, array.shape, datatype)
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    return tensors


def _outputs(response: Any) -> list[str]:
    if isinstance(response, Mapping):
        return [output["name"] for output in response["outputs"]]
    return [output.name for output in response.outputs]


# -- from what users hold to arrays ----------------------------------------------------------------


def arrays_of(values: Any, inputs: Mapping[str, Tensor]) -> dict[str, tuple[str, Any]]:
    """Tensor name → datatype and array.

    Args:
        values: a mapping of tensor names to arrays, lists, numbers or texts; a DataFrame; for a
            model with one input, that input alone; any of these under the key ``inputs``, also as a
            JSON text.

    Raises:
        InvalidOption: naming the tensor.
    """
    by_rows = False
    if _is_frame(values):
        values, by_rows = _from_frame(values, inputs)
    values = _unwrap(values, inputs)
    if not isinstance(values, Mapping):
        if len(inputs) != 1:
            raise InvalidOption(
                f"it has the inputs {', '.join(inputs)}: give a dictionary, as one value alone does"
                " not say which is meant"
            )
        values = {next(iter(inputs)): values}
    found = {}
    for name, value in values.items():
        tensor = inputs.get(name)
        if tensor is None:
            raise InvalidOption(f"it has no input '{name}' (inputs: {', '.join(inputs)})")
        found[tensor.name] = (tensor.datatype, as_array(tensor, value, by_rows))
    return found


def _is_frame(values: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(values, getattr(pandas, "DataFrame", ()))


def _from_frame(frame: Any, inputs: Mapping[str, Tensor]) -> tuple[dict[str, Any], bool]:
    """Both shapes that people use: one column indexed by tensor names, or one row per example with
    a column per input.
    """
    if not len(frame.index) or not len(frame.columns):
        raise InvalidOption("the DataFrame is empty")
    columns = list(frame.columns)
    if len(columns) == 1:
        labels = frame.index.tolist()
        if labels and all(label in inputs for label in labels):
            return dict(zip(labels, frame[columns[0]].tolist())), False
        if columns == ["inputs"] and "inputs" not in inputs and len(inputs) == 1:
            columns = list(inputs)
            return {columns[0]: frame["inputs"].tolist()}, True
    unknown = [str(column) for column in columns if column not in inputs]
    if unknown:
        raise InvalidOption(
            f"the DataFrame has the column {', '.join(unknown)}; it takes a column for each input"
            f" ({', '.join(inputs)}), or one column indexed by the names of the inputs"
        )
    return {column: frame[column].tolist() for column in columns}, True


def _unwrap(values: Any, inputs: Mapping[str, Tensor]) -> Any:
    """MLflow's ``{"inputs": …}``, and JSON texts of it where a text cannot be the input itself."""
    takes_text = len(inputs) == 1 and next(iter(inputs.values())).datatype == "BYTES"
    if isinstance(values, (str, bytes)) and not takes_text:
        try:
            values = json.loads(values)
        except ValueError as error:
            raise InvalidOption("the text is not JSON") from error
    if isinstance(values, Mapping) and set(values) == {"inputs"} and "inputs" not in inputs:
        return values["inputs"]
    return values


def as_array(tensor: Tensor, value: Any, by_rows: bool = False) -> Any:
    """The value in the tensor's type, where nothing of it is lost.

    A number in a list, in JSON or in a DataFrame has no type of its own and is read as the
    tensor's; an array has one, and is cast only where each of its values stays what it is.
    """
    import numpy

    if isinstance(value, numpy.ndarray):
        return _cast(tensor, value, exact=True)
    if isinstance(value, (str, bytes, bytearray)):
        value = bytes(value) if isinstance(value, bytearray) else value
        array = numpy.empty((), dtype=object)
        array[()] = value
    else:
        array = _from_lists(tensor, value)
    return _in_shape(_cast(tensor, array, exact=False), tensor.shape, by_rows)


def _from_lists(tensor: Tensor, value: Any) -> Any:
    import numpy

    try:
        if tensor.datatype == "BYTES":
            return numpy.array(value, dtype=object)
        # Not in the tensor's type at once: numpy would cut 1.5 down to 1 without a word.
        array = numpy.array(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidOption(f"input '{tensor.name}' is not a regular array ({error})") from error
    if array.dtype == object and array.size and all(isinstance(one, int) for one in array.flat):
        raise _loss_error(tensor, "a whole number beyond 64 bits")
    return array


def _cast(tensor: Tensor, array: Any, exact: bool) -> Any:
    import numpy

    if tensor.datatype == "BYTES":
        return _as_bytes(tensor, array)
    if array.dtype == tensor.dtype and tensor.datatype != "BF16":
        return array
    if array.dtype.kind not in "iub" and not _is_float(array.dtype) and array.size:
        raise _loss_error(tensor, _KINDS.get(array.dtype.kind, f"values of type {array.dtype}"))
    with numpy.errstate(all="ignore"):
        cast = (
            _as_bfloat16(array, tensor.dtype)
            if tensor.datatype == "BF16"
            else array.astype(tensor.dtype)
        )
    # numpy calls the way from 64-bit whole numbers to floats safe, and it is not.
    wide = array.dtype.kind in "iu" and array.dtype.itemsize == 8 and tensor.dtype.kind == "f"
    if not wide and tensor.datatype != "BF16" and numpy.can_cast(array.dtype, tensor.dtype, "safe"):
        return cast
    rounding = not exact and _is_float(array.dtype) and _is_float(tensor.dtype)
    same = numpy.isfinite(cast) == numpy.isfinite(array) if rounding else _equal(array, cast)
    if not numpy.all(same):
        first = array[numpy.logical_not(same)].flat[0]
        raise _loss_error(
            tensor,
            f"{array.dtype} values such as {first!s}",
            f"; .astype('{tensor.dtype}') says that this is meant" if exact else "",
        )
    return cast


def _equal(array: Any, cast: Any) -> Any:
    """Which values survive the way there and back; the sign tells -1 from the largest number of an
    unsigned type.
    """
    import numpy

    with numpy.errstate(all="ignore"):
        same = (cast.astype(array.dtype) == array) & ((cast < 0) == (array < 0))
    if _is_float(array.dtype) and _is_float(cast.dtype):
        same |= numpy.isnan(array) & numpy.isnan(cast)
    return same


def _is_float(dtype: Any) -> bool:
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _as_bfloat16(array: Any, dtype: Any) -> Any:
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


def _as_bytes(tensor: Tensor, array: Any) -> Any:
    import numpy

    if array.dtype.kind not in "OSU":
        raise _loss_error(tensor, f"values of type {array.dtype}")
    flat = numpy.empty(array.size, dtype=object)
    for index, one in enumerate(array.ravel()):
        if not isinstance(one, (str, bytes)):
            raise _loss_error(tensor, f"a value of type {type(one).__name__}")
        flat[index] = one.encode() if isinstance(one, str) else one
    return flat.reshape(array.shape)


def _loss_error(tensor: Tensor, what: str, hint: str = "") -> InvalidOption:
    return InvalidOption(
        f"input '{tensor.name}' is {tensor.datatype} and cannot take {what} without loss{hint}"
    )


def _in_shape(array: Any, shape: tuple[int, ...], by_rows: bool) -> Any:
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


# -- the answer ------------------------------------------------------------------------------------


class Predictions(dict):  # type: ignore[type-arg]
    """``{"outputs": {tensor: array}}`` where there is no pandas; what scripts do with the DataFrame
    works here too.
    """

    def to_json(self, path_or_buf: Any = None) -> str | None:
        text = json.dumps(self, default=_to_plain, separators=(",", ":"))
        if path_or_buf is None:
            return text
        if hasattr(path_or_buf, "write"):
            path_or_buf.write(text)
            return None
        with open(path_or_buf, "w", encoding="utf-8") as stream:
            stream.write(text)
        return None


def _to_plain(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value.tolist()


def _to_frame(outputs: dict[str, Any]) -> Any:
    """A DataFrame with the one column ``outputs``, indexed by tensor names, or ``Predictions``
    where there is no pandas.
    """
    try:
        frame = _deferred_frame()
    except ImportError:
        return Predictions(outputs=outputs)
    return frame(outputs)


@cache
def _deferred_frame() -> Callable[[dict[str, Any]], Any]:
    """Makes DataFrames that are filled when they are first looked into: filling one takes as long
    as half of a small inference.

    A frame without its parts asks ``__getattr__`` for whichever is wanted first; from then on it is
    a plain DataFrame.
    """
    import pandas

    class Deferred(pandas.DataFrame):  # type: ignore[misc, unused-ignore]
        def __getattr__(self, name: str) -> Any:
            return getattr(fill(self), name)

        def __reduce_ex__(self, protocol: Any) -> Any:
            return fill(self).__reduce_ex__(protocol)

        def to_json(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return fill(self).to_json(*args, **kwargs)
            except UnicodeDecodeError:
                raise to_mlflow_error(
                    InvalidOption(
                        "an output has bytes that are no UTF-8 text, which JSON cannot hold; use"
                        " the Python client",
                        step=_STEP,
                    )
                ) from None

    def fill(frame: Any) -> Any:
        outputs = frame.__dict__.pop("outputs_to_come", None)
        if outputs is not None:
            frame.__dict__.update(pandas.DataFrame.from_dict({"outputs": outputs}).__dict__)
        frame.__class__ = pandas.DataFrame
        return frame

    def make(outputs: dict[str, Any]) -> Any:
        frame = Deferred.__new__(Deferred)
        frame.__dict__["outputs_to_come"] = outputs
        return frame

    return make
