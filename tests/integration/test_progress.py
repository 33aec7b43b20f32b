# SPDX-License-Identifier: Apache-2.0
"""Lines that tell what a task is doing, while it does it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import models
from support.fault_proxy import FaultProxy
from support.playbooks import ansible_playbook, environment, run_task
from support.servers import ROOT, MLflow, Triton
from warm_python import interpreter

pytest.importorskip("mlflow")

pytestmark = [pytest.mark.long, pytest.mark.takes(90)]
DELAY = 5.0
LOAD = r"progress: \[localhost\] {name}: load on 127\.0\.0\.1:\d+, \d+ s"
MOVE = (
    r"progress: \[localhost\] {name}: {verb}, [\d.]+ KiB of 60\d KiB \(\d+ %\), [\d.]+"
    r" (bytes|KiB)/s, \d+ s"
)


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where the file lies by which a module tells its progress."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@pytest.fixture
def options(triton: Triton) -> dict[str, Any]:
    return {"triton_url": triton.url, "model_repository": str(triton.repository)}


@pytest.fixture
def slow(mlflow: MLflow) -> Iterator[FaultProxy]:
    """The registry over a line that takes seconds for what ``heavy`` makes."""
    with FaultProxy(mlflow.url) as proxy:
        proxy.fault, proxy.only, proxy.after = "slow", "weights.bin HTTP", 50_000
        yield proxy


def heavy(folder: Path, name: str) -> Path:
    sample = models.make_python(folder, name)
    (sample.folder / "1" / "weights.bin").write_bytes(os.urandom(600 << 10))
    return sample.folder


def test_load(triton: Triton, options: dict[str, Any], tmp_path: Path, temporary: Path) -> None:
    """In the terminal and in the log; nothing when nothing is done; nothing is left."""
    sample = models.make_python(tmp_path / "source", "slow-load", load_delay=DELAY)
    options |= {"name": sample.name, "model_uri": str(sample.folder)}
    log = tmp_path / "ansible.log"
    wanted = LOAD.format(name=sample.name)
    done = run_task(
        tmp_path,
        "triton_model",
        options,
        ANSIBLE_LOG_PATH=str(log),
        ANSIBLE_SYSTEM_TMPDIRS=str(temporary),
    )
    assert done["changed"]
    assert re.search(wanted, done["_output"])
    assert re.search(wanted, log.read_text(encoding="utf-8"))
    assert list(temporary.iterdir()) == []
    again = run_task(tmp_path, "triton_model", options, ANSIBLE_SYSTEM_TMPDIRS=str(temporary))
    assert not again["changed"]
    assert "progress:" not in again["_output"]
    assert triton.infer(sample.name, sample.request())[0] == 200


def test_models_of_a_list(options: dict[str, Any], tmp_path: Path) -> None:
    """Those that are loaded at the same time have lines of their own."""
    names = ["listed-a", "listed-b"]
    wanted = [
        {
            "name": name,
            "model_uri": str(
                models.make_python(tmp_path / "source", name, load_delay=DELAY).folder
            ),
        }
        for name in names
    ]
    done = run_task(tmp_path, "triton_models", {**options, "models": wanted})
    assert [entry["changed"] for entry in done["models"]] == [True, True]
    for name in names:
        assert re.search(LOAD.format(name=name), done["_output"])


def test_publish_and_download(
    slow: FaultProxy, options: dict[str, Any], tmp_path: Path, temporary: Path
) -> None:
    folder = heavy(tmp_path / "source", "heavy")
    done = run_task(
        tmp_path,
        "mlflow_publish",
        {"name": "heavy", "path": str(folder), "tracking_uri": slow.url},
        ANSIBLE_SYSTEM_TMPDIRS=str(temporary),
    )
    assert done["changed"]
    assert re.search(MOVE.format(name="heavy", verb="upload"), done["_output"])
    models_ = [{"name": "heavy", "model_uri": "models:/heavy/1"}]
    done = run_task(
        tmp_path,
        "triton_models",
        {**options, "tracking_uri": slow.url, "models": models_},
        ANSIBLE_SYSTEM_TMPDIRS=str(temporary),
    )
    assert done["changed"]
    assert re.search(MOVE.format(name="heavy", verb="download"), done["_output"])
    assert list(temporary.iterdir()) == []


def test_command_and_client(slow: FaultProxy, triton: Triton, tmp_path: Path) -> None:
    """On standard error where they are asked for, and nowhere in what programs read."""
    folder = heavy(tmp_path / "source", "heavy-command")
    command = [
        sys.executable,
        str(ROOT / "publish_model_to_mlflow.py"),
        "--model_name",
        "heavy-command",
        "--model_directory",
        str(folder),
        "--flavor",
        "triton",
    ]
    told = environment(
        MLFLOW_TRACKING_URI=slow.url,
        TRITON_URL=triton.url,
        TRITON_MODEL_REPO=str(triton.repository),
    )
    upload = MOVE.format(name="heavy-command", verb="upload").replace(r"\[localhost\] ", "")
    done = subprocess.run(
        [*command, "--progress"], env=told, capture_output=True, text=True, timeout=120, check=True
    )
    assert re.search(upload, done.stderr)
    assert done.stdout.startswith("mlflow-artifacts:/")
    assert len(done.stdout.splitlines()) == 1
    deploy = [
        "mlflow",
        "deployments",
        "create",
        "-t",
        "triton",
        "--name",
        "heavy-command",
        "-m",
        "models:/heavy-command/1",
    ]
    done = subprocess.run(
        [*deploy, "-C", "progress=true"],
        env=told,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert re.search(upload.replace("upload", "download"), done.stderr)
    (folder / "1" / "weights.bin").write_bytes(os.urandom(600 << 10))
    done = subprocess.run(
        command, env=told, capture_output=True, text=True, timeout=120, check=True
    )
    assert "progress:" not in done.stderr, "standard error is no terminal here"


@pytest.mark.parametrize(
    ("option", "task", "more"),
    [
        ({"progress": False}, {}, {}),
        ({}, {}, {"TRITON_PROGRESS": "false"}),
        ({}, {"no_log": True}, {}),
        ({}, {"async": 60, "poll": 1}, {}),
        ({}, {"check_mode": True}, {}),
    ],
    ids=["option", "environment", "no_log", "async", "check mode"],
)
def test_off(
    option: dict[str, Any],
    task: dict[str, Any],
    more: dict[str, str],
    options: dict[str, Any],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Where lines are not wanted, the task is as without them."""
    name = re.sub(r"\W", "-", request.node.callspec.id)
    sample = models.make_python(tmp_path / "source", name, load_delay=DELAY - 2)
    done = run_in_a_task(
        tmp_path,
        {**options, **option, "name": name, "model_uri": str(sample.folder)},
        task,
        ANSIBLE_ASYNC_DIR=str(tmp_path / "async"),
        **more,
    )
    assert "progress:" not in done["_output"]
    assert done["changed"]
    assert not done.get("failed")


def run_in_a_task(
    folder: Path, options: dict[str, Any], keywords: dict[str, Any], **more: str
) -> dict[str, Any]:
    """As ``run_task``, with keywords of the task."""
    written = folder / "result.json"
    tasks = [
        {
            "name": "Do",
            "mlops.triton.triton_model": options,
            "register": "done",
            "ignore_errors": True,
            **keywords,
        },
        {
            "name": "Write",
            "ansible.builtin.copy": {
                "content": "{{ done | to_json }}",
                "dest": str(written),
                "mode": "0600",
            },
        },
    ]
    (folder / "play.yml").write_text(
        json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]),
        encoding="utf-8",
    )
    done = subprocess.run(
        playbook(folder),
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert written.exists(), done.stdout + done.stderr
    return {**json.loads(written.read_text(encoding="utf-8")), "_output": done.stdout + done.stderr}


def playbook(folder: Path) -> list[str]:
    return [
        *ansible_playbook(),
        "-i",
        "localhost,",
        "-c",
        "local",
        "-e",
        # Its path holds no space: Ansible does not quote it for what runs in the background.
        json.dumps({"ansible_python_interpreter": interpreter()}),
        str(folder / "play.yml"),
    ]


def test_loop_and_delegation(options: dict[str, Any], tmp_path: Path) -> None:
    """Each item has its lines, which name the host that works."""
    for name in ("loop-a", "loop-b"):
        models.make_python(tmp_path / "source", name, load_delay=DELAY)
    task = {**options, "name": "{{ item }}", "model_uri": f"{tmp_path}/source/{{{{ item }}}}"}
    done = run_in_a_task(tmp_path, task, {"loop": ["loop-a", "loop-b"], "delegate_to": "127.0.0.1"})
    assert not done.get("failed")
    assert [item["model"]["state"] for item in done["results"]] == ["present", "present"]
    for name in ("loop-a", "loop-b"):
        assert re.search(
            LOAD.format(name=name).replace("localhost", "localhost -> 127.0.0.1"), done["_output"]
        )


def test_failure_and_warnings_are_those_of_the_module(
    options: dict[str, Any], tmp_path: Path, temporary: Path
) -> None:
    sample = models.make_python(
        tmp_path / "source",
        "slow-failure",
        load_delay=DELAY,
        fail="the weights are for another shape",
    )
    options |= {"name": sample.name, "model_uri": str(sample.folder)}
    shown = run_task(tmp_path, "triton_model", options, ANSIBLE_SYSTEM_TMPDIRS=str(temporary))
    quiet = run_task(tmp_path, "triton_model", {**options, "progress": False})
    assert re.search(LOAD.format(name=sample.name), shown["_output"])
    assert "the weights are for another shape" in shown["msg"]
    assert {
        key: value for key, value in shown.items() if key != "_output"
    }.keys() == quiet.keys() - {"_output"}
    assert shown["msg"] == quiet["msg"]
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_leaves_no_file(
    number: int, options: dict[str, Any], tmp_path: Path, temporary: Path
) -> None:
    name = f"interrupted-{number}"
    sample = models.make_python(tmp_path / "source", name, load_delay=DELAY)
    task = {"mlops.triton.triton_model": {**options, "name": name, "model_uri": str(sample.folder)}}
    (tmp_path / "play.yml").write_text(
        json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]),
        encoding="utf-8",
    )
    running = subprocess.Popen(
        playbook(tmp_path),
        cwd=tmp_path,
        env=environment(ANSIBLE_SYSTEM_TMPDIRS=str(temporary)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert running.stdout
    assert any("progress:" in line for line in running.stdout)
    running.send_signal(number)
    running.wait(60)
    for _tenth in range(300):
        if not list(temporary.iterdir()) and not processes_with(str(temporary)):
            break
        time.sleep(0.1)
    assert list(temporary.iterdir()) == []
    assert processes_with(str(temporary)) == []


def processes_with(text: str) -> list[int]:
    """Processes that have this text in their environment or on their command line, this one left
    out.
    """
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                said = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if text.encode() in said:
                found.append(int(folder.name))
    return found
