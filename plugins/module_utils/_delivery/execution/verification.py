# SPDX-License-Identifier: Apache-2.0
"""Prove that a model serves: Triton's READY does not (a dead backend process stays READY)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..domain.desired import DesiredModel
from ..domain.record import Record
from ..errors import InvalidOption, ServerError, ServerRefused, VerificationFailed
from ..libraries import require
from ..outside import JsonObject
from ..triton.server import TritonServer

_DEFAULT_TOLERANCE = 1e-4


def case_of(desired: DesiredModel, record: Record) -> JsonObject | None:
    """The case to verify with: the user's, or the model's own example; None where there is
    neither.
    """
    if isinstance(desired.verify, Mapping):
        return desired.verify
    return {"inputs": record.example} if record.example and desired.verify != "none" else None


def verify(server: TritonServer, name: str, version: int, case: JsonObject) -> None:
    """Send ``case["inputs"]`` and compare with ``case["outputs"]`` where given.

    Args:
        case: ``inputs`` and ``outputs`` map tensor names to nested lists, with the batch dimension
            where the model has one; ``tolerance`` is absolute and relative.

    Raises:
        VerificationFailed: the model does not answer, or answers something else.
        InvalidOption: a tensor that the model does not have, or values that do not fit its type.
    """
    tensors = {entry["name"]: entry for entry in server.metadata(name, str(version))["inputs"]}
    answer = infer(server, name, version, case["inputs"], tensors)
    tolerance = float(case.get("tolerance") or _DEFAULT_TOLERANCE)
    for output, expected in (case.get("outputs") or {}).items():
        _compare(output, expected, answer.as_numpy(output), tolerance)


def infer(
    server: TritonServer,
    name: str,
    version: int,
    values: Mapping[str, object],
    tensors: JsonObject,
) -> Any:
    """One inference; returns tritonclient's result."""
    with require("tritonclient", "to verify a model"):
        import numpy
        from tritonclient.utils import triton_to_np_dtype
    module = _client_module(server)
    inputs = []
    for tensor, value in values.items():
        if tensor not in tensors:
            raise InvalidOption(
                f"verify names the input '{tensor}', and the model has {', '.join(tensors)}",
                model=name,
                step="verify",
            )
        datatype = tensors[tensor]["datatype"]
        try:
            array = numpy.array(
                value, dtype=object if datatype == "BYTES" else triton_to_np_dtype(datatype)
            )
        except (TypeError, ValueError) as error:
            raise InvalidOption(
                f"verify.inputs.{tensor} does not fit {datatype} ({error})",
                model=name,
                step="verify",
            ) from error
        entry = module.InferInput(tensor, list(array.shape), datatype)
        entry.set_data_from_numpy(array)
        inputs.append(entry)
    try:
        return server.ask(
            "verify", server.transport.call, "infer", name, inputs, model_version=str(version)
        )
    except ServerError as error:
        reason = error.reason if isinstance(error, ServerRefused) else ""
        raise VerificationFailed(
            f"the model is loaded and does not answer: {reason or error.message}",
            model=name,
            step="verify",
            server=server.url,
        ) from error


def _client_module(server: TritonServer) -> Any:
    if server.address.scheme.startswith("grpc"):
        from tritonclient import grpc as module
    else:
        from tritonclient import http as module
    return module


def _compare(output: str, expected: Any, found: Any, tolerance: float) -> None:
    import numpy

    if found is None:
        raise VerificationFailed(f"the answer has no output '{output}'", step="verify")
    wanted = numpy.array(expected)
    if wanted.shape != found.shape:
        raise VerificationFailed(
            f"output '{output}' has shape {list(found.shape)} instead of {list(wanted.shape)}",
            step="verify",
        )
    if found.dtype.kind in "OSU":
        same = [v.decode() if isinstance(v, bytes) else str(v) for v in found.ravel()] == [
            str(v) for v in wanted.ravel()
        ]
    else:
        same = bool(numpy.allclose(found, wanted, rtol=tolerance, atol=tolerance, equal_nan=True))
    if not same:
        raise VerificationFailed(
            f"output '{output}' is {found.ravel()[:5].tolist()}… instead of"
            f" {wanted.ravel()[:5].tolist()}…",
            step="verify",
        )
