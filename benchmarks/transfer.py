# SPDX-License-Identifier: Apache-2.0
"""How long do artifacts take, next to the plainest way to bring the same bytes?

    .venv/control/bin/python benchmarks/transfer.py proxied [--mib 1024]      a file behind a real
    MLflow, and `curl -o` .venv/control/bin/python benchmarks/transfer.py local [--mib 1024]
    a file of this host, and `cp` plus `sha256sum` .venv/control/bin/python benchmarks/transfer.py
    small [--files 10000]     small files behind MLflow, and a request each in turn

Both sides hash nothing that the other does not, but for `curl`, which does not hash at all. Both
flush to disk.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / ".dev"), str(ROOT / "tests"), str(Path(__file__).resolve().parent)]

import pairs  # noqa: E402
import requests  # noqa: E402
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.roots import (  # noqa: E402
    ArtifactRoot,
    LocalRoot,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (  # noqa: E402
    Registry,
)
from support import servers  # noqa: E402

_BLOCK = os.urandom(1 << 20)


def large_file(path: Path, mib: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for number in range(mib):
            file.write(number.to_bytes(8, "big") + _BLOCK[8:])
    # A file that is as old as its answer looks as if the server had made it for that.
    os.utime(path, (1, 1))


@contextlib.contextmanager
def behind_mlflow(folder: Path, workers: int) -> Iterator[tuple[Path, str, ArtifactRoot]]:
    """The server's folder, the address of what lies there, and our way to it."""
    with servers.mlflow_server(folder / "mlflow", extra_args=["-w", str(workers)]) as mlflow:
        target = mlflow.artifacts / "models"
        target.mkdir(parents=True)
        root = Registry(mlflow.url, 300).files_at("mlflow-artifacts:/models")
        yield target, f"{mlflow.url}/api/2.0/mlflow-artifacts/artifacts/models", root


def ours(root: ArtifactRoot, target: Path) -> pairs.Run:
    """A new folder each time, as a delivery has."""

    def run() -> None:
        shutil.rmtree(target, ignore_errors=True)
        wanted = {file.path: str(target / file.path) for file in root.list()}
        for folder in {os.path.dirname(path) for path in wanted.values()}:
            os.makedirs(folder, exist_ok=True)
        root.fetch(wanted)

    return run


def shell(target: Path, script: str) -> pairs.Run:
    made = pairs.command(["bash", "-ec", script])

    def run() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        made()

    return run


def one_by_one(url: str, names: list[str], target: Path) -> pairs.Run:
    def run() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for name in names:
            answer = requests.get(f"{url}/{name}", headers={"Connection": "close"}, timeout=60)
            answer.raise_for_status()
            (target / name).write_bytes(answer.content)
        os.sync()

    return run


def measure(what: str, given: argparse.Namespace, folder: Path) -> tuple[pairs.Pairs, str]:
    target, other = folder / "a", folder / "b"
    if what == "local":
        large_file(folder / "store" / "model.onnx", given.mib)
        script = f"cp {folder}/store/model.onnx {other}/x; sha256sum {other}/x; sync {other}/x"
        run = ours(LocalRoot(str(folder / "store"), 300), target)
        return (
            pairs.measure(run, shell(other, script), given.runs, given.warm_up),
            "cp and sha256sum",
        )
    with behind_mlflow(folder, given.workers) as (target, url, root):
        if what == "proxied":
            large_file(target / "model.onnx", given.mib)
            script = f"curl -sf -o {other}/x {url}/model.onnx; sync {other}/x"
            return (
                pairs.measure(ours(root, target), shell(other, script), given.runs, given.warm_up),
                "curl -o",
            )
        names = [f"{number:05}" for number in range(given.files)]
        for name in names:
            (target / name).write_bytes(os.urandom(1000))
        return (
            pairs.measure(
                ours(root, target), one_by_one(url, names, other), given.runs, given.warm_up
            ),
            "one request each",
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["proxied", "local", "small"])
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--files", type=int, default=10000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1, help="pairs that do not count")
    parser.add_argument(
        "--workers", type=int, default=4, help="of the MLflow server, whose own default is 4"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_FOLDER")) as target:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        measured, name = measure(given.what, given, Path(target))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(measured.table("mlops.triton", name))
    print(
        f"peak memory of this process: {after / 1024:.0f} MiB, {before / 1024:.0f} MiB of it before"
        " the first byte"
    )


if __name__ == "__main__":
    main()
