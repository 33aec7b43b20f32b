# SPDX-License-Identifier: Apache-2.0
"""What do the backends `fil` and `onnxruntime` cost, next to their libraries called directly?

    .venv/control/bin/python benchmarks/backends.py [--rows 1 64 1024] [--requests 200] [--clients 1
    4] [--backends fil]

A forest of 250 trees and a network of a few layers, in a real Triton with one CPU instance. A is a
client that asks Triton over gRPC, B a program that calls treelite or onnxruntime on the same rows;
both work through the same number of rows, in turn. The ratio is the time of A over that of B: 1 is
as fast as the library. The processor time of the server and its backend next to that of the library
is what a busy machine can compare.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(Path(__file__).resolve().parent)]

import pairs  # noqa: E402
from support import servers  # noqa: E402

FEATURES, TREES, DEPTH = 60, 250, 8
LIBRARY = """
import json, os, sys
import numpy
kind, path, features = sys.argv[1], sys.argv[2], int(sys.argv[3])
threads = len(os.sched_getaffinity(0))
if kind == "fil":
    import treelite
    from treelite import gtil
    model = treelite.Model.deserialize(path)
    run = lambda rows: gtil.predict(model, rows, nthread=threads if len(rows) >= 64 else 1)
else:
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    run = lambda rows: session.run(["y"], {"x": rows})
random = numpy.random.default_rng(0)
for line in sys.stdin:
    rows, requests = json.loads(line)
    data = random.normal(size=(rows, features)).astype(numpy.float32)
    for _number in range(requests):
        run(data)
    print("done", flush=True)
"""
MAKE = """
import sys
import numpy
from sklearn import ensemble
import treelite
random = numpy.random.default_rng(0)
features, trees, depth = (int(word) for word in sys.argv[2:])
x = random.normal(size=(4000, features)).astype(numpy.float32)
model = ensemble.RandomForestClassifier(trees, max_depth=depth, random_state=0, n_jobs=2).fit(x, x[:, 0] * x[:, 1] + x[:, 2] > 0)
treelite.sklearn.import_model(model).serialize(sys.argv[1])
"""  # noqa: E501


class Library:
    """A process that has loaded the model and works through rows when told."""

    def __init__(self, python: Path, kind: str, path: Path) -> None:
        # As the backend does: threads that spin would take the processor from each other.
        self._process = subprocess.Popen(
            [str(python), "-c", LIBRARY, kind, str(path), str(FEATURES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_WAIT_POLICY": "passive"},
        )
        self.pid = self._process.pid

    def run(self, rows: int, requests: int) -> None:
        into, out = self._process.stdin, self._process.stdout
        assert into and out
        into.write(json.dumps([rows, requests]) + "\n")
        into.flush()
        if not out.readline():
            raise SystemExit("the library's process ended")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def processor_seconds(pids: Iterable[int]) -> float:
    """User and system time that processes have used so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def ask(
    url: str, name: str, input_name: str, output_name: str, rows: int, requests: int, clients: int
) -> None:
    """``requests`` requests altogether, by so many clients at once."""
    import numpy
    from tritonclient import grpc

    data = numpy.random.default_rng(0).normal(size=(rows, FEATURES)).astype(numpy.float32)
    failures: list[BaseException] = []

    def client(count: int) -> None:
        try:
            with grpc.InferenceServerClient(url) as server:
                tensor = grpc.InferInput(input_name, [rows, FEATURES], "FP32")
                tensor.set_data_from_numpy(data)
                for _number in range(count):
                    server.infer(name, [tensor], outputs=[grpc.InferRequestedOutput(output_name)])
        except BaseException as error:
            failures.append(error)

    shares = [requests // clients + (number < requests % clients) for number in range(clients)]
    threads = [threading.Thread(target=client, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"{name}: {failures[0]}")


def make_models(repository: Path) -> dict[str, Path]:
    forest = repository / "fil" / "1" / "checkpoint.tl"
    forest.parent.mkdir(parents=True)
    subprocess.run(
        [
            str(servers.server_python("FRAMEWORKS_PYTHON", "frameworks")),
            "-c",
            MAKE,
            str(forest),
            str(FEATURES),
            str(TREES),
            str(DEPTH),
        ],
        check=True,
    )
    parameters = {
        "model_type": "treelite_checkpoint",
        "output_class": "true",
        "predict_proba": "true",
    }
    (repository / "fil" / "config.pbtxt").write_text(
        'backend: "fil"\nmax_batch_size: 32768\ninput [ { name: "input__0" data_type: TYPE_FP32'
        f' dims: [ {FEATURES} ] }} ]\noutput [ {{ name: "output__0" data_type: TYPE_FP32 dims: [ 2'
        " ] } ]\ninstance_group [ { kind: KIND_CPU count: 1 } ]\n"
        + "".join(
            f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
            for key, value in parameters.items()
        )
        + "dynamic_batching { }\n",
        encoding="utf-8",
    )
    network = repository / "onnxruntime" / "1" / "model.onnx"
    network.parent.mkdir(parents=True)
    network.write_bytes(network_bytes())
    (repository / "onnxruntime" / "config.pbtxt").write_text(
        'backend: "onnxruntime"\nmax_batch_size: 32768\ninput [ { name: "x" data_type: TYPE_FP32'
        f' dims: [ {FEATURES} ] }} ]\noutput [ {{ name: "y" data_type: TYPE_FP32 dims: [ 256 ] }}'
        " ]\ninstance_group [ { kind: KIND_CPU count: 1 } ]\ndynamic_batching { }\n",
        encoding="utf-8",
    )
    return {"fil": forest, "onnxruntime": network}


def network_bytes() -> bytes:
    """Four layers of 256, which cost about as much as a small real network."""
    import random

    from support import models

    source = random.Random(0)
    sizes = [FEATURES, 256, 256, 256, 256]
    nodes, initializers, last = [], [], "x"
    for layer, (width, next_width) in enumerate(itertools.pairwise(sizes)):
        weights = [
            [source.uniform(-0.1, 0.1) for _column in range(next_width)] for _row in range(width)
        ]
        initializers.append(models.onnx_tensor(f"w{layer}", "FP32", weights))
        after = "y" if layer == len(sizes) - 2 else f"h{layer}"
        nodes += [
            models.onnx_node("MatMul", [last, f"w{layer}"], [f"m{layer}"]),
            models.onnx_node("Relu", [f"m{layer}"], [after]),
        ]
        last = after
    return models.onnx_model(
        nodes, {"x": ("FP32", [None, FEATURES])}, {"y": ("FP32", [None, 256])}, initializers
    )


def compare(
    triton: servers.Triton,
    library: Library,
    name: str,
    tensors: tuple[str, str],
    rows: int,
    clients: int,
    given: argparse.Namespace,
) -> None:
    """Measure one number of rows with one number of clients, and print it."""
    sides = ([triton.pid, *triton.stub_pids(name)], [library.pid])
    before = [processor_seconds(pids) for pids in sides]
    measured = pairs.measure(
        lambda: ask(triton.grpc_url, name, *tensors, rows, given.requests, clients),
        lambda: library.run(rows, given.requests),
        given.runs,
    )
    each = f"{given.requests} requests of {rows} rows, {clients} client{'s' * (clients > 1)}"
    print(f"\n{name}: {each}\n{measured.table('Triton', 'library')}")
    used = [processor_seconds(pids) - start for pids, start in zip(sides, before, strict=True)]
    print(
        f"processor time: Triton {used[0]:.2f} s, library {used[1]:.2f} s,"
        f" ratio {used[0] / max(used[1], 0.01):.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 64, 1024])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--backends", nargs="+", choices=["fil", "onnxruntime"], default=["fil", "onnxruntime"]
    )
    given = parser.parse_args()
    tensors: dict[str, Any] = {"fil": ("input__0", "output__0"), "onnxruntime": ("x", "y")}
    print(
        f"{len(os.sched_getaffinity(0))} processors, {TREES} trees of depth {DEPTH}, {FEATURES}"
        " features"
    )
    with tempfile.TemporaryDirectory() as target:
        repository = Path(target) / "models"
        paths = make_models(repository)
        with servers.triton_server(
            Path(target) / "triton",
            repository=repository,
            extra_args=["--disable-auto-complete-config"],
        ) as triton:
            for name, path in ((name, paths[name]) for name in given.backends):
                status, body = triton.load(name)
                if status != 200:
                    raise SystemExit(f"{name}: {body}")
                library = Library(triton.python, name, path)
                for rows, clients in itertools.product(given.rows, given.clients):
                    compare(triton, library, name, tensors[name], rows, clients, given)
                library.close()


if __name__ == "__main__":
    main()
