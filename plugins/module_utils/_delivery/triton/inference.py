# SPDX-License-Identifier: Apache-2.0
"""How a model is asked: its configuration tells which tensors it takes, whether it answers once,
and whether its requests belong to sequences.
"""

from __future__ import annotations

import json
import secrets
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ..domain import config_pbtxt
from ..domain.served_pyfunc import ASKS, KINDS, ServedPyfunc, served_pyfunc
from ..errors import InvalidOption, ServerError
from ..libraries import require
from .pyfunc_requests import pyfunc_request
from .server import TritonServer
from .tensors import Array, Request, Tensor, Values, read_request
from .transport import Answer, JsonObject, Nonsense

_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
_OWN = frozenset({*_SEQUENCE, "priority", "timeout"})
# What the request's form on the wire is made of, and not what the model is told.
_OF_THE_WIRE = frozenset({"binary_data_output", "binary_data_size"})
_LARGEST_ID = 2**31
_MOST_STEPS = 1000
# What tritonclient and numpy raise where an answer has another shape than they take for granted.
_MISREAD = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    struct.error,
)
# As wide as Triton's protocol has them.
_LIMITS = {"sequence_id": 2**63, "priority": 2**64, "timeout": 2**63}
ONLY_GRPC = (
    "it is a decoupled model (it may answer a request any number of times), which Triton serves in"
    " streams over gRPC alone"
)


@dataclass(frozen=True)
class Interface:
    """How a model is asked.

    Attributes:
        inputs: by name; none where the configuration does not say.
        optional: names of those that a request may leave out.
        largest_batch: rows of one request; 0 where the first dimension is no batch.
        decoupled: it may answer a request any number of times.
        in_sequences: its requests belong to sequences, each with a correlation id.
        text_ids: the correlation ids are texts.
        outputs: by name; none where the configuration does not say.
        shapes: names of inputs that are shapes of other ones, which TensorRT takes.
        pyfunc: how MLflow's pyfunc is asked behind it; None of other models.
    """

    inputs: Mapping[str, Tensor]
    optional: frozenset[str] = frozenset()
    largest_batch: int = 0
    decoupled: bool = False
    in_sequences: bool = False
    text_ids: bool = False
    outputs: Mapping[str, Tensor] = field(default_factory=dict)
    shapes: frozenset[str] = frozenset()
    pyfunc: ServedPyfunc | None = None


def interface_of(config: JsonObject) -> Interface:
    """Of a configuration as Triton's servers show it, over HTTP or gRPC."""
    largest = int(config.get("max_batch_size") or 0)
    entries = config.get("input") or ()
    inputs = {entry["name"]: _tensor(entry, largest > 0) for entry in entries}
    optional = {entry["name"] for entry in entries if entry.get("optional")}
    if len(inputs) == 1:
        inputs = {name: replace(one, columns=_columns(config, one)) for name, one in inputs.items()}
    batching = config.get("sequence_batching")
    kinds = [
        control.get("data_type")
        for control_input in (batching or {}).get("control_input") or ()
        for control in control_input.get("control") or ()
        if control.get("kind") == "CONTROL_SEQUENCE_CORRID"
    ]
    policy = config.get("model_transaction_policy") or {}
    return Interface(
        inputs,
        frozenset(optional),
        largest,
        bool(policy.get("decoupled")),
        batching is not None,
        "TYPE_STRING" in kinds,
        {entry["name"]: _tensor(entry, largest > 0) for entry in config.get("output") or ()},
        frozenset(entry["name"] for entry in entries if entry.get("is_shape_tensor")),
        served_pyfunc(config),
    )


def _columns(config: JsonObject, tensor: Tensor) -> tuple[str, ...]:
    """The names that a made configuration has for the columns of its rows."""
    entry = (config.get("parameters") or {}).get(config_pbtxt.COLUMNS_KEY) or {}
    try:
        names = json.loads(entry.get("string_value") or "[]")
    except ValueError:
        return ()
    fits = isinstance(names, list) and all(isinstance(name, str) for name in names)
    width = tensor.shape[-1] if tensor.shape else 0
    return tuple(names) if fits and width in (-1, len(names)) else ()


def _tensor(entry: JsonObject, batched: bool) -> Tensor:
    with require("tritonclient", "to ask a model"):
        import numpy
        from tritonclient.utils import triton_to_np_dtype
    kind = str(entry.get("data_type", "")).removeprefix("TYPE_")
    kind = "BYTES" if kind == "STRING" else kind
    batch = (-1,) if batched and not entry.get("is_shape_tensor") else ()
    dtype = numpy.dtype(object if kind == "BYTES" else triton_to_np_dtype(kind) or object)
    shape = (*batch, *(int(size) for size in entry.get("dims") or ()))
    return Tensor(entry["name"], kind, shape, dtype, optional=bool(entry.get("optional")))


def interface_of_text(config: bytes) -> Interface:
    """Of a config.pbtxt.

    Raises:
        ConfigError: it does not parse.
    """
    return interface_of(config_pbtxt.as_json(config_pbtxt.parse(config)))


def served_interface(server: TritonServer, name: str) -> Interface:
    """Of a model that a server has loaded, as that completed its configuration. The steps of an
    ensemble are asked too: their sequences are its own.

    Raises:
        NotFound: the server does not serve it.
        ServerError: it did not answer.
    """
    config = server.config(name)
    found = interface_of(config)
    seen, steps = {name}, list(_steps(config))
    while steps:
        step = steps.pop()
        if step in seen:
            continue
        seen.add(step)
        if len(seen) > _MOST_STEPS:
            raise ServerError(
                f"Triton at {server.url} says that the ensemble has more than {_MOST_STEPS} steps",
                model=name,
                step="ask Triton for the served configuration",
                server=server.url,
            )
        config = server.config(step)
        of_step = interface_of(config)
        steps += _steps(config)
        found = replace(
            found,
            decoupled=found.decoupled or of_step.decoupled,
            in_sequences=found.in_sequences or of_step.in_sequences,
            text_ids=found.text_ids or of_step.text_ids,
        )
    return found


def _steps(config: JsonObject) -> Iterable[str]:
    for step in (config.get("ensemble_scheduling") or {}).get("step") or ():
        yield str(step["model_name"])


def request_of(
    values: Values, inputs: Mapping[str, Tensor], pyfunc: ServedPyfunc | None = None
) -> Request:
    """``read_request``, or ``pyfunc_request`` for a model that pyfunc runs, which also refuses
    texts that JSON can write and no server can be sent, and parameters that tritonclient cannot
    write.

    Raises:
        InvalidOption: naming the tensor, the form, the parameter or the character.
    """
    try:
        request = pyfunc_request(values, pyfunc, inputs) if pyfunc else read_request(values, inputs)
    except UnicodeEncodeError as error:
        character = error.object[error.start : error.end]
        raise InvalidOption(
            f"a text has the character {character!a}, which UTF-8 does not have"
        ) from error
    for name, value in request.parameters.items():
        _refuse_parameter(name, value)
    return request


def _refuse_parameter(name: str, value: object) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if name in _LIMITS:
        fits = whole and 0 <= value < _LIMITS[name]  # type: ignore[operator]
        wanted = f"a whole number from 0 to {_LIMITS[name] - 1}"
        if name == "sequence_id" and isinstance(value, str):
            return
        wanted += " or a text" if name == "sequence_id" else ""
    elif name in _SEQUENCE:
        fits, wanted = isinstance(value, bool), "true or false"
    else:
        fits = isinstance(value, (str, bool, float)) or (
            whole and -(2**63) <= value < 2**63  # type: ignore[operator]
        )
        wanted = "a text, true or false, or a number of 64 bits"
    if not fits and name not in _OF_THE_WIRE:
        raise InvalidOption(f"the parameter {name} is {value!r}, and has to be {wanted}")


# -- an example as a request -----------------------------------------------------------------------


def example_request(document: Mapping[str, object], interface: Interface) -> Request:
    """The request that an input example of MLflow makes.

    It has as many rows as the model takes at once.

    Raises:
        InvalidOption: none can be made of it; the message says why.
    """
    inputs = interface.inputs
    if interface.pyfunc:
        asked = request_of(document, inputs, interface.pyfunc)
        _refuse_absent(asked, interface)
        return asked
    given = {key: value for key, value in document.items() if key != "params" or key in inputs}
    asked = request_of(given, inputs)
    _refuse_absent(asked, interface)
    arrays = dict(asked.arrays)
    for name, (datatype, array) in arrays.items():
        _refuse_shape(inputs[name], array, "the example")
        if interface.largest_batch and not array.shape[0]:
            raise InvalidOption(f"input '{name}' has no row in the example")
        if interface.largest_batch:
            arrays[name] = (datatype, array[: interface.largest_batch])
    rows = {array.shape[0] for _datatype, array in arrays.values() if interface.largest_batch}
    if len(rows) > 1:
        raise InvalidOption("its inputs do not have as many rows as one another")
    return Request(arrays)


def refuse_misfit(request: Request, interface: Interface) -> None:
    """Refuse a request that Triton would, for what the whole configuration says of its inputs.

    Of a model without a batch nothing is said about shapes: its backend may find out that it takes
    one. Nor is it of shapes that are inputs.

    Raises:
        InvalidOption: naming the input.
    """
    _refuse_absent(request, interface)
    if not interface.largest_batch:
        return
    for name, (_datatype, array) in request.arrays.items():
        if name in interface.shapes:
            continue
        _refuse_shape(interface.inputs[name], array, "what is given")
        if array.shape[0] > interface.largest_batch:
            raise InvalidOption(
                f"input '{name}' has {array.shape[0]} rows, and the model takes"
                f" {interface.largest_batch} at once"
            )


def _refuse_absent(request: Request, interface: Interface) -> None:
    needed = [name for name in interface.inputs if name not in interface.optional]
    for name in needed:
        if name not in request.arrays:
            raise InvalidOption(f"it has nothing for the input '{name}'")


def _refuse_shape(tensor: Tensor, array: Array, given: str) -> None:
    fits = array.ndim == len(tensor.shape) and all(
        size in (-1, have) for size, have in zip(tensor.shape, array.shape)
    )
    if not fits:
        raise InvalidOption(
            f"input '{tensor.name}' takes the shape {list(tensor.shape)}, and {given} has"
            f" {list(array.shape)}"
        )


def as_example(request: Request) -> dict[str, object]:
    """Tensor name → nested lists, for a record."""
    return {name: _plain(array) for name, (_datatype, array) in request.arrays.items()}


def _plain(array: Array) -> object:
    if array.dtype != object:
        return array.tolist()
    texts = [one.decode() if isinstance(one, bytes) else str(one) for one in array.ravel()]
    shaped = array.copy().ravel()
    shaped[:] = texts
    return shaped.reshape(array.shape).tolist()


# -- asking ----------------------------------------------------------------------------------------


def infer(
    server: TritonServer,
    step: str,
    name: str,
    request: Request,
    interface: Interface,
    version: str = "",
) -> dict[str, Array | list[Array]]:
    """Ask a model once; output name → array.

    Of a model in sequences it is a sequence of its own, unless ``parameters`` say another thing.
    What a decoupled model answers is joined along the first dimension; an output whose shapes do
    not go together, as pieces of a text often do not, is a list of its arrays instead.

    Raises:
        InvalidOption: a decoupled model, and the server is asked over HTTP.
        ServerError: the server answered with an error, or not at all.
    """
    return infer_and_kind(server, step, name, request, interface, version)[0]


def infer_and_kind(
    server: TritonServer,
    step: str,
    name: str,
    request: Request,
    interface: Interface,
    version: str = "",
) -> tuple[dict[str, Array | list[Array]], str | None]:
    """As ``infer``, and what pyfunc returned (``frame``, ``series``, …) where the server says."""
    over_grpc = server.address.scheme.startswith("grpc")
    if interface.decoupled and not over_grpc:
        raise InvalidOption(f"{ONLY_GRPC}, and {server.url} is asked over HTTP")
    tensors = tensors_of(server, request.arrays)
    if interface.pyfunc:
        request = replace(request, parameters={**request.parameters, ASKS: "answer"})
    options = _options(server, request, interface)
    if version:
        options["model_version"] = version
    if not interface.decoupled:
        answered = server.ask(
            step,
            lambda seconds: outputs_of(
                server.transport.call(seconds, "infer", name, tensors, **options)
            ),
        )
        return kind_and_outputs(answered, interface) if interface.pyfunc else (answered, None)
    joined = server.ask(
        step,
        lambda seconds: _joined(
            [outputs_of(one) for one in server.transport.stream(seconds, name, tensors, **options)]
        ),
    )
    return joined, None


def kind_and_outputs(
    answered: Mapping[str, Array], interface: Interface
) -> tuple[dict[str, Array | list[Array]], str | None]:
    """The outputs in the shapes that they have, and what pyfunc returned: the worker says it by
    dimensions of size 1 behind them.
    """
    outputs: dict[str, Array | list[Array]] = {}
    said: set[int] = set()
    for name, array in answered.items():
        known = interface.outputs.get(name)
        further = array.ndim - len(known.shape) if known else 0
        if 0 < further <= len(KINDS) and set(array.shape[-further:]) == {1}:
            said.add(further)
            array = array.reshape(array.shape[:-further])
        outputs[name] = array
    return outputs, KINDS[said.pop() - 1] if len(said) == 1 else None


def tensors_of(server: TritonServer, arrays: Mapping[str, tuple[str, Array]]) -> list[Answer]:
    """tritonclient's inputs, for the way on which ``server`` is asked."""
    if server.address.scheme.startswith("grpc"):
        from tritonclient.grpc import InferInput
    else:
        from tritonclient.http import InferInput
    tensors = []
    for name, (datatype, array) in arrays.items():
        tensor = InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    return tensors


def _options(server: TritonServer, request: Request, interface: Interface) -> dict[str, object]:
    given = {key: value for key, value in request.parameters.items() if key not in _OF_THE_WIRE}
    options: dict[str, object] = {key: value for key, value in given.items() if key in _OWN}
    if interface.in_sequences and not any(key in options for key in _SEQUENCE):
        number = secrets.randbelow(_LARGEST_ID - 1) + 1
        options["sequence_id"] = str(number) if interface.text_ids else number
        options["sequence_start"] = options["sequence_end"] = True
    if more := {key: value for key, value in given.items() if key not in _OWN}:
        options["parameters"] = more
    if request.request_id:
        options["request_id"] = request.request_id
    if request.outputs:
        if server.address.scheme.startswith("grpc"):
            from tritonclient.grpc import InferRequestedOutput
        else:
            from tritonclient.http import InferRequestedOutput
        options["outputs"] = [
            InferRequestedOutput(name, class_count=request.classes.get(name, 0))
            for name in request.outputs
        ]
    return options


def outputs_of(result: Answer) -> dict[str, Array]:
    """Of tritonclient's result: output name → array. Raises Nonsense where it holds none."""
    from tritonclient.utils import InferenceServerException

    try:
        response = result.get_response()
        if isinstance(response, Mapping):
            names = [str(output["name"]) for output in response.get("outputs", ())]
        else:
            names = [output.name for output in response.outputs]
        arrays = {name: result.as_numpy(name) for name in names}
    except (*_MISREAD, InferenceServerException) as error:
        raise Nonsense(f"its outputs cannot be read: {error}") from error
    if unread := [name for name, array in arrays.items() if array is None]:
        raise Nonsense(f"its output '{unread[0]}' has no data")
    return arrays


def _joined(answers: list[dict[str, Array]]) -> dict[str, Array | list[Array]]:
    import numpy

    found: dict[str, Array | list[Array]] = {}
    for name in dict.fromkeys(name for answer in answers for name in answer):
        arrays = [answer[name] for answer in answers if name in answer]
        try:
            several = [numpy.atleast_1d(one) for one in arrays]  # numbers without a dimension too
            found[name] = numpy.concatenate(several) if len(arrays) > 1 else arrays[0]
        except ValueError:
            # Not along another dimension: which one is meant would follow from chance lengths.
            found[name] = arrays
    return found
