# SPDX-License-Identifier: Apache-2.0
"""The start wrapper on the oldest Python that it runs on, and on one that it refuses, and modules
on one that they refuse: real interpreters, as a host or an image may have them.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.state_store import (
    StateStore,
)
from support.playbooks import run_playbook
from support.servers import Triton

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "roles/triton/files/start_triton"
sys.path.insert(0, str(ROOT / "tools"))

import old_python  # noqa: E402


@pytest.fixture(scope="module")
def pythons() -> dict[str, Path]:
    try:
        return old_python.find()
    except old_python.NoOldPython as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip that role triton brings to its hosts."""
    folder = tmp_path_factory.mktemp("packed")
    packer = ROOT / "roles/triton/files/pack_start_triton.py"
    subprocess.run(
        [sys.executable, "-B", str(packer), str(ROOT), str(folder)], check=True, capture_output=True
    )
    return folder / "start_triton.pyz"


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    """Settings of a container with one deployed model, and a program that stands for the server."""
    server = tmp_path / "tritonserver"
    server.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    server.chmod(0o755)
    repository = tmp_path / "models"
    (repository / "fraud").mkdir(parents=True)
    (repository / "fraud" / "which").write_text("old")
    state = StateStore(str(repository))
    state.ensure()
    record = {"schema": 99, "name": "fraud", "wanted": "loaded", "lanes": []}
    (Path(state.path) / "records" / "fraud.json").write_text(json.dumps(record))
    return {
        "runtime": "container",
        "model_repository": str(repository),
        "tritonserver": str(server),
        "http_port": 1,
        "grpc_port": False,
        "metrics_port": False,
    }


def interrupt(repository: Path, name: str) -> None:
    """A first deployment that was killed after it had moved the model in."""
    state = StateStore(str(repository))
    staged = Path(state.staging(name, "id")) / "model"
    staged.mkdir(parents=True)
    block = 'parameters { key: "mlops_triton_deploy_id" value { string_value: "id" } }\n'
    (staged / "config.pbtxt").write_text(block)
    move = {
        "live": name,
        "staged": os.path.relpath(staged, state.path),
        "live_inode": None,
        "staged_inode": staged.stat().st_ino,
    }
    journal = {"schema": 1, "op": "swap", "deploy_id": "id", "old_record": None, "keep": 1}
    path = Path(state.path) / "journals" / f"{name}.json"
    path.write_text(json.dumps({**journal, "moves": [move]}))
    staged.rename(repository / name)
    assert (repository / name).is_dir()


def run(
    python: Path, program: Path, values: dict[str, Any], tmp_path: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "server.json"
    config.write_text(json.dumps(values))
    return subprocess.run(
        [str(python), "-B", str(program), "--config", str(config), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


class _Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if "/models/fraud/" in self.path or "live" in self.path else 400)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Says nothing."""


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_the_oldest_python_recovers_starts_and_asks_for_health(
    pythons: dict[str, Path], archive: Path, values: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    program, python = (FOLDER if kind == "folder" else archive), pythons["3.9"]
    repository = Path(values["model_repository"])
    interrupt(repository, "churn")
    started = run(python, program, values, tmp_path)
    assert started.returncode == 0, started.stderr
    assert started.stderr == ("start_triton: model 'churn': an interrupted deployment was undone\n")
    assert "--load-model=fraud" in started.stdout.splitlines()
    assert not (repository / "churn").exists()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Ready) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        health = run(
            python, program, {**values, "http_port": server.server_port}, tmp_path, "--health"
        )
        server.shutdown()
    assert (health.returncode, health.stdout, health.stderr) == (0, "healthy\n", "")


def test_the_oldest_python_reaches_for_an_object_store(
    pythons: dict[str, Path], archive: Path, values: dict[str, Any], tmp_path: Path
) -> None:
    values["model_repository"] = "s3://http://127.0.0.1:9/bucket/models"
    done = run(pythons["3.9"], archive, values, tmp_path)
    assert done.returncode == 75
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_oldest_python_imports_all_that_is_packed(
    pythons: dict[str, Path], archive: Path
) -> None:
    code = (
        "import importlib, pkgutil, sys; sys.path.insert(0, sys.argv[1])\n"
        "names = [one.name for one in pkgutil.walk_packages([sys.argv[1]])]\n"
        "for name in names: name.endswith('__main__') or importlib.import_module(name)\n"
        "print(len(names))"
    )
    done = subprocess.run(
        [str(pythons["3.9"]), "-I", "-S", "-B", "-c", code, str(archive)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_an_older_python_is_told_which_one_is_needed(
    pythons: dict[str, Path], archive: Path, values: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    program = FOLDER if kind == "folder" else archive
    done = run(pythons["2.7"], program, values, tmp_path)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("start_triton: Python 3.9 or newer is needed, and ")
    assert done.stderr.endswith(" is Python 2.7.\n")
    assert len(done.stderr.splitlines()) == 1


# -- modules ---------------------------------------------------------------------------------------

MODULES: dict[str, dict[str, Any]] = {
    "triton_model": {"name": "m", "state": "absent"},
    "triton_models": {"models": []},
    "triton_model_info": {},
    "mlflow_publish": {"name": "m", "path": "/no/model"},
    "mlflow_model_info": {},
}
PASSWORD = "Sesame-4740"


def test_a_module_says_which_python_it_needs(
    pythons: dict[str, Path], triton: Triton, tmp_path: Path
) -> None:
    """And the way out that it names is one."""
    given = {"mlflow_username": "me", "mlflow_password": PASSWORD}
    tasks = [
        {"name": name, f"mlops.triton.{name}": {**options, **given}, "ignore_errors": True}
        for name, options in MODULES.items()
    ]
    listed = {
        "name": "The same with another Python",
        "mlops.triton.triton_model_info": {
            **given,
            "model_repository": str(triton.repository),
            "triton_url": triton.url,
        },
        "vars": {"ansible_python_interpreter": "{{ triton_client_python }}"},
    }
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {"triton_client_python": sys.executable},
        "tasks": [*tasks, listed],
    }
    (tmp_path / "inventory.ini").write_text(
        f"localhost ansible_connection=local ansible_python_interpreter={str(pythons['3.9'])!r}\n",
        encoding="utf-8",
    )
    done = run_playbook(tmp_path, [play], "-vvv")
    assert done.rc == 0, done.output
    said = re.findall(r'"msg": "(Python 3\.9\.\d+ .*)"$', done.output, re.MULTILINE)
    assert len(said) == len(MODULES), done.output
    assert all("needs Python 3.10 or newer. Nothing was changed." in one for one in said)
    assert all(
        "ansible_python_interpreter with '{{ triton_client_python }}'" in one for one in said
    )
    assert "ignored=5" in done.output
    assert "Traceback" not in done.output and "SyntaxError" not in done.output
    assert PASSWORD not in done.output


def test_every_module_is_tried_on_an_old_python() -> None:
    assert set(MODULES) == {path.stem for path in (ROOT / "plugins" / "modules").glob("*.py")}
