# SPDX-License-Identifier: Apache-2.0
"""Which GPUs and instances of a model have answered: one answer proves one instance.

Triton does not say which instance answers. Its metrics count answers by GPU, and the backends of
this collection count those of each instance that were asked with ``MARK``. Of other backends as
many requests are sent as most likely reach each instance.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..deadline import Deadline
from ..errors import DeliveryError, ServerError, VerificationFailed
from ..outside import JsonDict, JsonObject
from ..triton.server import TritonServer

MARK = "mlops_triton_instance"
"""The parameter of a request that an instance of ours counts."""
_COUNTER = "mlops_triton_verified"
_OURS = frozenset({"onnxruntime", "fil"})
_MOST_REQUESTS = 256
_SECONDS = 10.0
_WIDEST = 8
_EACH = 4
"""Requests of one thread between two looks at the metrics."""
_TURNED_AWAY = 0.05
"""Seconds after which a model whose queue was full is asked again."""
_UNLIKELY = 7.0
"""``exp(-7)``: the chance that requests spread at random miss one instance is below 0.1%."""

Ask = Callable[[Mapping[str, object]], bool]
"""Ask once more, with these parameters; False where the model's queue was full. Raises
VerificationFailed for another answer.
"""


@dataclass(frozen=True)
class Proof:
    """What answered as it should; None where that cannot be told."""

    requests: int
    gpus: int | None
    instances: int | None

    def __add__(self, other: Proof) -> Proof:
        return Proof(
            self.requests + other.requests,
            _sum(self.gpus, other.gpus),
            _sum(self.instances, other.instances),
        )

    def to_dict(self) -> JsonDict:
        return {"requests": self.requests, "gpus": self.gpus, "instances": self.instances}


ONE = Proof(1, None, None)


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


@dataclass(frozen=True)
class Instances:
    """Of a model, as its server completed the configuration."""

    count: int
    gpus: int
    ours: bool

    @classmethod
    def of(cls, config: JsonObject) -> Instances:
        count, gpus = 0, set()
        for group in config.get("instance_group") or ():
            on = {int(gpu) for gpu in group.get("gpus") or ()}
            on = on if group.get("kind") == "KIND_GPU" else set()
            count += max(1, int(group.get("count") or 1)) * max(1, len(on))
            gpus |= on
        return cls(max(1, count), len(gpus), config.get("backend") in _OURS or _is_onnx(config))

    @property
    def needed(self) -> int:
        """Requests that most likely reach each of them."""
        spread = math.ceil(self.count * (math.log(self.count) + _UNLIKELY))
        return min(_MOST_REQUESTS, spread)


def _is_onnx(config: JsonObject) -> bool:
    return config.get("platform") == "onnxruntime_onnx"


def prove_everywhere(
    server: TritonServer, name: str, version: int, ask: Ask, *, decoupled_or_stateful: bool
) -> tuple[Proof, str | None]:
    """Ask again until each GPU and each instance has answered, after a first answer.

    Returns:
        What answered, and a warning where not all of it did.

    Raises:
        VerificationFailed: one answers something else, or does not answer.
    """
    found = Instances.of(server.config(name))
    if decoupled_or_stateful or found.count == 1:
        several = decoupled_or_stateful and found.count > 1
        return (ONE if several else Proof(1, found.gpus, 1)), None
    return _Rounds(server, name, version, ask, found).run()


class _Rounds:
    def __init__(
        self, server: TritonServer, name: str, version: int, ask: Ask, found: Instances
    ) -> None:
        self._server, self._name, self._version = server, name, version
        self._ask, self._found = ask, found
        self._parameters: dict[str, object] = {MARK: True} if found.ours else {}
        self._requests = 1
        self._failure: DeliveryError | None = None
        self._lock = threading.Lock()
        self._deadline = Deadline(_SECONDS)
        self._over = threading.Event()

    def run(self) -> tuple[Proof, str | None]:
        before = self._counted()
        self._deadline = deadline = Deadline(_SECONDS)
        gpus: int | None = None
        instances: int | None = None
        most = max(_MOST_REQUESTS, self._found.needed)
        while True:
            self._ask_several()
            if self._failure:
                raise self._explained(self._failure)
            after = self._counted() if before else None
            gpus, instances = _moved(before, after) if before and after else (None, None)
            if after is None:  # each question that is not answered takes seconds of these
                before = None
            if not self._found.ours or not instances:
                instances = None  # of another backend that has the same name
            if self._are_reached(gpus, instances):
                break
            if deadline.passed or self._requests >= most:
                return Proof(self._requests, gpus, instances), self._said(gpus, instances)
        return Proof(self._requests, gpus, instances), self._not_told_apart(gpus)

    def _are_reached(self, gpus: int | None, instances: int | None) -> bool:
        if instances is not None:
            told = instances >= self._found.count
        else:
            told = self._requests >= self._found.needed
        return told and (gpus is None or gpus >= self._found.gpus)

    def _ask_several(self) -> None:
        width = min(self._found.count, _WIDEST)
        threads = [threading.Thread(target=self._ask_some, daemon=True) for _number in range(width)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _ask_some(self) -> None:
        try:
            for _turn in range(_EACH):
                if self._over.is_set() or self._deadline.passed:
                    return
                if not self._ask(self._parameters):
                    self._over.wait(_TURNED_AWAY)
                    continue
                with self._lock:
                    self._requests += 1
        except Exception as error:
            with self._lock:
                self._failure = self._failure or _as_failure(error)
            self._over.set()
        finally:
            with contextlib.suppress(Exception):
                self._server.transport.close()

    def _explained(self, failure: DeliveryError) -> DeliveryError:
        failure.message = (
            f"{failure.message.rstrip('.; ')}; {self._requests} other"
            f" request{'s' * (self._requests != 1)} had been answered as they should, so that not"
            f" each of the {self._found.count} instances answers alike"
        )
        return failure

    def _counted(self) -> tuple[Mapping[str, float], Mapping[str, float]] | None:
        """Answers by GPU, and by instance; None where no metrics are known."""
        metrics = self._server.metrics
        if metrics is None:
            return None
        try:
            by_gpu = metrics.answered(self._name, self._version)
            by_instance = {
                one.labels.get("instance", ""): one.value
                for one in metrics.samples()
                if one.name == _COUNTER
                and one.labels.get("model") == self._name
                and one.labels.get("version") == str(self._version)
            }
        except ServerError:  # advice: nothing depends on it
            return None
        return by_gpu, by_instance

    def _said(self, gpus: int | None, instances: int | None) -> str:
        found, parts = self._found, []
        if gpus is not None and gpus < found.gpus:
            parts.append(f"{gpus} of {found.gpus} GPUs")
        if instances is not None and instances < found.count:
            parts.append(f"{instances} of {found.count} instances")
        if not parts:
            return (
                f"{self._requests} requests in {_SECONDS:g} s are too few to reach each of the"
                f" {found.count} instances on {self._server.url}: what the others answer is not"
                " verified"
            )
        return (
            f"after {self._requests} requests only {' and '.join(parts)} had answered on"
            f" {self._server.url}: what the others answer is not verified"
        )

    def _not_told_apart(self, gpus: int | None) -> str | None:
        if gpus is not None or self._found.gpus < 2:
            return None
        return (
            f"whether each of the {self._found.gpus} GPUs answers is not known, as metrics_url does"
            f" not say where the metrics of {self._server.url} are"
        )


def _moved(
    before: tuple[Mapping[str, float], Mapping[str, float]],
    after: tuple[Mapping[str, float], Mapping[str, float]],
) -> tuple[int, int]:
    """How many GPUs, and how many instances, have answered between the two."""
    gpus, instances = (
        {key for key, value in now.items() if value > then.get(key, 0.0)}
        for then, now in zip(before, after)
    )
    return len(gpus - {""}), len(instances)


def _as_failure(error: Exception) -> DeliveryError:
    if isinstance(error, DeliveryError):
        return error
    return VerificationFailed(f"it does not answer: {error}", step="verify")
