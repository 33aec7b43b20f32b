# SPDX-License-Identifier: Apache-2.0
"""A deployment is proven by an answer of each of its instances, on a real Triton."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.bench import FAST, Bench
from support.models import Sample, make_onnx, make_python
from support.servers import triton_server

# Appended to a backend: one instance of four answers what it should not.
ONE_OF_FOUR = """

class Wrong(TritonPythonModel):
    def initialize(self, args):
        super().initialize(args)
        self._is_wrong = args["model_instance_name"].endswith("_2")

    def execute(self, requests):
        if not self._is_wrong:
            return super().execute(requests)
        {instead}


TritonPythonModel = Wrong
"""
FAILS = 'return [_failure("no memory on this one") for _request in requests]'
LIES = "return [_answer(['y'], [np.zeros((1, 2), np.float32)]) for _request in requests]"


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backends")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, backends: Path) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("instances")
    with triton_server(
        folder / "triton",
        repository=folder / "models",
        extra_args=FAST,
        backend_directory=backends,
    ) as triton:
        yield Bench(folder, triton, metrics_url=triton.metrics_url)


def case(sample: Sample) -> dict[str, Any]:
    inputs = {name: rows[:1] for name, rows in sample.inputs.items()}
    return {"inputs": inputs, "outputs": sample.expected(inputs)}


def network(folder: Path, count: int = 4) -> Sample:
    text = (
        'platform: "onnxruntime_onnx"\nmax_batch_size: 8\n'
        'input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } ]\n'
        'output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]\n'
        f"instance_group [ {{ kind: KIND_CPU count: {count} }} ]\n"
    )
    return make_onnx(folder, config=text)


def proof(bench: Bench, name: str) -> Any:
    record = bench.record(name)
    return record.proof if record else None


def test_each_instance_of_a_backend_of_ours_has_answered(bench: Bench, tmp_path: Path) -> None:
    sample = network(tmp_path)
    done = bench.good(name="network", model_uri=str(sample.folder), verify=case(sample))
    found = proof(bench, "network")
    assert done.to_dict()["model"]["proof"] == found
    assert (found["instances"], found["gpus"]) == (4, 0)
    assert 4 <= found["requests"] <= 64
    assert done.warnings == ()
    bench.good(name="network", state="absent")


@pytest.mark.parametrize("instead", [FAILS, LIES])
def test_one_of_four_instances_that_answers_wrongly_is_found(
    bench: Bench, backends: Path, tmp_path: Path, instead: str
) -> None:
    backend = backends / "onnxruntime" / "model.py"
    before = backend.read_text()
    backend.write_text(before + ONE_OF_FOUR.format(instead=instead))
    try:
        sample = network(tmp_path)
        result = bench.deliver(name="network", model_uri=str(sample.folder), verify=case(sample))
        assert "no memory on this one" in str(result.error) or "instead of" in str(result.error)
        assert bench.record("network") is None
    finally:
        backend.write_text(before)


def test_instances_of_other_backends_are_asked_often_and_not_told_apart(
    bench: Bench, tmp_path: Path
) -> None:
    sample = make_python(tmp_path / "good", "several", count=4)
    bench.good(name="several", model_uri=str(sample.folder), verify=case(sample))
    found = proof(bench, "several")
    assert found["instances"] is None
    assert found["requests"] >= 33
    program = sample.folder / "1" / "model.py"
    text = program.read_text()
    program.write_text(text + ONE_OF_FOUR.format(instead='raise ValueError("one is broken")'))
    result = bench.deliver(name="several", model_uri=str(sample.folder), verify=case(sample))
    assert "one is broken" in str(result.error)
    assert bench.identity("several") == 1
    bench.good(name="several", state="absent")


def test_a_full_queue_is_no_wrong_answer(bench: Bench, tmp_path: Path) -> None:
    sample = make_python(tmp_path, "queued", count=6, infer_delay=0.05)
    config = sample.folder / "config.pbtxt"
    queue = "dynamic_batching { default_queue_policy { max_queue_size: 1 } }\n"
    config.write_text(config.read_text() + queue)
    bench.good(name="queued", model_uri=str(sample.folder), verify=case(sample))
    assert proof(bench, "queued")["requests"] >= 53
    bench.good(name="queued", state="absent")


def test_one_instance_is_asked_once(bench: Bench, tmp_path: Path) -> None:
    sample = network(tmp_path, count=1)
    bench.good(name="network", model_uri=str(sample.folder), verify=case(sample))
    assert proof(bench, "network") == {"requests": 1, "gpus": 0, "instances": 1}
    status, said = bench.triton.call("v2/models/network/stats")
    assert status == 200
    assert said["model_stats"][0]["inference_stats"]["success"]["count"] == 1
    bench.good(name="network", state="absent")
