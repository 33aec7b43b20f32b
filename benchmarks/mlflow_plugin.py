# SPDX-License-Identifier: Apache-2.0
"""What does the MLflow plugin cost, next to the floor of each of its calls?

    .venv/control/bin/python benchmarks/mlflow_plugin.py [predict] [command] [create] [update]

predict   a dictionary and a DataFrame, next to tritonclient.http making the tensor, sending it and
reading the answer command   `mlflow deployments list` and `get`, next to the same command with a
plugin that does nothing
create    from a registered version of a real MLflow (proxied artifacts), and from a folder, next to
Triton's own load call on a
          copied folder; a small Python-backend model that takes 1.2 s to initialise
update    to the version that is deployed, next to the load call that it spares; initialisations are
counted
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(Path(__file__).resolve().parent), str(ROOT / ".dev")]

import numpy  # noqa: E402
import pairs  # noqa: E402
import pandas  # noqa: E402
import tritonclient.http as client_http  # noqa: E402
from ansible_collections.mlops.triton.plugins.mlflow_deployments import (  # noqa: E402
    TritonDeploymentClient,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.batch import (  # noqa: E402
    publish,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (  # noqa: E402
    Registry,
)
from support import models, plugin, servers  # noqa: E402

NOTHING = """\
from mlflow.deployments import BaseDeploymentClient


class Nothing(BaseDeploymentClient):
    def create_deployment(self, *_words, **_options): ...
    update_deployment = delete_deployment = predict = create_deployment

    def list_deployments(self, endpoint=None):
        return []

    def get_deployment(self, name, endpoint=None):
        return {"name": name}


def run_local(*_words): ...


def target_help():
    return ""
"""


class Stage:
    def __init__(self, folder: Path, triton: servers.Triton, mlflow: servers.MLflow) -> None:
        self.folder, self.triton, self.mlflow = folder, triton, mlflow
        self.target = (
            f"triton://{triton.url}?model_repository={triton.repository}&tracking_uri={mlflow.url}"
        )
        self.client = TritonDeploymentClient(self.target)

    def publish(self, name: str, **options: Any) -> Path:
        made = models.make_python(self.folder / "sources", name, **options)
        done = publish(Registry(self.mlflow.url, 60), [{"name": name, "path": str(made.folder)}])[0]
        if done.error:
            raise SystemExit(str(done.error))
        return made.folder


def best_of(functions: list[Callable[[], Any]], rounds: int = 80, calls: int = 10) -> list[float]:
    """The mean of each one's best quarter of rounds, taken in turns: what others do on this machine
    only ever adds time.
    """
    times: list[list[float]] = [[] for _function in functions]
    for _round in range(rounds):
        for taken, function in zip(times, functions):
            begin = time.perf_counter()
            for _call in range(calls):
                function()
            taken.append(time.perf_counter() - begin)
    return [statistics.mean(sorted(one)[: rounds // 4]) / calls for one in times]


def predict(stage: Stage) -> None:
    stage.publish("quick")
    stage.client.create_deployment("quick", "models:/quick/1")
    bare = client_http.InferenceServerClient(stage.triton.url)
    x = numpy.ones((1, 3), "float32")
    frame = pandas.DataFrame({"any": [x]}, index=["x"])

    def raw() -> dict[str, Any]:
        tensor = client_http.InferInput("x", x.shape, "FP32")
        tensor.set_data_from_numpy(x)
        answer = bare.infer("quick", [tensor])
        return {
            output["name"]: answer.as_numpy(output["name"])
            for output in answer.get_response()["outputs"]
        }

    gc.collect()
    floor, by_dict, by_frame = best_of(
        [
            raw,
            lambda: stage.client.predict("quick", {"x": x}),
            lambda: stage.client.predict("quick", frame),
        ]
    )
    print(
        f"predict: floor {floor * 1e6:.0f} us; dictionary {by_dict / floor:.2f} times; DataFrame"
        f" {by_frame / floor:.2f} times"
    )


def command(stage: Stage, runs: int) -> None:
    stage.publish("listed")
    stage.client.create_deployment("listed", "models:/listed/1")
    site = plugin.registered(stage.folder / "site")
    plugin.registered(site, "empty-plugin", "[mlflow.deployments]\nempty = empty_plugin\n")
    (site / "empty_plugin.py").write_text(NOTHING, encoding="utf-8")
    variables = plugin.environment(site)
    for words in (["list"], ["get", "--name", "listed"]):
        ours, empty = (
            pairs.command(
                [sys.executable, "-m", "mlflow", "deployments", *words, "-t", target], variables
            )
            for target in (stage.target, "empty")
        )
        print(
            pairs.measure(ours, empty, runs).table(
                f"{words[0]}, this plugin", f"{words[0]}, empty plugin"
            )
        )


def timed(function: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def create(stage: Stage, runs: int) -> None:
    source = stage.publish("slow", load_delay=1.2)
    for title, uri in (("a registered version", "models:/slow/1"), ("a folder", str(source))):
        ours, floor = [], []
        for number in range(runs + 1):  # the first pair warms up
            a = timed(lambda uri=uri: stage.client.create_deployment("slow", uri))  # type: ignore[misc]
            stage.client.delete_deployment("slow")
            shutil.copytree(source, stage.triton.repository / "slow")
            b = timed(lambda: stage.triton.load("slow"))
            # Through the plugin: what is gone from the index must be gone before the next round.
            stage.client.delete_deployment("slow", config={"adopt": True})
            if number:
                ours.append(a)
                floor.append(b)
        print(pairs.Pairs(tuple(ours), tuple(floor)).table(f"create from {title}", "Triton's load"))


def update(stage: Stage, runs: int) -> None:
    stage.publish("same", load_delay=1.2)
    stage.client.create_deployment("same", "models:/same/1")
    before = stage.triton.loads("same")
    measured = pairs.measure(
        lambda: stage.client.update_deployment("same", "models:/same/1"),
        lambda: stage.triton.load("same"),
        runs,
    )
    print(measured.table("update to the same", "load without a change"))
    print(f"initialisations meanwhile: {stage.triton.loads('same') - before}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what", nargs="*", choices=["predict", "command", "create", "update", []], default=[]
    )
    parser.add_argument("--runs", type=int, default=7)
    given = parser.parse_args()
    wanted = given.what or ["predict", "command", "create", "update"]
    with tempfile.TemporaryDirectory() as target, contextlib.ExitStack() as stack:
        folder = Path(target)
        triton = stack.enter_context(
            servers.triton_server(folder / "triton", extra_args=["--disable-auto-complete-config"])
        )
        mlflow = stack.enter_context(servers.mlflow_server(folder / "mlflow"))
        stage = Stage(folder, triton, mlflow)
        if "predict" in wanted:
            predict(stage)
        for name, function in (("command", command), ("create", create), ("update", update)):
            if name in wanted:
                function(stage, given.runs)


if __name__ == "__main__":
    main()
