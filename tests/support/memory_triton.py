# SPDX-License-Identifier: Apache-2.0
"""Triton without Triton: it reads a repository when it is asked to load, and answers y = x."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import config_pbtxt
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.delivery import (
    Delivery,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    Result,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)

CONFIG = """backend: "python"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 3 ] } ]
"""


class Answer:
    """As tritonclient's: what a model answered."""

    def __init__(self, outputs: Mapping[str, Any]) -> None:
        self.outputs = outputs

    def get_response(self) -> dict[str, Any]:
        return {"outputs": [{"name": name} for name in self.outputs]}

    def as_numpy(self, name: str) -> Any:
        return self.outputs[name]


def echo(tensors: Iterable[Any]) -> dict[str, Any]:
    """y is the first input."""
    import numpy

    first = next(iter(tensors))
    kind = {"FP32": "float32", "INT32": "int32"}[first.datatype()]
    data = numpy.frombuffer(first._get_binary_data(), dtype=kind)
    return {"y": data.reshape(first.shape())}


class MemoryTriton:
    """A transport of ``TritonServer``.

    Attributes:
        loaded: name → the configuration that was loaded.
        asked: names of the calls that were made.
        answer: inputs → outputs; a list of outputs for a model that answers in a stream.
        complete: what the server adds to a configuration that it loads.
    """

    spelling = ""

    def __init__(self, repository: Path, answer: Callable[[Any], Any] = echo) -> None:
        self.repository = repository
        self.answer = answer
        self.loaded: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.complete: dict[str, Any] = {}

    def call(self, _timeout: float, method: str, *args: Any, **_options: Any) -> Any:
        self.asked.append(method)
        if method == "load_model":
            text = (self.repository / args[0] / config_pbtxt.CONFIG_NAME).read_bytes()
            config = config_pbtxt.as_json(config_pbtxt.parse(text))
            self.loaded[args[0]] = {**self.complete, **config}
        elif method == "unload_model":
            self.loaded.pop(args[0], None)
        elif method == "infer":
            return Answer(self.answer(args[1]))
        return True

    def stream(self, _timeout: float, _name: str, tensors: Any, **_options: Any) -> list[Answer]:
        return [Answer(outputs) for outputs in self.answer(tensors)]

    def index(self, _timeout: float) -> list[dict[str, str]]:
        return [{"name": name, "version": "1", "state": "READY"} for name in self.loaded]

    def config(self, _timeout: float, name: str) -> dict[str, Any]:
        return self.loaded[name]

    def metadata(self, _timeout: float, _name: str, _version: str = "") -> dict[str, Any]:
        return {}

    def release(self, _timeout: float) -> dict[str, Any]:
        return {"name": "triton", "version": "2.51.0"}

    def close(self) -> None:
        pass


@contextmanager
def delivery_to(
    triton: MemoryTriton, url: str = "localhost:8000", **more: Any
) -> Iterator[Delivery]:
    """A delivery whose only server is this one; ``more`` options of its target."""
    options = {"model_repository": str(triton.repository), "triton_url": url, "timeout": 5, **more}
    with Delivery(Target.from_options(options)) as delivery:
        delivery.servers[0].transport = cast(Any, triton)
        yield delivery


def deliver(triton: MemoryTriton, *wanted: Mapping[str, Any], **more: Any) -> list[Result]:
    """Deliver a list; `check` and `url` as their names say, and options of the target."""
    check = more.pop("check", False)
    with delivery_to(triton, **more) as delivery:
        return delivery.deliver([DesiredModel.from_options(one) for one in wanted], check)


def make_model(folder: Path, config: str = CONFIG) -> str:
    """A model folder for the Python backend."""
    (folder / "1").mkdir(parents=True)
    (folder / "1/model.py").write_text(f"# {folder.name}\n", encoding="utf-8")
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    return str(folder)


def make_artifact(folder: Path, example: str, config: str = CONFIG) -> str:
    """A model as MLflow logs it, with an input example."""
    make_model(folder / "model", config)
    (folder / "MLmodel").write_text("flavors:\n  triton: {data: model}\n", encoding="utf-8")
    (folder / "serving_input_example.json").write_text(example, encoding="utf-8")
    return str(folder)
