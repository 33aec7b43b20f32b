# SPDX-License-Identifier: Apache-2.0
"""Of how many instances and GPUs an answer is awaited, and what is said of those that gave none."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from typing import Any, cast

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    ServerError,
    VerificationFailed,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution import reach
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution.reach import (
    Instances,
    Proof,
    prove_everywhere,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.metrics import Sample
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.server import (
    TritonServer,
)

TWO_GPUS = {"kind": "KIND_GPU", "count": 2, "gpus": [0, 1]}


class Server:
    """One that gives a model's requests to its instances in turn, and counts by GPU."""

    url = "somewhere:8000"

    def __init__(self, config: Mapping[str, Any], answering: int, counts: bool = True) -> None:
        self._config = config
        self._turns = itertools.count()
        self._answering = answering
        self._by_instance: dict[str, float] = {}
        self.metrics = self if counts else None
        self.transport = self
        self.asked = 0

    def close(self) -> None:
        pass

    def config(self, _name: str) -> Mapping[str, Any]:
        return self._config

    def ask(self, parameters: Mapping[str, object]) -> bool:
        self.asked += 1
        turn = str(next(self._turns) % self._answering)
        self._by_instance[turn] = self._by_instance.get(turn, 0) + 1
        if self._config["backend"] in ("onnxruntime", "fil"):
            assert parameters == {"mlops_triton_instance": True}
        else:  # it may refuse what it does not know
            assert parameters == {}
        return True

    def answered(self, _name: str, _version: int) -> dict[str, float]:
        gpus: dict[str, float] = {}
        for turn, count in self._by_instance.items():
            gpu = f"GPU-{int(turn) // 2}"
            gpus[gpu] = gpus.get(gpu, 0) + count
        return gpus

    def samples(self) -> tuple[Sample, ...]:
        if self._config["backend"] != "fil":
            return ()
        return tuple(
            Sample("mlops_triton_verified", {"model": "m", "version": "1", "instance": turn}, count)
            for turn, count in self._by_instance.items()
        )


def prove(server: Server, *, once: bool = False) -> tuple[Proof, str | None]:
    return prove_everywhere(
        cast(TritonServer, server), "m", 1, server.ask, decoupled_or_stateful=once
    )


@pytest.mark.parametrize(
    ("groups", "count", "gpus"),
    [
        ([], 1, 0),
        ([{"kind": "KIND_CPU", "count": 3}], 3, 0),
        ([TWO_GPUS], 4, 2),
        ([TWO_GPUS, {"kind": "KIND_CPU", "count": 1}], 5, 2),
        ([{"kind": "KIND_GPU", "count": 1, "gpus": [1]}], 1, 1),
        ([{"kind": "KIND_MODEL", "count": 2, "gpus": []}], 2, 0),
    ],
)
def test_instances_are_those_of_each_group_on_each_of_its_gpus(
    groups: list[Any], count: int, gpus: int
) -> None:
    found = Instances.of({"backend": "fil", "instance_group": groups})
    assert (found.count, found.gpus) == (count, gpus)


def test_each_gpu_and_each_instance_of_ours_is_awaited() -> None:
    proof, said = prove(Server({"backend": "fil", "instance_group": [TWO_GPUS]}, answering=4))
    assert (proof.gpus, proof.instances, said) == (2, 4, None)


def test_a_gpu_of_another_backend_is_awaited_and_instances_are_not_told_apart() -> None:
    proof, said = prove(Server({"backend": "vllm", "instance_group": [TWO_GPUS]}, answering=4))
    assert (proof.gpus, proof.instances, said) == (2, None, None)
    assert proof.requests >= Instances(4, 2, ours=False).needed


def test_a_gpu_that_never_answers_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_MOST_REQUESTS", 64)
    proof, said = prove(Server({"backend": "fil", "instance_group": [TWO_GPUS]}, answering=2))
    assert (proof.gpus, proof.instances) == (1, 2)
    assert said and "only 1 of 2 GPUs and 2 of 4 instances had answered on somewhere:8000" in said


def test_without_metrics_only_several_gpus_are_worth_a_word() -> None:
    config = {"backend": "fil", "instance_group": [TWO_GPUS]}
    proof, said = prove(Server(config, answering=4, counts=False))
    assert (proof.gpus, proof.instances) == (None, None)
    assert said and "each of the 2 GPUs" in said and "metrics_url" in said
    on_cpu = {"backend": "fil", "instance_group": [{"kind": "KIND_CPU", "count": 2}]}
    assert prove(Server(on_cpu, answering=2, counts=False))[1] is None


def test_metrics_that_do_not_answer_are_asked_once() -> None:
    config = {"backend": "fil", "instance_group": [{"kind": "KIND_CPU", "count": 4}]}
    server = Server(config, answering=4)
    asked: list[str] = []

    def silent(_name: str, _version: int) -> dict[str, float]:
        asked.append(_name)
        raise ServerError("no answer within 5 s")

    server.answered = silent  # type: ignore[method-assign]
    proof, said = prove(server)
    assert (asked, proof.instances, said) == (["m"], None, None)
    assert proof.requests >= Instances(4, 0, ours=True).needed


def test_a_slow_model_is_asked_no_longer_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_SECONDS", 0.2)
    config = {"backend": "vllm", "instance_group": [{"kind": "KIND_CPU", "count": 2}]}
    server = Server(config, answering=2)
    ask = server.ask

    def slow(parameters: Mapping[str, object]) -> bool:
        time.sleep(0.3)
        return ask(parameters)

    server.ask = slow  # type: ignore[method-assign]
    proof, said = prove(server)
    assert proof.requests == 3  # one before, and one of each thread
    assert said and "3 requests in 0.2 s are too few" in said


@pytest.mark.parametrize("once", [True, False])
def test_one_instance_and_what_is_asked_in_sequences_is_asked_once(once: bool) -> None:
    groups = [TWO_GPUS] if once else [{"kind": "KIND_GPU", "count": 1, "gpus": [0]}]
    server = Server({"backend": "fil", "instance_group": groups}, answering=1)
    proof, said = prove(server, once=once)
    assert (server.asked, proof.requests, said) == (0, 1, None)
    assert (proof.gpus, proof.instances) == ((None, None) if once else (1, 1))


def test_an_answer_that_differs_fails_it_and_says_that_others_were_right() -> None:
    server = Server({"backend": "fil", "instance_group": [TWO_GPUS]}, answering=4)
    ask = server.ask

    def last_is_wrong(parameters: Mapping[str, object]) -> bool:
        ask(parameters)
        if server.asked == 3:
            raise VerificationFailed("output 'y' is 0")
        return True

    server.ask = last_is_wrong  # type: ignore[method-assign]
    with pytest.raises(VerificationFailed, match=r"y' is 0; .* not each of the 4 instances"):
        prove(server)
