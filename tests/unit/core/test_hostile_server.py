# SPDX-License-Identifier: Apache-2.0
"""Whatever a Triton server answers, it costs a bounded time and memory, and ends in a sentence."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    Defect,
    DeliveryError,
    ServerError,
    ServerTimeout,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton import answers
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.inference import (
    Interface,
    infer,
    interface_of,
    request_of,
    served_interface,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.server import (
    TritonServer,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.transport import (
    LARGEST_INFERENCE,
)
from hypothesis import given, settings
from support.hostile import (
    DRIPS,
    FLOODS,
    NONSENSE,
    VALUES,
    hostile_server,
    says_json,
    spoilt,
)
from tritonclient.grpc import service_pb2, service_pb2_grpc

grpc: Any = pytest.importorskip("grpc")
SECONDS = 60
MOST = 256 << 20
INTERFACE = interface_of({"input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [1]}]})

Question = Callable[[TritonServer], object]


def ask_model(server: TritonServer) -> object:
    return infer(server, "verify", "m", request_of({"x": [1.0]}, INTERFACE.inputs), INTERFACE)


QUESTIONS: dict[str, Question] = {
    "index": lambda server: server.index(),
    "config": lambda server: server.config("m"),
    "metadata": lambda server: server.metadata("m"),
    "interface": lambda server: served_interface(server, "m"),
    "infer": ask_model,
    "load": lambda server: server.load("m"),
}


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """No test hangs, whatever the code under test does."""

    def end(_number: int, _frame: object) -> None:
        pytest.fail(f"it took more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def of_bounded_memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST


def assert_printable(error: DeliveryError) -> None:
    assert not isinstance(error, Defect)
    assert str(error).isprintable()


def error_of(url: str, question: Question, timeout: float = 5) -> DeliveryError:
    with TritonServer(url, timeout) as server, pytest.raises(DeliveryError) as caught:
        question(server)
    assert_printable(caught.value)
    assert url in (caught.value.facts.get("server"), *str(caught.value).split())
    return caught.value


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("question", ["index", "infer"])
def test_a_flood_takes_neither_memory_nor_time(flood: str, question: str) -> None:
    with of_bounded_memory(), hostile_server(FLOODS[flood]) as url:
        assert isinstance(error_of(url, QUESTIONS[question]), ServerError)


@pytest.mark.parametrize("drip", DRIPS)
def test_what_drips_ends_at_the_deadline(drip: str) -> None:
    with hostile_server(DRIPS[drip]) as url:
        assert isinstance(error_of(url, QUESTIONS["index"], 0.6), ServerTimeout)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("nonsense", NONSENSE)
def test_nonsense_is_a_sentence(nonsense: str, question: str) -> None:
    with of_bounded_memory(), hostile_server(NONSENSE[nonsense]) as url:
        if question == "load":  # whose answer is not read where its status is 200
            with TritonServer(url, 1) as server, contextlib.suppress(ServerError):
                server.load("m")
        elif (question, nonsense) != ("metadata", "a number of many digits"):  # which it ignores
            error_of(url, QUESTIONS[question], 1)


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("question", [one for one in QUESTIONS if one != "load"])
def test_an_answer_of_another_shape_is_a_sentence(question: str, value: Any) -> None:
    with hostile_server(says_json(value)) as url, TritonServer(url, 5) as server:
        try:
            QUESTIONS[question](server)
        except DeliveryError as error:
            assert_printable(error)


def test_an_ensemble_of_ever_new_steps_ends() -> None:
    count = iter(range(10**9))

    def talk(connection: socket.socket) -> None:
        step = {"model_name": f"m{next(count)}"}
        says_json({"name": "m", "ensemble_scheduling": {"step": [step]}})(connection)

    with hostile_server(talk) as url:
        assert "more than 1000 steps" in str(error_of(url, QUESTIONS["interface"]))


# -- any JSON in any place -------------------------------------------------------------------------

CONFIG = {
    "name": "m",
    "platform": "ensemble",
    "max_batch_size": 8,
    "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["-1", 3], "optional": True}],
    "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [1], "is_shape_tensor": False}],
    "sequence_batching": {
        "control_input": [
            {"name": "c", "control": [{"kind": "CONTROL_SEQUENCE_CORRID", "data_type": "TYPE_X"}]}
        ]
    },
    "model_transaction_policy": {"decoupled": True},
    "ensemble_scheduling": {"step": [{"model_name": "a", "model_version": -1}]},
    "parameters": {
        "mlops_triton_deploy_id": {"string_value": "i"},
        "mlops_triton_columns": {"string_value": '["a", "b", "c"]'},
    },
    "version_policy": {"latest": {"num_versions": 1}},
}
METADATA = {
    "name": "m",
    "versions": ["1", "2"],
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, "3"]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [1]}],
}
INDEX = [
    {"name": "m", "version": "1", "state": "READY", "reason": ""},
    {"name": "n", "state": "UNAVAILABLE", "reason": "unloaded"},
]


class Said:
    """A transport that answers one thing."""

    spelling = ""

    def __init__(self, **others: Any) -> None:
        said = {"config": CONFIG, "metadata": METADATA, "index": INDEX, **others}
        self._config, self._metadata, self._index = said["config"], said["metadata"], said["index"]

    def index(self, _seconds: float) -> Any:
        return self._index

    def config(self, _seconds: float, _name: str) -> Any:
        return self._config

    def metadata(self, _seconds: float, _name: str, _version: str = "") -> Any:
        return self._metadata

    def release(self, _seconds: float) -> Any:
        return self._metadata


def use(said: Said) -> None:
    """Whatever is made of these answers: a value, or an error for the user."""
    server = TritonServer("127.0.0.1:1", 5)
    server.transport = said  # type: ignore[assignment]
    for question in (
        lambda: served_interface(server, "m"),
        lambda: server.served("m"),
        lambda: server.served("gone"),
        lambda: server.metadata("m"),
        server.release,
    ):
        try:
            question()
        except DeliveryError as error:
            assert_printable(error)


def test_an_honest_answer_is_used() -> None:
    server = TritonServer("127.0.0.1:1", 5)
    server.transport = Said()  # type: ignore[assignment]
    assert server.served("m").deploy_id == "i"
    found = served_interface(server, "m")
    assert isinstance(found, Interface) and found.inputs["x"].shape == (-1, -1, 3)
    assert answers.read_index(INDEX)["n"][0].version is None


@settings(max_examples=300, deadline=None)
@given(spoilt(CONFIG))
def test_any_json_in_any_place_of_a_configuration_is_a_result_or_an_error(config: Any) -> None:
    use(Said(config=config))


@settings(max_examples=150, deadline=None)
@given(spoilt(METADATA))
def test_any_json_in_any_place_of_metadata_is_a_result_or_an_error(metadata: Any) -> None:
    use(Said(metadata=metadata))


@settings(max_examples=150, deadline=None)
@given(spoilt(INDEX))
def test_any_json_in_any_place_of_an_index_is_a_result_or_an_error(index: Any) -> None:
    use(Said(index=index))


# -- gRPC ------------------------------------------------------------------------------------------


class GrpcFloods(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers far more than Triton would, some of it packed."""

    def RepositoryIndex(self, _request: Any, context: Any) -> Any:
        context.set_compression(grpc.Compression.Gzip)
        row = service_pb2.RepositoryIndexResponse.ModelIndex(name="m" * (LARGEST_INFERENCE + 1))
        return service_pb2.RepositoryIndexResponse(models=[row])

    def ModelConfig(self, _request: Any, context: Any) -> Any:
        context.set_compression(grpc.Compression.Gzip)
        steps = [{"model_name": "x" * (1 << 20)} for _number in range(18)]
        config = {"ensemble_scheduling": {"step": steps}}
        return service_pb2.ModelConfigResponse(config=config)

    def ModelMetadata(self, _request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.INTERNAL, "\x1b[2J\nTASK [ok] " + "a" * 4096)

    def ServerMetadata(self, _request: Any, _context: Any) -> Any:
        return service_pb2.ServerMetadataResponse(version="2.51.0")

    def ModelStreamInfer(self, _requests: Any, _context: Any) -> Any:
        while True:
            yield service_pb2.ModelStreamInferResponse(
                infer_response={"model_name": "m", "raw_output_contents": [bytes(1 << 24)]}
            )


@pytest.fixture(scope="module")
def grpc_url() -> Iterator[str]:
    unlimited = [("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(4), options=unlimited)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(GrpcFloods(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"grpc://127.0.0.1:{port}"
    server.stop(None)


@pytest.mark.parametrize("question", ["index", "config", "metadata"])
def test_a_flood_over_grpc_is_a_sentence(grpc_url: str, question: str) -> None:
    error = error_of(grpc_url, QUESTIONS[question], 20)
    assert "did not answer" not in str(error)
    assert len(str(error)) < 20_000


def test_a_stream_of_answers_without_end_is_a_sentence(grpc_url: str) -> None:
    decoupled = replace(INTERFACE, decoupled=True)
    request = request_of({"x": [1.0]}, decoupled.inputs)
    error = error_of(grpc_url, lambda one: infer(one, "verify", "m", request, decoupled), 20)
    assert "longer than any" in str(error)
