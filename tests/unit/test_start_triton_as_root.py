# SPDX-License-Identifier: Apache-2.0
"""The start wrapper is root in a container and under systemd, and the repository may be of the
server's user, who is a model's code: whatever that user plants, the server starts, and nothing
outside of what that user may touch is changed or shown.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery import disk
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.folder import (
    FolderRepository,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
PROGRAM = Path(__file__).resolve().parents[2] / "roles/triton/files/start_triton"
USER = 64123
RECORD = {"schema": 1, "name": "fraud", "wanted": "loaded", "flavor": "python"}
SECRET = "what only root may read"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def host() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    server = folder / "tritonserver"
    server.write_text('#!/bin/sh\nid -u\nprintf "%s\\n" "$@"\n')
    server.chmod(0o755)
    (folder / "private/3").mkdir(parents=True)
    for name in ("config.pbtxt", "a.json", "3/model.py"):
        (folder / "private" / name).write_text(SECRET)
    (folder / "private").chmod(0o700)
    (folder / "home/models/fraud/1").mkdir(parents=True)
    (folder / "home/models/fraud/config.pbtxt").write_text('backend: "python"\n')
    (folder / "home/models/fraud/1/model.py").write_text("")
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def make_state(state: Path) -> None:
    for name in ("records", "journals", "locks", "staging", "retained"):
        (state / name).mkdir(parents=True)
    (state / "records/fraud.json").write_text(json.dumps(RECORD))


def as_user(command: str) -> None:
    subprocess.run(
        ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "sh", "-c", command],
        check=True,
    )


def start(host: Path, **values: Any) -> subprocess.CompletedProcess[str]:
    settings = {
        "runtime": "container",
        "model_repository": str(host / "home/models"),
        "tritonserver": str(host / "tritonserver"),
        "http_port": free_port(),
        "grpc_port": free_port(),
        "metrics_port": False,
        "run_as": [USER, USER],
        **values,
    }
    config = host / "server.json"
    config.write_text(json.dumps(settings))
    return subprocess.run(
        [sys.executable, str(PROGRAM), "--config", str(config)],
        check=False,
        text=True,
        capture_output=True,
        timeout=60,
    )


def look(folder: Path) -> list[Any]:
    places = sorted([folder, *folder.rglob("*")])
    return [
        (str(p), p.lstat()[:7], p.lstat().st_mtime_ns, p.read_bytes() if p.is_file() else b"")
        for p in places
    ]


SWAP = json.dumps(
    {
        "schema": 1,
        "op": "swap",
        "deploy_id": "d",
        "old_record": None,
        "keep": 1,
        "moves": [
            {
                "live": "fraud/9",
                "staged": "staging/fraud/d/9",
                "live_inode": 1,
                "staged_inode": None,
            }
        ],
    }
)
REMOVAL = '{"schema": 1, "op": "remove"}'
PLANTS = {
    "a journal that renames into a folder of root": (
        "mkdir -p {state}/staging/fraud/d/9; echo '" + SWAP + "' > {state}/journals/fraud.json;"
        " mv {models}/fraud {models}/gone; ln -s {private} {models}/fraud"
    ),
    "a journal that removes a folder of root": (
        "ln -s {private} {state}/staging/fraud; ln -s {private} {state}/retained/fraud;"
        " rm -r {models}/fraud;"
        ' echo \'{"schema": 1, "op": "remove"}\' > {state}/journals/fraud.json'
    ),
    "a journal named dots": ('echo \'{"schema": 1, "op": "remove"}\' > {state}/journals/...json'),
    "records are a link": "rm -r {state}/records; ln -s {private} {state}/records",
    "a record is a link": "ln -s {private}/a.json {state}/records/a.json",
    "a record is a pipe": "mkfifo {state}/records/a.json",
    "a journal is a link": "ln -s {private}/a.json {state}/journals/a.json",
    "a lock is a link": (
        "ln -s {private}/a.json {state}/locks/a.lock; ln -s {private}/b {state}/locks/b.lock;"
        " for n in a b; do echo '{}' > {state}/journals/$n.json; done"
    ),
    "staging is a link": "rm -r {state}/staging; ln -s {private} {state}/staging;"
    ' echo \'{"schema": 1, "op": "remove"}\' > {state}/journals/3.json',
    "a configuration is a link": (
        "rm {models}/fraud/config.pbtxt; ln -s {private}/config.pbtxt {models}/fraud/config.pbtxt"
    ),
    "a configuration is a pipe": (
        "rm {models}/fraud/config.pbtxt; mkfifo {models}/fraud/config.pbtxt"
    ),
    "a marker that names an open folder": (
        "mkdir -p {open}/records {open}/journals;"
        ' echo \'{"schema": 1, "state_dir": "{open}"}\' > {models}/.mlops-triton.json'
    ),
    "a marker that names a folder of root": (
        'echo \'{"schema": 1, "state_dir": "{private}"}\' > {models}/.mlops-triton.json'
    ),
    "the marker is a link": "ln -s {private}/a.json {models}/.mlops-triton.json",
    "the log is a link": "ln -s {private}/a.json {home}/triton.log",
}


@pytest.mark.parametrize("owner", ["the user's state", "root's state"])
@pytest.mark.parametrize("plant", PLANTS)
def test_what_the_server_s_user_plants_leads_the_start_wrapper_nowhere(
    host: Path, plant: str, owner: str
) -> None:
    """A state of root's beside the user's repository is planted in before root takes it."""
    home, state = host / "home", host / "home/models.mlops-triton"
    make_state(state)
    subprocess.run(["chown", "-hR", f"{USER}:{USER}", str(home)], check=True)
    places = {
        "state": state,
        "models": home / "models",
        "home": home,
        "private": host / "private",
        "open": host / "open",
    }
    command = PLANTS[plant]
    for name, place in places.items():
        command = command.replace(f"{{{name}}}", str(place))
    as_user(command)
    if owner == "root's state":
        os.chown(home, 0, 0)
        subprocess.run(["chown", "-hR", "0:0", str(state)], check=True)
    before = look(host / "private")
    done = start(host, log_file=str(home / "triton.log") if "log" in plant else None)
    assert look(host / "private") == before
    assert SECRET not in done.stdout + done.stderr and "Traceback" not in done.stderr
    if "log" not in plant:
        assert done.returncode == 0 and done.stdout.startswith(f"{USER}\n"), done.stderr
    if owner == "the user's state":
        mine = [one for one in [home, *home.rglob("*")] if one.lstat().st_uid == 0]
        assert not mine


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_another_user_s_server_finds_the_records_of_a_run_of_any_umask(
    host: Path, umask: int
) -> None:
    """The server's user starts it anew after root has delivered."""
    home, before = host / "home", os.umask(umask)
    try:
        models = FolderRepository(str(home / "models"))
        models.store.ensure()
        folder = Path(models.store.path)
        disk.write_json(str(folder / "records/fraud.json"), RECORD)
    finally:
        os.umask(before)
    os.chmod(home, 0o755)
    start(host)  # leaves its settings
    done = subprocess.run(
        [
            *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
            *("/usr/bin/env", "python3", str(PROGRAM), "--config", str(host / "server.json")),
        ],
        check=False,
        text=True,
        capture_output=True,
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
    )
    assert "--load-model=fraud" in done.stdout, done.stderr
    others = [one for one in [folder, *folder.rglob("*")] if one.stat().st_mode & 0o022]
    assert not others


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_a_state_of_any_umask_of_former_releases(host: Path, umask: int) -> None:
    """The server starts; what others may have written is said, and not loaded."""
    home, state = host / "home", host / "home/models.mlops-triton"
    before = os.umask(umask)
    make_state(state)
    os.umask(before)
    done = start(host)
    assert done.returncode == 0
    if umask:
        assert "--load-model=fraud" in done.stdout
        return
    assert "--load-model=fraud" not in done.stdout
    assert f"{state} has the mode 0777" in done.stderr and "chmod go-w" in done.stderr
    for folder in (state, *(one for one in state.iterdir() if one.is_dir())):
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) & ~0o022)
    for file in state.glob("records/*.json"):
        file.chmod(0o644)
    assert "--load-model=fraud" in start(host).stdout
    assert home.exists()
