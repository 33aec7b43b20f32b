# SPDX-License-Identifier: Apache-2.0
"""The start wrapper with a repository in S3, and a program that stands for the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fault_proxy import FaultProxy
from support.servers import S3, s3_server

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "roles/triton/files/start_triton"
BUCKET = "models"
MARKER = "{}/.mlops-triton.json"


class Stage:
    """One prefix of the bucket, with its state beside it."""

    def __init__(self, server: S3, folder: Path, prefix: str) -> None:
        self.server, self.folder, self.prefix = server, folder, prefix
        self.client = server.client

    def put(self, key: str, content: Any) -> None:
        body = content if isinstance(content, str) else json.dumps(content)
        self.client.put_object(Bucket=BUCKET, Key=key, Body=body.encode())

    def record(self, name: str, content: Any) -> None:
        self.put(f"{self.prefix}/{name}/config.pbtxt", "")
        self.put(f"{self.prefix}.mlops-triton/records/{name}.json", content)

    def journal(self, name: str, content: Any) -> str:
        key = f"{self.prefix}.mlops-triton/journals/{name}.json"
        self.put(key, content)
        return key

    def stored(self) -> set[str]:
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=self.prefix)
        return {entry["Key"] for entry in found.get("Contents", [])}

    def start(self, endpoint: str = "") -> subprocess.CompletedProcess[str]:
        program = self.folder / "tritonserver"
        program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        program.chmod(0o755)
        config = self.folder / "server.json"
        settings = {
            "runtime": "container",
            "model_repository": f"s3://{endpoint or self.server.endpoint}/{BUCKET}/{self.prefix}",
            "tritonserver": str(program),
            "http_port": 1,
            "grpc_port": 0,
            "metrics_port": 0,
        }
        config.write_text(json.dumps(settings))
        return subprocess.run(
            [sys.executable, "-I", "-S", str(PROGRAM), "--config", str(config)],
            env={**os.environ, **self.server.environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3"), BUCKET) as running:
        yield running


@pytest.fixture
def stage(server: S3, tmp_path: Path) -> Stage:
    return Stage(server, tmp_path, f"production-{tmp_path.name.replace('_', '-')}")


def loads(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return [word for word in done.stdout.splitlines() if word.startswith("--load-model=")]


def test_records_of_any_schema_are_loaded(stage: Stage) -> None:
    stage.record("old", {"schema": 1, "name": "old", "wanted": "loaded"})
    stage.record("newer", {"schema": 99, "name": "newer", "wanted": "loaded", "lanes": [1]})
    stage.record("idle", {"schema": 99, "name": "idle", "wanted": "unloaded"})
    stage.record("broken", "{")
    done = stage.start()
    assert loads(done) == ["--load-model=newer", "--load-model=old"]
    (line,) = done.stderr.splitlines()
    assert "records/broken.json is skipped" in line


def test_a_model_whose_python_file_is_gone_is_left_out(stage: Stage) -> None:
    config = 'backend: "python"'
    for name, path in (("whole", "1/model.py"), ("lacking", "1/main.py")):
        stage.record(name, {"schema": 1, "name": name, "wanted": "loaded", "author": config})
        stage.put(f"{stage.prefix}/{name}/config.pbtxt", config)
        stage.put(f"{stage.prefix}/{name}/{path}", "")
    done = stage.start()
    assert "--load-model=whole" in done.stdout
    assert "--load-model=lacking" not in done.stdout
    assert "Model lacking is left out: version folder 1 has no model.py" in done.stderr


def test_a_store_that_fails_in_between_is_no_reason_to_start_without_a_model(stage: Stage) -> None:
    for name in ("churn", "fraud"):
        stage.record(name, {"schema": 1, "name": name, "wanted": "loaded"})
    with FaultProxy(stage.server.endpoint) as proxy:
        proxy.fault, proxy.only = "hang up", "records/fraud.json"
        failed = stage.start(proxy.url)
        assert proxy.hit
        assert (failed.returncode, failed.stdout) == (75, "")
        (line,) = failed.stderr.splitlines()
        assert "The records of the models cannot be read: " in line
        assert f"the object store at {proxy.url} does not answer" in line
        proxy.fault = ""
        assert loads(stage.start(proxy.url)) == ["--load-model=churn", "--load-model=fraud"]


def test_a_journal_that_cannot_be_recovered_is_left_and_the_others_are_not(stage: Stage) -> None:
    stage.record("fraud", {"schema": 1, "name": "fraud", "wanted": "loaded"})
    cut = stage.journal("fraud", '{"schema": 1, "op": "sw')
    folders = stage.journal("churn", {"schema": 1, "op": "swap", "moves": []})
    waiting = {"schema": 1, "op": "pending", "deploy_id": "id", "since": "then", "server": None}
    pending = stage.journal("other", waiting)
    done = stage.start()
    assert loads(done) == ["--load-model=fraud"]
    said = {line.split("'")[1]: line for line in done.stderr.splitlines()}
    assert "model 'fraud': what an interrupted run left is not recovered (" in said["fraud"]
    assert "model 'churn': what an interrupted run left is not recovered (" in said["churn"]
    assert said["other"].endswith("model 'other': nothing was left to recover")
    assert {cut, folders} <= stage.stored() and pending not in stage.stored()


@pytest.mark.parametrize("content", ["{", '{"schema": 1}'])
def test_a_damaged_marker_keeps_no_model_from_being_served(stage: Stage, content: str) -> None:
    stage.record("fraud", {"schema": 1, "name": "fraud", "wanted": "loaded"})
    stage.put(MARKER.format(stage.prefix), content)
    journal = stage.journal("fraud", {"schema": 1, "op": "pending"})
    done = stage.start()
    assert loads(done) == ["--load-model=fraud"]
    assert f"{stage.prefix}.mlops-triton are used." in done.stderr
    assert "model 'fraud': what an interrupted run left is not recovered (" in done.stderr
    assert journal in stage.stored()


def test_an_empty_prefix_is_made_a_folder(stage: Stage) -> None:
    assert loads(stage.start()) == []
    assert stage.stored() == {f"{stage.prefix}/"}
