# SPDX-License-Identifier: Apache-2.0
"""What a list costs beside what Triton itself does, whom it disturbs, and the memory that it takes.

.venv/control/bin/python benchmarks/many.py first [--models 20] [--loads 4] [--runs 5]
.venv/control/bin/python benchmarks/many.py stall [--seconds 4] [--runs 5]
.venv/control/bin/python benchmarks/many.py memory [--mib 1024]
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / ".dev"), str(ROOT / "tests"), str(Path(__file__).resolve().parent)]

import pairs  # noqa: E402
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (  # noqa: E402
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.delivery import (  # noqa: E402
    Delivery,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (  # noqa: E402
    Target,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.publication import (  # noqa: E402, E501
    DesiredPublication,
    apply_publication,
    plan_publication,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (  # noqa: E402
    Registry,
)
from support import models, servers  # noqa: E402

FAST = "--disable-auto-complete-config"
CLIENTS = 8
MEASURED = """
import json, resource, sys
sys.path[:0] = json.loads(sys.argv[1])
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.delivery import Delivery
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import Target
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import DesiredModel
with Delivery(Target.from_options(json.loads(sys.argv[2]))) as delivery:
    (result,) = delivery.deliver([DesiredModel.from_options(json.loads(sys.argv[3]))])
if result.error:
    raise SystemExit(str(result.error))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""  # noqa: E501


def deliver(target: dict[str, Any], wanted: Sequence[dict[str, Any]]) -> None:
    with Delivery(Target.from_options(target)) as delivery:
        results = delivery.deliver([DesiredModel.from_options(options) for options in wanted])
    if failed := [str(result.error) for result in results if result.error]:
        raise SystemExit("\n".join(failed))


def first(folder: Path, count: int, loads: int, runs: int) -> None:
    """First deployments, and Triton's load calls for the same files in place, as many at once."""
    with servers.triton_server(folder / "triton", extra_args=[FAST]) as triton:
        made = [
            models.make_python(folder / "source", f"model-{number:03d}", identity=number)
            for number in range(count)
        ]
        target = {
            "model_repository": str(triton.repository),
            "triton_url": triton.url,
            "parallel_loads": loads,
        }
        wanted = [{"name": sample.name, "model_uri": str(sample.folder)} for sample in made]

        def load(name: str) -> None:
            status, body = triton.load(name)
            if status != 200:
                raise SystemExit(f"{name}: {body}")

        def load_all() -> None:
            with ThreadPoolExecutor(loads) as pool:
                list(pool.map(load, [sample.name for sample in made]))

        def unload_all() -> None:
            for sample in made:
                triton.unload(sample.name)
            while any(row.get("state") not in (None, "", "UNAVAILABLE") for row in triton.index()):
                time.sleep(0.05)

        times: tuple[list[float], list[float]] = ([], [])
        for number in range(runs + 1):
            begin = time.perf_counter()
            deliver(target, wanted)
            middle = time.perf_counter()
            deliver(target, [{**options, "state": "absent"} for options in wanted])
            for sample in made:
                shutil.copytree(sample.folder, triton.repository / sample.name)
            again = time.perf_counter()
            load_all()
            end = time.perf_counter()
            unload_all()
            for sample in made:
                shutil.rmtree(triton.repository / sample.name)
            if number:  # the first pair warms up
                times[0].append(middle - begin)
                times[1].append(end - again)
        print(
            pairs.Pairs(tuple(times[0]), tuple(times[1])).table(
                f"{count} first deployments", f"{count} load calls, {loads} at once"
            )
        )


@contextlib.contextmanager
def clients(triton: servers.Triton, sample: models.Sample) -> Iterator[list[float]]:
    """Eight clients, each on one connection that it keeps; yields the seconds of each of their
    inferences.
    """
    took: list[float] = []
    over = threading.Event()
    body = json.dumps(sample.request())

    def ask() -> None:
        connection = http.client.HTTPConnection(triton.url, timeout=120)
        while not over.is_set():
            begin = time.perf_counter()
            connection.request(
                "POST",
                f"/v2/models/{sample.name}/infer",
                body,
                {"Content-Type": "application/json"},
            )
            if (answer := connection.getresponse()).status != 200:
                raise SystemExit(f"an inference was answered with {answer.status}")
            answer.read()
            took.append(time.perf_counter() - begin)
            over.wait(0.01)

    threads = [threading.Thread(target=ask, daemon=True) for dummy in range(CLIENTS)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    took.clear()
    try:
        yield took
    finally:
        over.set()
        for thread in threads:
            thread.join()


def stall(folder: Path, seconds: float, runs: int) -> None:
    """The longest inference of eight keep-alive HTTP clients while nothing, and while a slow model,
    is loaded: as a user of the role has it (load_url), and over HTTP alone.
    """
    with servers.triton_server(folder / "triton", extra_args=[FAST]) as triton:
        steady = models.make_python(folder / "source", "steady")
        slow = models.make_python(folder / "source", "slow", load_delay=seconds)
        target: dict[str, Any] = {"model_repository": str(triton.repository)}
        deliver(
            {**target, "triton_url": triton.url},
            [{"name": "steady", "model_uri": str(steady.folder)}],
        )
        http_alone = {**target, "triton_url": triton.url}
        default = {**http_alone, "load_url": f"grpc://{triton.grpc_url}"}
        ways: tuple[tuple[str, dict[str, Any]], ...] = (
            ("no load", {}),
            ("HTTP alone", http_alone),
            ("default", default),
        )
        for way, place in ways * runs:
            with clients(triton, steady) as took:
                if place:
                    deliver(place, [{"name": "slow", "model_uri": str(slow.folder)}])
                else:
                    time.sleep(seconds)
            print(
                f"{way:<10} {len(took)} inferences, the longest {max(took) * 1000:.0f} ms,"
                f" {sum(one > 0.5 for one in took)} over 0.5 s"
            )
            if place:
                deliver(place, [{"name": "slow", "state": "absent"}])


def memory(folder: Path, mib: int) -> None:
    """Peak memory of a process that delivers a small and a large artifact, from a folder and
    through MLflow.
    """
    with (
        servers.triton_server(folder / "triton", extra_args=[FAST]) as triton,
        servers.mlflow_server(folder / "mlflow") as mlflow,
    ):
        target = {
            "model_repository": str(triton.repository),
            "triton_url": triton.url,
            "tracking_uri": mlflow.url,
        }
        for way in ("folder", "mlflow"):
            for size in (1, mib):
                sample = models.make_python(folder / "source", f"{way}-{size}")
                with open(sample.folder / "1" / "weights.bin", "wb") as stream:
                    for _mib in range(size):
                        stream.write(os.urandom(1 << 20))
                uri = str(sample.folder)
                if way == "mlflow":
                    registry = Registry(mlflow.url, 300)
                    apply_publication(
                        registry, plan_publication(registry, DesiredPublication(sample.name, uri))
                    )
                    uri = f"models:/{sample.name}/1"
                arguments = [
                    json.dumps(value)
                    for value in (sys.path, target, {"name": sample.name, "model_uri": uri})
                ]
                done = subprocess.run(
                    [sys.executable, "-c", MEASURED, *arguments],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                print(f"{way}, {size} MiB: {float(done.stdout):.0f} MiB at the peak")
                deliver(target, [{"name": sample.name, "state": "absent"}])
                shutil.rmtree(sample.folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["first", "stall", "memory"])
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--loads", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--mib", type=int, default=1024)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as target:
        folder = Path(target)
        if given.what == "first":
            first(folder, given.models, given.loads, given.runs)
        elif given.what == "stall":
            stall(folder, given.seconds, given.runs)
        else:
            memory(folder, given.mib)


if __name__ == "__main__":
    main()
