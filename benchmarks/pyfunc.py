# SPDX-License-Identifier: Apache-2.0
"""How fast is a model that MLflow's pyfunc loads, next to MLflow's own server and MLServer?

    .venv/control/bin/python benchmarks/pyfunc.py serve [--clients 1 8 32] [--seconds 5] [--runs 5]
    .venv/control/bin/python benchmarks/pyfunc.py start [--runs 5]
    .venv/control/bin/python benchmarks/pyfunc.py memory [--models 5]
    .venv/control/bin/python benchmarks/pyfunc.py worker [--seconds 5] [--runs 5]
    .venv/control/bin/python benchmarks/pyfunc.py environment [--runs 3]

serve        requests per second, p50 and p99 of a scikit-learn Pipeline with columns of text, one
             row a request, in turns
start        from the start of a server's process to its first answer; the environment is there
memory       of models that share an environment, all processes of each server (PSS)
worker       what a process of its own adds to a request of 1 kB and of 1 MB: a pyfunc echo, next to
             an echo in Triton's own Python process, and to MLflow's predict without any server
environment  a model whose environment is not there yet, next to a second one with the same lock;
             packages come from uv's cache

All run on the same two processors. --servers says which take part.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [
    *(str(ROOT / ".dev"), str(ROOT / "tests"), str(ROOT / "tools")),
    str(Path(__file__).resolve().parent),
]

import http_load  # noqa: E402
import numpy  # noqa: E402
import pairs  # noqa: E402
import tritonclient.http as triton_http  # noqa: E402
from http_load import Measured, Request  # noqa: E402
from support import pyfunc_logs  # noqa: E402
from support.modules import run_module  # noqa: E402
from support.pyfunc_environment import PINS, make_environment  # noqa: E402
from support.servers import MLflow, Process, Triton, free_ports, mlflow_server  # noqa: E402

MODEL = "churn"
ROW: dict[str, Any] = {"age": 41, "plan": "plus", "city": "Lima", "monthly charge": 20.5}
TYPES = {"age": "INT64", "plan": "BYTES", "city": "BYTES", "monthly charge": "FP64"}
# MLServer needs all of MLflow; the model needs what it was logged with.
MLSERVER = ("mlserver==1.7.1", "mlserver-mlflow==1.7.1", "mlflow==3.17.2", *PINS[1:])
ECHOES = {"echo_1kB": 256, "echo_1MB": 1 << 18}
ECHO = """import numpy
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor("y", pb_utils.get_input_tensor_by_name(one, "x").as_numpy())]
            )
            for one in requests
        ]
"""
PREDICT = """
import json, sys, time
import mlflow, numpy
model = mlflow.pyfunc.load_model(sys.argv[1])
x = numpy.ones((1, int(sys.argv[2])), "float32")
took = []
end = time.perf_counter() + float(sys.argv[3])
while time.perf_counter() < end:
    begin = time.perf_counter()
    model.predict(x)
    took.append(time.perf_counter() - begin)
print(sorted(took)[len(took) // 2])
"""


def json_request(port: int, path: str, document: dict[str, Any]) -> Request:
    return Request(port, path, json.dumps(document).encode(), {})


def columns() -> list[dict[str, Any]]:
    return [
        {"name": name, "datatype": TYPES[name], "shape": [1, 1], "data": [value]}
        for name, value in ROW.items()
    ]


class Ours:
    """Triton; a model is deployed by module triton_model."""

    title = "triton"

    def __init__(self, folder: Path, mlflow: MLflow) -> None:
        self.folder, self.mlflow = folder, mlflow
        self.triton = Triton(folder, settings={"extra_args": ["--disable-auto-complete-config"]})

    def start(self, names: Sequence[str]) -> None:
        self.triton.start()
        for name in names:
            self.deploy(name)

    def deploy(self, name: str) -> None:
        self.deliver(name, model_uri=f"models:/{name}/1", serve_as="pyfunc")

    def deliver(self, name: str, **options: Any) -> None:
        result = run_module(
            "triton_model",
            {
                "name": name,
                "tracking_uri": self.mlflow.url,
                "triton_url": self.triton.url,
                "model_repository": str(self.triton.repository),
                "environments": pyfunc_logs.environment_options(self.folder / "environments"),
                **options,
            },
            variables=pyfunc_logs.variables_with_uv(self.folder),
        )
        if result["failed"]:
            raise SystemExit(result["msg"])

    def start_again(self, name: str) -> None:
        """As after a reboot of the host: what is deployed is loaded by the server's start."""
        self.triton.start()
        status, answer = self.triton.load(name, timeout=300)
        if status != 200:
            raise SystemExit(f"{name}: {answer}")

    def request(self, name: str) -> Request:
        port = int(self.triton.settings["http_port"])
        return json_request(port, f"/v2/models/{name}/infer", {"inputs": columns()})

    def pids(self) -> list[int]:
        return [self.triton.pid]

    def stop(self) -> None:
        self.triton.stop()


class Server(Process):
    """A peer's process."""

    def start(self, words: Sequence[str], url: str, tracking_uri: str) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        path = f"{Path(words[0]).parent}:{kept.get('PATH', os.defpath)}"
        self._spawn(words, {**kept, "PATH": path, "MLFLOW_TRACKING_URI": tracking_uri})
        self._wait_until_healthy(url, 120)


class MLflowServe:
    """`mlflow models serve` in the model's environment: one process for each model."""

    title = "mlflow models serve"

    def __init__(self, folder: Path, mlflow: MLflow) -> None:
        self.folder, self.mlflow = folder, mlflow
        self.servers: dict[str, tuple[Server, int]] = {}

    def start(self, names: Sequence[str]) -> None:
        for name in names:
            server, (port,) = Server(self.folder / name), free_ports(1)
            words = [
                *(str(make_environment()), "-m", "mlflow", "models", "serve", "--env-manager"),
                *("local", "--host", "127.0.0.1", "--port", str(port), "-m", f"models:/{name}/1"),
            ]
            self.servers[name] = (server, port)
            server.start(words, f"http://127.0.0.1:{port}/ping", self.mlflow.url)

    def start_again(self, name: str) -> None:
        self.start([name])

    def request(self, name: str) -> Request:
        split = {"columns": list(ROW), "data": [list(ROW.values())]}
        return json_request(self.servers[name][1], "/invocations", {"dataframe_split": split})

    def pids(self) -> list[int]:
        return [server.pid for server, _port in self.servers.values()]

    def stop(self) -> None:
        for server, _port in self.servers.values():
            server.stop()
        self.servers.clear()


class MLServer:
    """Seldon's server with its MLflow runtime: all models in one process, because its worker
    processes do not start with today's uvloop.
    """

    title = "MLServer"

    def __init__(self, folder: Path, mlflow: MLflow) -> None:
        self.folder, self.mlflow = folder, mlflow
        self.server = Server(folder / "server")
        self.port = 0

    def start(self, names: Sequence[str]) -> None:
        self.port, grpc, metrics = free_ports(3)
        settings = {"parallel_workers": 0, "host": "127.0.0.1", "http_port": self.port}
        _write(
            self.folder / "models/settings.json",
            {**settings, "grpc_port": grpc, "metrics_port": metrics, "debug": False},
        )
        for name in names:
            told = {"implementation": "mlserver_mlflow.MLflowRuntime", "name": name}
            uri = {"parameters": {"uri": f"models:/{name}/1"}}
            _write(self.folder / f"models/{name}/model-settings.json", {**told, **uri})
        program = make_environment(MLSERVER).with_name("mlserver")
        ready = f"http://127.0.0.1:{self.port}/v2/health/ready"
        python = str(program.with_name("python"))
        words = [python, str(program), "start", str(self.folder / "models")]
        self.server.start(words, ready, self.mlflow.url)

    def start_again(self, name: str) -> None:
        self.start([name])

    def request(self, name: str) -> Request:
        text = {"content_type": "str"}
        inputs = [
            {**one, **({"parameters": text} if one["datatype"] == "BYTES" else {})}
            for one in columns()
        ]
        document = {"parameters": {"content_type": "pd"}, "inputs": inputs}
        return json_request(self.port, f"/v2/models/{name}/infer", document)

    def pids(self) -> list[int]:
        return [self.server.pid]

    def stop(self) -> None:
        self.server.stop()


AnyServer = Ours | MLflowServe | MLServer
SERVERS: dict[str, Callable[[Path, MLflow], AnyServer]] = {
    "triton": Ours,
    "mlflow": MLflowServe,
    "mlserver": MLServer,
}


def _write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")


class Stage:
    """A registry with the models, and the servers that take part."""

    def __init__(self, folder: Path, mlflow: MLflow, servers: Sequence[str]) -> None:
        self.folder, self.mlflow = folder, mlflow
        self.servers = [SERVERS[name](folder / name, mlflow) for name in servers]

    def log(self, *names: str) -> None:
        pyfunc_logs.log_models(make_environment(), self.folder, self.mlflow.url, names)

    def stop(self) -> None:
        for server in self.servers:
            server.stop()

    def check(self, server: AnyServer, name: str) -> None:
        """What it says is what is compared: the same label of the same row."""
        said = http_load.ask(server.request(name)).decode()
        if not ("stays" in said) ^ ("leaves" in said):
            raise SystemExit(f"{server.title} answered {said}")


@contextlib.contextmanager
def stage_of(servers: Sequence[str]) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory() as target, mlflow_server(Path(target) / "mlflow") as mlflow:
        # Root makes environments as nobody, who must be able to go there.
        os.chmod(target, 0o755)
        stage = Stage(Path(target), mlflow, servers)
        try:
            yield stage
        finally:
            stage.stop()


def serve(stage: Stage, clients: Sequence[int], seconds: float, runs: int) -> None:
    stage.log(MODEL)
    for server in stage.servers:
        server.start([MODEL])
        stage.check(server, MODEL)
    for count in clients:
        found: dict[str, list[Measured]] = {server.title: [] for server in stage.servers}
        for _run in range(runs):
            for server in stage.servers:
                found[server.title].append(http_load.measure(server.request(MODEL), count, seconds))
        print(f"{count} clients")
        _print_served(found)


def _print_served(found: dict[str, list[Measured]]) -> None:
    width = max(map(len, found))
    for title, measured in found.items():
        rate, *percentiles = (
            statistics.median(values)
            for values in (
                [one.rate for one in measured],
                [one.percentile(50) for one in measured],
                [one.percentile(99) for one in measured],
            )
        )
        p50, p99 = (f"{value * 1000:.2f} ms" for value in percentiles)
        print(f"  {title:<{width}}  {rate:.0f} requests/s  p50 {p50}  p99 {p99}")
    first, *others = found
    for title in others:
        ratios = [a.rate / b.rate for a, b in zip(found[first], found[title], strict=True)]
        print(f"  {first} / {title}: {_spread(ratios)} times")


def _spread(values: Sequence[float]) -> str:
    return f"min {min(values):.2f}, median {statistics.median(values):.2f}, max {max(values):.2f}"


def start(stage: Stage, runs: int) -> None:
    stage.log(MODEL)
    for server in stage.servers:
        server.start([MODEL])
        server.stop()
    took: dict[str, list[float]] = {server.title: [] for server in stage.servers}
    for _run in range(runs):
        for server in stage.servers:
            begin = time.perf_counter()
            server.start_again(MODEL)
            stage.check(server, MODEL)
            took[server.title].append(time.perf_counter() - begin)
            server.stop()
    for title, seconds in took.items():
        print(f"{title}: {_spread(seconds)} s to the first answer")


def memory(stage: Stage, models: int) -> None:
    """Each server alone, because what servers share of libraries is divided among them."""
    names = [f"{MODEL}_{number}" for number in range(models)]
    stage.log(*names)
    for server in stage.servers:
        server.start(names)
        for name in names:
            stage.check(server, name)
        mib = sum(map(_proportional_mib, _trees(server.pids())))
        print(f"{server.title}: {mib:.0f} MiB for {models} models")
        server.stop()


def _trees(pids: Sequence[int]) -> list[int]:
    found = list(pids)
    for pid in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                children = Path(f"/proc/{pid}/task/{task}/children").read_text(encoding="ascii")
                found += map(int, children.split())
    return found


def _proportional_mib(pid: int) -> float:
    """Memory of a process, where pages that several share count in parts."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _binary(port: int, name: str, tensor: str, size: int) -> Request:
    given = triton_http.InferInput(tensor, [1, size], "FP32")
    given.set_data_from_numpy(numpy.ones((1, size), "float32"))
    body, header = triton_http.InferenceServerClient.generate_request_body([given])
    return Request(
        port,
        f"/v2/models/{name}/infer",
        body,
        {
            "Inference-Header-Content-Length": str(header),
            "Content-Type": "application/octet-stream",
        },
    )


def _stub_echo(triton: Triton, size: int) -> str:
    name = f"stub_{size}"
    (triton.repository / name / "1").mkdir(parents=True)
    (triton.repository / name / "1/model.py").write_text(ECHO, encoding="utf-8")
    tensor = f"data_type: TYPE_FP32 dims: [ {size} ]"
    (triton.repository / name / "config.pbtxt").write_text(
        f'backend: "python" max_batch_size: 8 input [ {{ name: "x" {tensor} }} ]'
        f' output [ {{ name: "y" {tensor} }} ]',
        encoding="utf-8",
    )
    status, answer = triton.load(name)
    if status != 200:
        raise SystemExit(str(answer))
    return name


def _bare_predict(stage: Stage, name: str, size: int, seconds: float) -> float:
    """p50 of MLflow's predict in the model's environment, without any server."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    words = [str(make_environment()), "-c", PREDICT, f"models:/{name}/1", str(size), str(seconds)]
    done = subprocess.run(
        words,
        env={**kept, "MLFLOW_TRACKING_URI": stage.mlflow.url},
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout.split()[-1])


def worker(stage: Stage, seconds: float, runs: int, only_stub: bool) -> None:
    """One client: what is measured is the way of one request."""
    stage.log(*ECHOES)
    ours = Ours(stage.folder / "worker", stage.mlflow)
    stage.servers.append(ours)
    ours.start([] if only_stub else list(ECHOES))
    port = int(ours.triton.settings["http_port"])
    for name, size in ECHOES.items():
        predict = _bare_predict(stage, name, size, seconds)
        stub = _binary(port, _stub_echo(ours.triton, size), "x", size)
        print(f"{name}: MLflow's predict alone p50 {predict * 1000:.3f} ms")
        if only_stub:
            alone = http_load.measure(stub, 1, seconds).percentile(50)
            print(f"  echo in the stub p50 {alone * 1000:.3f} ms")
            continue
        tensor = ours.triton.model_config(name)["input"][0]["name"]
        served = _binary(port, name, tensor, size)
        took: list[tuple[float, float]] = []
        for _run in range(runs):
            a, b = (http_load.measure(one, 1, seconds).percentile(50) for one in (served, stub))
            took.append((a * 1000, b * 1000))
        print(f"  served   p50 {_spread([a for a, _b in took])} ms")
        print(f"  stub     p50 {_spread([b for _a, b in took])} ms")
        print(f"  worker and predict add {_spread([a - b for a, b in took])} ms")
        print(f"  worker adds {_spread([a - b - predict * 1000 for a, b in took])} ms")


def environment(stage: Stage, runs: int) -> None:
    first, second = f"{MODEL}_0", f"{MODEL}_1"
    stage.log(first, second)
    ours = Ours(stage.folder / "environment", stage.mlflow)
    stage.servers.append(ours)
    ours.start([])

    def timed(name: str) -> float:
        begin = time.perf_counter()
        ours.deploy(name)
        return time.perf_counter() - begin

    took: tuple[list[float], list[float]] = ([], [])
    for number in range(runs + 1):  # the first pair fills uv's cache
        pair = timed(first), timed(second)
        for name in (first, second):
            ours.deliver(name, state="absent")
        shutil.rmtree(ours.folder / "environments", ignore_errors=True)
        if number:
            for taken, seconds in zip(took, pair, strict=True):
                taken.append(seconds)
    print(pairs.Pairs(tuple(took[0]), tuple(took[1])).table("with its environment", "second model"))
    print(f"environment: {_spread([a - b for a, b in zip(*took, strict=True)])} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = ["serve", "start", "memory", "worker", "environment"]
    parser.add_argument("what", choices=what)
    parser.add_argument("--servers", nargs="+", choices=list(SERVERS), default=list(SERVERS))
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--models", type=int, default=5)
    given = parser.parse_args()
    # All that is started from here inherits it.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    peers = given.servers if given.what in ("serve", "start", "memory") else []
    with stage_of(peers) as stage:
        if given.what == "serve":
            serve(stage, given.clients, given.seconds, given.runs)
        elif given.what == "start":
            start(stage, given.runs)
        elif given.what == "memory":
            memory(stage, given.models)
        elif given.what == "worker":
            worker(stage, given.seconds, given.runs, "triton" not in given.servers)
        else:
            environment(stage, given.runs)


if __name__ == "__main__":
    main()
