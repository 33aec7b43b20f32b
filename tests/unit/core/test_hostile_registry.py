# SPDX-License-Identifier: Apache-2.0
"""Whatever a registry answers, it costs a bounded time and memory, and ends in a sentence."""

from __future__ import annotations

import contextlib
import gzip
import json
import resource
import signal
import socket
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.roots import (
    RemoteRoot,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import (
    parse_model_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    Defect,
    DeliveryError,
    RegistryError,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry import (
    registry as registry_module,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from hypothesis import HealthCheck, given, settings
from support.hostile import (
    DRIPS,
    FLOODS,
    NONSENSE,
    VALUES,
    body,
    hostile_server,
    says,
    says_json,
    spoilt,
    without_end,
)

pytest.importorskip("mlflow")
pytest.importorskip("ansible", reason="these take a minute, and once is enough")

SECONDS = 100
MOST = 512 << 20
"""An answer of 64 MiB, what it is made of, and what Python makes of its JSON."""

Question = Callable[[Registry], object]


def listing(registry: Registry) -> object:
    root = f"{registry.tracking_uri}/api/2.0/mlflow-artifacts/artifacts/m"
    return RemoteRoot("m", registry.timeout, registry.store(root)).list()


QUESTIONS: dict[str, Question] = {
    "resolve": lambda registry: registry.resolve(parse_model_uri("models:/m/1")),
    "alias": lambda registry: registry.resolve(parse_model_uri("models:/m@a")),
    "latest": lambda registry: registry.version(parse_model_uri("models:/m/latest")),
    "run": lambda registry: registry.resolve(parse_model_uri("runs:/r/m")),
    "logged": lambda registry: registry.resolve(parse_model_uri("models:/m-1")),
    "info": lambda registry: registry.model_info("m"),
    "names": lambda registry: registry.names(),
    "make": lambda registry: registry.create_version("m", "s", None, None, {}, None),
    "listing": listing,
}


@pytest.fixture(autouse=True)
def deadline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test hangs, whatever the code under test does."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

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


def ask(url: str, question: Question, timeout: float = 5) -> DeliveryError | None:
    """The error that came of it, if one did."""
    try:
        question(Registry(f"http://{url}", timeout))
    except DeliveryError as error:
        return checked(error)
    return None


def checked(error: DeliveryError) -> DeliveryError:
    assert not isinstance(error, Defect), error
    assert str(error).isprintable()
    return error


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("question", ["resolve", "listing"])
def test_a_flood_takes_neither_memory_nor_time(flood: str, question: str) -> None:
    with of_bounded_memory(), hostile_server(FLOODS[flood]) as url:
        assert ask(url, QUESTIONS[question], 3)


@pytest.mark.parametrize("drip", DRIPS)
@pytest.mark.parametrize("question", ["resolve", "listing"])
def test_what_drips_ends_at_the_deadline(drip: str, question: str) -> None:
    with hostile_server(DRIPS[drip]) as url:
        assert "within 0.8 s" in str(ask(url, QUESTIONS[question], 0.8))


@pytest.mark.parametrize("nonsense", NONSENSE)
@pytest.mark.parametrize("question", ["names", "listing"])
def test_nonsense_is_a_sentence(nonsense: str, question: str) -> None:
    with of_bounded_memory(), hostile_server(NONSENSE[nonsense]) as url:
        # MLflow's client takes these for a registry without models.
        nothing = question == "names" and nonsense in ("no UTF-8", "an empty body")
        assert ask(url, QUESTIONS[question], 1) or nothing or nonsense == "a number of many digits"


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("question", QUESTIONS)
def test_an_answer_of_another_shape_is_a_sentence(question: str, value: Any) -> None:
    with hostile_server(says_json(value)) as url:
        ask(url, QUESTIONS[question], 2)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "bare deflate"])
def test_an_honest_packed_answer_is_read(encoding: str) -> None:
    """A proxy before MLflow may pack what it passes on."""
    data = json.dumps({"registered_models": [{"name": "m"}]}).encode()
    bare = zlib.compressobj(wbits=-15)
    packed = {
        "gzip": gzip.compress(data),
        "deflate": zlib.compress(data),
        "bare deflate": bare.compress(data) + bare.flush(),
    }[encoding]
    header = f"Content-Encoding: {encoding.split()[-1]}".encode()
    with hostile_server(says(body(packed, header))) as url:
        assert Registry(f"http://{url}", 5).names() == ("m",)


def test_pages_without_end_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_MOST", 100)
    page = {"registered_models": [{"name": "m"} for _one in range(20)], "next_page_token": "x"}
    with hostile_server(says_json(page)) as url:
        assert "lists more than 100 models" in str(ask(url, QUESTIONS["names"], 60))


def test_versions_whose_files_are_those_of_the_next_one_end() -> None:
    count = iter(range(2, 10**9))

    def talk(connection: socket.socket) -> None:
        said = f"models:/m/{next(count)}"
        version = {"name": "m", "version": "1", "status": "READY", "source": said}
        says_json({"model_version": version, "artifact_uri": said})(connection)

    with hostile_server(talk) as url:
        assert isinstance(ask(url, QUESTIONS["resolve"], 2), RegistryError)


@pytest.mark.parametrize(
    "place", ["models:/m/1", "models:/", "models:/a/b/c/d", "runs:/", "models:/m@a@b"]
)
def test_files_that_lie_nowhere_are_a_sentence(place: str) -> None:
    version = {"name": "m", "version": "1", "status": "READY", "source": place}
    with hostile_server(says_json({"model_version": version, "artifact_uri": place})) as url:
        error = ask(url, QUESTIONS["resolve"])
    assert isinstance(error, RegistryError)
    assert url in str(error)


def test_a_download_stops_at_the_size_that_was_listed(tmp_path: Path) -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        without_end(b"", bytes(65536))(connection)

    with hostile_server(talk) as url:
        registry = Registry(f"http://{url}", 20)
        root = f"http://{url}/api/2.0/mlflow-artifacts/artifacts/m"
        files = RemoteRoot("m", 20, registry.store(root))
        files._sizes = {"w.bin": 1000}
        files._listing = ()  # type: ignore[assignment]
        with pytest.raises(DeliveryError, match="bytes came instead of 1000"):
            files.fetch({"w.bin": str(tmp_path / "w.bin")})
    assert (tmp_path / "w.bin").stat().st_size < 1 << 22


VERSION = {
    "name": "m",
    "version": "1",
    "status": "READY",
    "source": "models:/m-1",
    "creation_timestamp": 1700000000000,
    "description": "d",
    "run_id": "r",
    "tags": [{"key": "k", "value": "v"}],
    "aliases": ["a"],
}
MODEL = {
    "name": "m",
    "description": "d",
    "tags": [{"key": "k", "value": "v"}],
    "aliases": [{"alias": "a", "version": "1"}],
    "latest_versions": [VERSION],
}
# One document that answers every question.
EVERYTHING = {
    "artifact_uri": "mlflow-artifacts:/x",
    "model_version": VERSION,
    "model_versions": [VERSION],
    "registered_model": MODEL,
    "registered_models": [MODEL],
    "run": {"info": {"run_id": "r", "experiment_id": "0", "artifact_uri": "file:///nowhere/x"}},
    "model": {
        "info": {"model_id": "m-1", "artifact_uri": "mlflow-artifacts:/y", "source_run_id": "r"}
    },
    "models": [{"info": {"model_id": "m-1", "source_run_id": "r"}}],
    "files": [{"path": "MLmodel", "is_dir": False, "file_size": 3}],
}


@pytest.fixture(scope="module")
def said() -> Iterator[tuple[str, list[Any]]]:
    """An address, and the one value that is answered there."""
    current: list[Any] = [EVERYTHING]

    def answer(connection: Any) -> None:
        says_json(current[0])(connection)

    with hostile_server(answer) as url:
        yield url, current


def test_an_honest_answer_is_used(said: tuple[str, list[Any]]) -> None:
    url, current = said
    current[0] = EVERYTHING
    registry = Registry(f"http://{url}", 5)
    assert registry.resolve(parse_model_uri("models:/m@a")).registry_version == 1
    assert registry.model_info("m").aliases == {"a": 1}
    assert listing(registry)


@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(document=spoilt(EVERYTHING))
def test_any_json_in_any_place_is_a_result_or_an_error(
    said: tuple[str, list[Any]], document: Any
) -> None:
    url, current = said
    current[0] = document
    for question in ("alias", "latest", "run", "logged", "info", "names", "make", "listing"):
        ask(url, QUESTIONS[question])
