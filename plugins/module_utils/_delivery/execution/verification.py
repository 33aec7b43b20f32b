# SPDX-License-Identifier: Apache-2.0
"""Prove that a model serves: Triton's READY does not (a dead backend process stays READY)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from typing import Any

from ..domain import config_pbtxt
from ..domain.cases import has_texts
from ..domain.desired import Case, DesiredModel, Example
from ..domain.layout import Layout
from ..domain.record import Record
from ..errors import InvalidOption, MissingLibrary, ServerError, ServerRefused, VerificationFailed
from ..outside import JsonObject
from ..triton.address import parse_address
from ..triton.inference import (
    ONLY_GRPC,
    Interface,
    as_example,
    example_request,
    infer,
    interface_of_text,
    refuse_misfit,
    request_of,
    served_interface,
)
from ..triton.server import TritonServer
from ..triton.tensors import Request, Tensor, as_it_stands, is_float, plain
from . import pyfunc_cases
from .reach import Proof, prove_everywhere

_DEFAULT_TOLERANCE = 1e-4
_SHOWN = 5
_QUEUE_IS_FULL = "Exceeds maximum queue size"
"""What Triton says of a request that it does not take."""


def case_of(desired: DesiredModel, record: Record) -> Case | None:
    """The case to verify with: what the user says now, or said when that proved this deployment, or
    the model's own example; None where there is none of these.
    """
    if isinstance(desired.verify, Mapping):
        return desired.verify
    if desired.verify == "none":
        return None
    return kept_case(record, asks_example=desired.verify == "auto")


def kept_case(record: Record, *, asks_example: bool = False) -> Case | None:
    """What a record has to verify its deployment with."""
    if record.case and not asks_example:
        return record.case
    return Example(record.example) if record.example else None


def judge_example(
    layout: Layout, config: bytes, urls: Iterable[str], desired: DesiredModel
) -> Layout:
    """The layout with its example as the model's tensors; without it, and with a warning, where no
    request can be made of it. What Triton completes at the load is judged then.

    Args:
        config: what is to be deployed.
        urls: of the servers; a decoupled model is not asked over HTTP.
        desired: who has said what to verify with, or not to, is not warned.
    """
    warns = desired.verify in (None, "auto")
    if layout.example is None:
        if not layout.why_no_example:
            return layout
        said = _left_out(layout.why_no_example, interface_of_text(config))
        return replace(layout, why_no_example=None, warnings=(*layout.warnings, *([said] * warns)))
    interface = interface_of_text(config)
    if not interface.inputs:
        return layout
    try:
        request = example_request(layout.example, interface)
        # What pyfunc is asked is kept as MLflow wrote it, with bytes, null and params.
        example = layout.example if interface.pyfunc else as_example(request)
    except InvalidOption as error:
        said = _left_out(error.message, interface)
        return replace(layout, example=None, warnings=(*layout.warnings, *([said] * warns)))
    over_http = [url for url in urls if not parse_address(url).scheme.startswith("grpc")]
    more = [_not_over_http(over_http[0])] if warns and interface.decoupled and over_http else []
    return replace(layout, example=example, warnings=(*layout.warnings, *more))


def judge_case(
    config: bytes,
    urls: Iterable[str],
    desired: DesiredModel,
    is_whole: Callable[[], bool] = lambda: True,
) -> None:
    """Refuse what a user says to verify with where it can be known before anything is changed that
    no model of this configuration answers it. What Triton completes is judged when it is served.

    Args:
        config: what is to be deployed.
        urls: of the servers.
        is_whole: no backend adds an input, an output or a batch to what the configuration lists;
            asked where that matters.

    Raises:
        InvalidOption: with the name of the tensor.
    """
    case = desired.verify
    if not isinstance(case, Mapping) or desired.state not in ("present", "rolled_back"):
        return
    try:
        interface = interface_of_text(config)
    except MissingLibrary:  # without which no server is asked: a check run of a bare host
        return
    over_http = [url for url in urls if not parse_address(url).scheme.startswith("grpc")]
    if interface.decoupled and over_http:
        raise _needs_grpc(over_http[0], desired.name)
    if not interface.inputs or not interface.outputs or not _says_all(config):
        return
    try:
        _refuse_case(case, interface, desired.name)
    except InvalidOption:
        if is_whole():
            raise


def _says_all(config: bytes) -> bool:
    """Whether each tensor that it lists has a type and a shape, which many backends complete."""
    message = config_pbtxt.parse(config)
    return all(tensor.data_type and tensor.dims for tensor in (*message.input, *message.output))


def _refuse_case(case: JsonObject, interface: Interface, name: str) -> None:
    request = _given(case["inputs"], interface, name)
    try:
        refuse_misfit(request, interface)
    except InvalidOption as error:
        raise InvalidOption(f"verify.inputs: {error.message}", model=name, step="verify") from error
    if interface.pyfunc:
        said = pyfunc_cases.refuse_outputs(case.get("outputs") or {}, interface, has_texts)
        if said:
            raise InvalidOption(said, model=name, step="verify")
        return
    for output, expected in (case.get("outputs") or {}).items():
        if output not in interface.outputs:
            raise InvalidOption(
                f"verify names the output '{output}', and the model has"
                f" {', '.join(interface.outputs)}",
                model=name,
                step="verify",
            )
        datatype = interface.outputs[output].datatype
        if datatype != "BYTES" and has_texts(expected):
            raise InvalidOption(
                f"verify.outputs.{output} has texts, and the output is {datatype}",
                model=name,
                step="verify",
            )


def verify(server: TritonServer, name: str, version: int, case: Case) -> str | None:
    """Ask the model once what ``case`` says, and compare with ``case["outputs"]`` where given.

    Args:
        case: ``inputs`` and ``outputs`` map tensor names to nested lists, with the batch dimension
            where the model has one; ``inputs`` may be Triton's list of tensors too. ``tolerance``
            is absolute and relative, and where there is none it is 1e-4 for floats, and whole
            numbers and booleans have to be equal. Of a decoupled model, ``outputs`` are those of
            all its answers, joined along the first dimension.

    Returns:
        Why the model was not asked, as a warning; None where it answered as it should.

    Raises:
        VerificationFailed: the model does not answer, or answers something else.
        InvalidOption: a tensor that the model does not have, or values that do not fit its type.
        NotFound: the server does not serve it.
    """
    request, interface = _request(server, name, case)
    if isinstance(request, str):
        return request
    _ask_and_compare(server, name, version, request, interface, case)
    return None


def verify_everywhere(
    server: TritonServer, name: str, version: int, case: Case
) -> tuple[str | None, Proof | None, str | None]:
    """As ``verify``, and then again until each GPU and each instance has answered.

    Returns:
        Why the model was not asked; what answered; a warning where not all of it did.
    """
    request, interface = _request(server, name, case)
    if isinstance(request, str):
        return request, None, None
    _ask_and_compare(server, name, version, request, interface, case)

    def again(parameters: Mapping[str, object]) -> bool:
        marked = replace(request, parameters={**request.parameters, **parameters})
        try:
            _ask_and_compare(server, name, version, marked, interface, case)
        except VerificationFailed as error:
            # So many at once may be more than its configuration lets wait: no answer of its own.
            if _QUEUE_IS_FULL in error.message:
                return False
            raise
        return True

    once = interface.decoupled or interface.in_sequences
    proof, said = prove_everywhere(server, name, version, again, decoupled_or_stateful=once)
    return None, proof, said


def _request(
    server: TritonServer, name: str, case: Case
) -> tuple[Request, Interface] | tuple[str, Interface]:
    """What to ask; or why that cannot be asked, as a warning."""
    interface = served_interface(server, name)
    over_http = not server.address.scheme.startswith("grpc")
    if isinstance(case, Example):
        try:
            request = example_request(case.document, interface)
        except InvalidOption as error:
            return _left_out(error.message, interface), interface
        if interface.decoupled and over_http:
            return _not_over_http(server.url), interface
        return request, interface
    if interface.decoupled and over_http:
        raise _needs_grpc(server.url, name)
    return _given(case["inputs"], interface, name), interface


def _ask_and_compare(
    server: TritonServer,
    name: str,
    version: int,
    request: Request,
    interface: Interface,
    case: Case,
) -> None:
    answer = _ask(server, name, version, request, interface)
    if isinstance(case, Example):
        return
    given = case.get("tolerance")
    tolerance = None if given is None else float(given)
    for output, expected in (case.get("outputs") or {}).items():
        found = answer.get(output)
        if interface.pyfunc:
            found = pyfunc_cases.found_output(output, expected, answer, interface)
        if isinstance(found, list):
            raise VerificationFailed(
                f"the answers have output '{output}' in shapes that do not go together"
                f" ({_shapes_of(found)}), so that it cannot be compared; leave it out of"
                " verify.outputs",
                step="verify",
            )
        _compare(output, expected, found, tolerance)


_GRPC_URL = "name its server as grpc://host:port in triton_url ({url} is HTTP)"


def _left_out(reason: str, interface: Interface) -> str:
    names = [*interface.inputs]
    if interface.pyfunc and interface.pyfunc.in_json:
        names = [str(one.name) for one in interface.pyfunc.inputs] or ["dataframe_split"]
    tensors = ", ".join(f"{name}: …" for name in names or ("…",))
    return (
        "it is not verified, as no request can be made of its input example"
        f" ({reason.rstrip('.')}); verify: {{inputs: {{{tensors}}}}} says what to ask it"
    )


def _shapes_of(arrays: Sequence[Any]) -> str:
    shapes = dict.fromkeys(str(list(array.shape)) for array in arrays)
    return ", ".join([*shapes][:_SHOWN]) + (", …" if len(shapes) > _SHOWN else "")


def _needs_grpc(url: str, name: str) -> InvalidOption:
    return InvalidOption(
        f"{ONLY_GRPC}: {_GRPC_URL.format(url=url)}, or say verify: none", model=name, step="verify"
    )


def _not_over_http(url: str) -> str:
    return f"it is not verified, as {ONLY_GRPC}; {_GRPC_URL.format(url=url)} to have it verified"


def _given(
    values: Mapping[str, object] | Sequence[object], interface: Interface, name: str
) -> Request:
    """What a user wrote, as it stands there."""
    if interface.pyfunc:
        try:
            return pyfunc_cases.request_of_case(values, interface, _as_meant)
        except InvalidOption as error:
            raise pyfunc_cases.refused(error, name) from error
    if not isinstance(values, Mapping):
        try:
            return request_of({"inputs": values}, interface.inputs)
        except InvalidOption as error:
            raise InvalidOption(f"verify: {error.message}", model=name, step="verify") from error
    arrays = {}
    for tensor, value in values.items():
        if tensor not in interface.inputs:
            raise InvalidOption(
                f"verify names the input '{tensor}', and the model has"
                f" {', '.join(interface.inputs)}",
                model=name,
                step="verify",
            )
        arrays[tensor] = (
            interface.inputs[tensor].datatype,
            _array(interface.inputs[tensor], value, name),
        )
    return Request(arrays)


def _array(tensor: Tensor, value: object, name: str) -> Any:
    try:
        return as_it_stands(tensor, _as_meant(tensor, value))
    except InvalidOption as error:
        raise InvalidOption(
            f"verify.inputs.{tensor.name} does not fit {tensor.datatype} ({error.message})",
            model=name,
            step="verify",
        ) from error


def _as_meant(tensor: Tensor, value: Any) -> Any:
    """A template makes texts of numbers, and YAML numbers of texts: which is meant, the input says.
    An array is what it lists.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_as_meant(tensor, one) for one in value]
    if tensor.datatype == "BYTES":
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return str(value) if is_number else value
    if not isinstance(value, str) or tensor.datatype == "BOOL":
        return value
    for kind in (int, float):
        with suppress(ValueError):
            return kind(value)
    return value


def _ask(
    server: TritonServer, name: str, version: int, request: Request, interface: Interface
) -> dict[str, Any]:
    try:
        return infer(server, "verify", name, request, interface, str(version))
    except ServerError as error:
        reason = error.reason if isinstance(error, ServerRefused) else ""
        raise VerificationFailed(
            f"the model is loaded and does not answer: {reason or error.message}",
            model=name,
            step="verify",
            server=server.url,
        ) from error


def _compare(output: str, expected: Any, found: Any, tolerance: float | None) -> None:
    import numpy

    if found is None:
        raise VerificationFailed(f"the answer has no output '{output}'", step="verify")
    try:
        numpy.array(expected)  # refuses rows of different lengths, which objects may have
        # Each as it was written: numpy would make floats of whole numbers, and texts of numbers.
        wanted = numpy.array(expected, dtype=object)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidOption(
            f"verify.outputs.{output} is not a regular array ({error})", step="verify"
        ) from error
    if wanted.shape != found.shape:
        raise VerificationFailed(
            f"output '{output}' has shape {list(found.shape)} instead of {list(wanted.shape)}",
            step="verify",
        )
    values, others = found.ravel(), wanted.ravel()
    for place, one in enumerate(others):
        others[place] = plain(one)
    same = numpy.asarray(_same(values, others, tolerance), dtype=bool)
    if not same.all():
        first = int(numpy.argmin(same))
        start = first if first >= _SHOWN else 0
        shown = slice(start, start + _SHOWN)
        raise VerificationFailed(
            f"output '{output}' is {values[shown].tolist()}… instead of"
            f" {others[shown].tolist()}…" + (f", from its value {start + 1} on" if start else ""),
            step="verify",
        )


def _same(found: Any, wanted: Any, tolerance: float | None) -> Any:
    """Which values of an output are those that a user wrote down."""
    if found.dtype.kind in "OSU":
        return [_as_text(one) == _as_text(other) for one, other in zip(found, wanted)]
    if is_float(found.dtype):
        return _same_floats(found, wanted, _DEFAULT_TOLERANCE if tolerance is None else tolerance)
    return [_is_near(one, other, tolerance or 0) for one, other in zip(found.tolist(), wanted)]


def _as_text(value: object) -> bytes | None:
    """What YAML reads as a number may be meant as a text."""
    if isinstance(value, bytes):
        return value
    return str(value).encode() if isinstance(value, (str, int, float)) else None


def _is_near(found: int, wanted: object, tolerance: float) -> bool:
    """Of a whole number, which Python compares with floats to the last digit."""
    if not isinstance(wanted, (int, float)):
        return False
    if found == wanted or not tolerance or not abs(wanted) < math.inf:
        return found == wanted
    exact = Fraction(wanted)
    return abs(found - exact) <= Fraction(tolerance) * (1 + abs(exact))


def _same_floats(found: Any, wanted: Any, tolerance: float) -> Any:
    """Within the tolerance, or as near as the output's type comes to a float that was written
    down.
    """
    import numpy

    numbers = numpy.array([_as_float(one) for one in wanted], dtype="float64")
    known = numpy.array([_as_float(one) is not None for one in wanted], dtype=bool)
    with numpy.errstate(all="ignore"):
        nearest = numbers.astype(found.dtype).astype("float64")
    rounded = numpy.array([isinstance(one, float) for one in wanted], dtype=bool)
    answered = found.astype("float64")
    near = numpy.isclose(answered, numbers, rtol=tolerance, atol=tolerance, equal_nan=True)
    return known & (near | (rounded & (answered == nearest)))


def _as_float(value: object) -> float | None:
    if not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:  # a whole number that no float is near to
        return None
