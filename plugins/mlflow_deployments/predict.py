# SPDX-License-Identifier: Apache-2.0
"""Inference as MLflow's users ask for it: the answer keeps the shape their scripts parse."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
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
from ..module_utils._delivery.terminal import one_line
from ..module_utils._delivery.triton.inference import (
    ONLY_GRPC,
    Interface,
    infer,
    infer_and_kind,
    interface_of,
    request_of,
    served_interface,
)
from ..module_utils._delivery.triton.pyfunc_requests import unknown_params
from ..module_utils._delivery.triton.server import TritonServer
from .failures import to_mlflow_error
from .pyfunc_answer import returned_by_pyfunc

logger = logging.getLogger(__name__)
_STEP = "predict"


@dataclass(frozen=True)
class Known:
    """How a model is asked, and what was deployed when that was found out."""

    interface: Interface
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
        known = self._interface(server, name)
        try:
            return _answer(server, name, values, known.interface)
        except (InvalidOption, ServerError) as error:
            refused = isinstance(error, ServerRefused) and error.knows_no_such_model
            if isinstance(error, ServerError) and not refused:
                raise
            # Another process may have deployed another model since its inputs were asked for.
            fresh = self._ask(server, name)
            if fresh.interface == known.interface:
                raise
            return _answer(server, name, values, fresh.interface)

    def _interface(self, server: TritonServer, name: str) -> Known:
        known = self._known.get((server.url, name))
        if known is None or known.stamp != self._stamp(name):
            known = self._ask(server, name)
        return known

    def _ask(self, server: TritonServer, name: str) -> Known:
        stamp = self._stamp(name)
        known = self._known[(server.url, name)] = Known(_interface(server, name), stamp)
        return known


def _interface(server: TritonServer, name: str) -> Interface:
    try:
        return served_interface(server, name)
    except ServerRefused as error:
        if error.status != 403:
            raise
    # Who may not see configurations may see the tensors, and asks as most models are asked.
    entries = server.metadata(name)["inputs"]
    return interface_of(
        {
            "input": [
                {"name": one["name"], "data_type": one["datatype"], "dims": one.get("shape", ())}
                for one in entries
            ]
        }
    )


def _answer(server: TritonServer, name: str, values: Any, interface: Interface) -> Any:
    try:
        if interface.pyfunc:
            return _ask_pyfunc(server, name, values, interface)
        request = request_of(values, interface.inputs)
        if interface.decoupled and not server.address.scheme.startswith("grpc"):
            raise InvalidOption(
                f"{ONLY_GRPC}: predict with a target such as triton://host:8001?protocol=grpc"
                f" ({server.url} is asked over HTTP)"
            )
        return _to_frame(infer(server, _STEP, name, request, interface))
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


def _ask_pyfunc(server: TritonServer, name: str, values: Any, interface: Interface) -> Any:
    pyfunc = interface.pyfunc
    if pyfunc is None:
        raise RuntimeError("only a model that pyfunc runs is asked so")
    request = request_of(values, interface.inputs, pyfunc)
    for unknown in unknown_params(values, pyfunc):
        logger.warning("%s: the model has no param %s, which is ignored", name, one_line(unknown))
    outputs, kind = infer_and_kind(server, _STEP, name, request, interface)
    return returned_by_pyfunc(outputs, pyfunc, kind)


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
