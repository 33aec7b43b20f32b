# SPDX-License-Identifier: Apache-2.0
"""The commands of the Morpheus guide, as they are written there, against this plugin.

``tests/data/reference_guide.md`` is the guide. Its blocks are run word for word after one table of
substitutions; those that are not run have their reasons below.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import models, plugin
from support.servers import ROOT, Triton, free_ports, http, server_python, triton_server

pytest.importorskip("mlflow")
pytest.importorskip("tritonclient.http")

GUIDE = ROOT / "tests" / "data" / "reference_guide.md"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) (.*)$", re.MULTILINE)

NOT_RUN = {
    "Install Triton Docker Image": "pulls an image; a Triton from PyPI takes its place",
    "Download Morpheus reference models": (
        "clones from the internet with git-lfs; a model of the same name and layout takes their"
        " place (the guide copies them to /opt/triton_models/models and publishes from another"
        " folder)"
    ),
    "Start Triton Inference Server in EXPLICIT mode": (
        "starts the image; the same options go to the Triton from PyPI"
    ),
    "MLflow container": (
        "builds an image whose only purpose is an environment with the plugin; its variables are"
        " taken from here"
    ),
    "MLflow container 2": "starts that image",
    "MLflow container 3": "opens a shell in that container",
}
# The sections show each command once and are not a script: an update after the deletion could not
# work.
ORDER = (
    "Create Deployment",
    "Update Deployment",
    "List Deployments",
    "Get Deployment",
    "Delete Deployment",
)
NAME = "sid-minibert-onnx"


@dataclass(frozen=True)
class Block:
    title: str
    language: str
    text: str


def guide_blocks() -> dict[str, Block]:
    """Blocks by the title of their section; a number tells the second of a section from the
    first.
    """
    text = GUIDE.read_text(encoding="utf-8")
    found: dict[str, Block] = {}
    for match in _BLOCK.finditer(text):
        path: dict[int, str] = {}
        for heading in _HEADING.finditer(_without_blocks(text[: match.start()])):
            level = len(heading[1])
            path = {
                **{above: title for above, title in path.items() if above < level},
                level: heading[2].strip(),
            }
        titles = [
            path[level] for level in sorted(path) if level > 1 and path[level] != "Deployments"
        ]
        key = title = " / ".join(titles)
        count = 1
        while key in found:
            count += 1
            key = f"{title} {count}"
        found[key] = Block(key, match[1], match[2])
    return found


def _without_blocks(text: str) -> str:
    return _BLOCK.sub("", text)


BLOCKS = guide_blocks()


@dataclass
class Bench:
    """Where the guide's paths and ports are on this machine."""

    base: Path
    triton: Triton | None = None
    mlflow_port: int = 0

    @property
    def repository(self) -> Path:
        return self.base / "triton_models"

    def substitutions(self) -> dict[str, str]:
        return {
            "/opt/triton_models": str(self.repository),
            "/triton_models": str(self.repository),
            "/tmp/mlflow-db.sqlite": str(self.base / "mlflow-db.sqlite"),
            "/mlflow/artifacts": str(self.base / "artifacts"),
            "http://localhost:5000": f"http://127.0.0.1:{self.mlflow_port}",
            "--host 0.0.0.0": f"--host 127.0.0.1 --port {self.mlflow_port} -w 1",
        }

    def substituted(self, text: str) -> str:
        table = self.substitutions()
        longest_first = "|".join(re.escape(key) for key in sorted(table, key=len, reverse=True))
        return re.sub(longest_first, lambda match: table[match[0]], text)

    @property
    def environment(self) -> dict[str, str]:
        """What the guide gives to its container, and where Triton is."""
        given = dict(
            re.findall(
                r'--env (\w+)="?([^"\s]+)"?', self.substituted(BLOCKS["MLflow container 2"].text)
            )
        )
        assert set(given) == {"TRITON_MODEL_REPO", "MLFLOW_TRACKING_URI"}
        if self.triton:
            given["TRITON_URL"] = self.triton.url
        found = plugin.environment(self.base / "site", **given)
        return {**found, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{found['PATH']}"}

    def run(self, key: str, *, check: bool = True) -> str:
        block = BLOCKS[key]
        text = self.substituted(block.text)
        command = (
            [sys.executable, "-c", text]
            if block.language == "" and "import" in text
            else ["bash", "-euc", text]
        )
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    base = tmp_path_factory.mktemp("guide")
    plugin.registered(base / "site")
    bench = Bench(base)
    bench.run("Set up your Triton Model Repository")
    # Where the guide's publish command looks for the reference models.
    models.make_onnx(bench.repository / "triton-model-repo", NAME)
    with triton_server(base / "triton", repository=bench.repository) as bench.triton:
        bench.mlflow_port = free_ports(1)[0]
        with guide_s_mlflow(bench):
            bench.run("Publish reference models to MLflow")
            yield bench


@contextlib.contextmanager
def guide_s_mlflow(bench: Bench) -> Iterator[None]:
    """The server that the guide starts in the background, in a process group that can be ended."""
    text = bench.substituted(BLOCKS["Start MLflow server"].text)
    environment = {**bench.environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.pop("PYTHONPATH")
    environment.pop("MLFLOW_TRACKING_URI")
    server = server_python("MLFLOW_SERVER_PYTHON", "mlflow-server").parent
    environment["PATH"] = f"{server}{os.pathsep}{environment['PATH']}"
    with open(bench.base / "mlflow.log", "wb") as log:
        shell = subprocess.Popen(
            ["bash", "-c", f"{text}wait"],
            env=environment,
            cwd=bench.base,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        for _moment in range(600):
            with contextlib.suppress(OSError):
                if http(f"http://127.0.0.1:{bench.mlflow_port}/health", timeout=2)[0] == 200:
                    break
            assert shell.poll() is None, (bench.base / "mlflow.log").read_text()
            time.sleep(0.1)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()


def test_every_block_is_run_or_has_a_reason() -> None:
    run = {
        "Set up your Triton Model Repository",
        "Start MLflow server",
        "Publish reference models to MLflow",
        *(f"{section} / {way}" for section in ORDER for way in ("CLI", "Python API")),
    }
    assert set(BLOCKS) == run | set(NOT_RUN)
    for key, reason in NOT_RUN.items():
        print(f"not run: {key}: {reason}")


@pytest.mark.parametrize("way", ["CLI", "Python API"])
def test_deployment_commands_work_as_written(bench: Bench, way: str) -> None:
    said = {}
    for section in ORDER:
        said[section] = bench.run(f"{section} / {way}")
        if section in ("Create Deployment", "Update Deployment"):
            assert bench.triton is not None
            rows = [row for row in bench.triton.index() if row["name"] == NAME]
            assert [(row["version"], row["state"]) for row in rows] == [("1", "READY")]
    assert not (bench.repository / NAME).exists()
    if way == "CLI":
        assert f"triton deployment {NAME} is created" in said["Create Deployment"]
        assert f"Deployment {NAME} is updated (with flavor triton)" in said["Update Deployment"]
        assert f"'name': '{NAME}'" in said["List Deployments"]
        assert f"name: {NAME}\n" in said["Get Deployment"]
        assert "mlflow_model_uri: models:/sid-minibert-onnx/1\n" in said["Get Deployment"]
        assert f"Deployment {NAME} is deleted" in said["Delete Deployment"]
