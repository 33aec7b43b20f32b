# SPDX-License-Identifier: Apache-2.0
"""What each playbook refuses before it does anything. No server is needed for that."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.playbooks import ROOT, ansible_playbook, environment
from warm_python import interpreter

PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
ON_THE_FLEET = ["deploy_models", "provision", "remove_models", "rollback_models", "site"]

each_playbook = pytest.mark.parametrize("playbook", PLAYBOOKS)


def play(
    folder: Path, playbook: str, *arguments: str, hosts: tuple[str, ...] = ("one",), **more: Any
) -> subprocess.CompletedProcess[str]:
    inventory = {
        "all": {
            "hosts": {"other": {}},
            "vars": {
                "ansible_connection": "local",
                "ansible_python_interpreter": interpreter(),
                "triton_client_python": interpreter(),
                **more,
            },
        },
        "triton": {"hosts": {host: {} for host in hosts}},
    }
    (folder / "inventory.yml").write_text(yaml.safe_dump(inventory))
    return subprocess.run(
        [*ansible_playbook(), "-i", "inventory.yml", f"mlops.triton.{playbook}", *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode not in (0, 1), said
    assert all(word in said for word in words), said
    assert "changed=1" not in said


@each_playbook
@pytest.mark.parametrize(
    "choice", [("--tags", "some"), ("--skip-tags", "always"), ("--start-at-task", "Plan")]
)
def test_tasks_are_not_left_out_in_silence(
    tmp_path: Path, playbook: str, choice: tuple[str, str]
) -> None:
    refused(play(tmp_path, playbook, *choice), f"{choice[0]} would leave out tasks")


@pytest.mark.parametrize("playbook", ON_THE_FLEET)
def test_a_fleet_without_hosts_is_not_done(tmp_path: Path, playbook: str) -> None:
    refused(play(tmp_path, playbook, hosts=()), "no host in", "'triton'")
    refused(play(tmp_path, playbook, "--limit", "other"), "--limit 'other' leaves no host of")
    refused(play(tmp_path, playbook, "-i", "/dev/null", hosts=()), "no host in")


@pytest.mark.parametrize("playbook", sorted({*PLAYBOOKS} - {*ON_THE_FLEET}))
def test_a_host_that_publishes_is_not_left_out(tmp_path: Path, playbook: str) -> None:
    refused(play(tmp_path, playbook, "--limit", "other"), "leaves no host of 'localhost'")
    refused(play(tmp_path, playbook, "-e", "mlflow_publish_host=nobody"), "no host in 'nobody'")


@each_playbook
def test_a_playbook_can_be_read_without_an_inventory(tmp_path: Path, playbook: str) -> None:
    for look in ("--syntax-check", "--list-tasks"):
        done = play(tmp_path, playbook, look, hosts=())
        assert done.returncode == 0, done.stdout + done.stderr


@each_playbook
def test_a_slip_in_the_name_of_a_variable_is_named(tmp_path: Path, playbook: str) -> None:
    given = ("-e", "mlflow_pasword=Sesame-4713", "-e", "triton_models_of_mine=Sesame-4713")
    done = play(tmp_path, playbook, *given)
    refused(done, "mlflow_pasword is no variable of mlops.triton, mlflow_password is one")
    assert "triton_models_of_mine" in done.stderr
    assert "Sesame-4713" not in done.stdout + done.stderr


def test_variables_of_the_inventory_count_too(tmp_path: Path) -> None:
    done = play(tmp_path, "deploy_models", triton_serail=1)
    refused(done, "one: triton_serail is no variable of mlops.triton, triton_serial is one")
