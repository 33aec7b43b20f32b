# SPDX-License-Identifier: Apache-2.0
"""What each playbook refuses before it does anything. No server is needed for that."""

from __future__ import annotations

import json
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


@each_playbook
def test_what_molecule_says_in_each_run_is_no_choice(tmp_path: Path, playbook: str) -> None:
    of_molecule = ("--skip-tags", "molecule-notest,notest,molecule-idempotence-notest")
    refused(play(tmp_path, playbook, *of_molecule, "--limit", "other"), "'other' leaves no host")


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


@pytest.mark.parametrize("playbook", ["remove_models", "rollback_models", "site"])
def test_a_slip_on_one_host_keeps_all_others_as_they_are(tmp_path: Path, playbook: str) -> None:
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars/two.yml").write_text("triton_serail: 1\n")
    asked = {"triton_models_to_remove": ["a"], "triton_models_to_roll_back": ["a"]}
    done = play(tmp_path, playbook, hosts=("one", "two"), **asked)
    refused(done, "triton_serail is no variable of mlops.triton, triton_serial is one")
    assert done.stdout.count("PLAY [") == 1, done.stdout


@pytest.mark.parametrize(
    ("playbook", "variables", "words"),
    [
        ("deploy_models", {"triton_models": "fraud"}, "one: triton_models is a text"),
        ("deploy_models", {"triton_models": [{"name": "a"}] * 2}, "2 entries with the name 'a'"),
        ("deploy_models", {"triton_serial": "all"}, "one: triton_serial is neither"),
        ("deploy_models", {"triton_purge": "maybe"}, "one: triton_purge is neither true nor false"),
        ("deploy_models", {"triton_delivery_timeout": "soon"}, "one: "),
        ("remove_models", {"triton_models_to_remove": "fraud"}, "_to_remove is a text"),
        ("rollback_models", {"triton_models_to_roll_back": {"a": 1}}, "_back is a dictionary"),
    ],
)
def test_a_list_of_another_shape_is_said_of_the_host(
    tmp_path: Path, playbook: str, variables: dict[str, Any], words: str
) -> None:
    done = play(tmp_path, playbook, **variables)
    refused(done, words, "Show what is deployed")
    assert done.returncode == 2


@pytest.mark.parametrize("playbook", ["publish_models", "remove_models", "rollback_models"])
def test_nothing_to_do_is_not_done(tmp_path: Path, playbook: str) -> None:
    refused(play(tmp_path, playbook), "Nothing to ")


def test_a_fleet_without_a_list_is_not_done(tmp_path: Path) -> None:
    refused(play(tmp_path, "deploy_models"), "one: No host has a list triton_models")
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars/two.yml").write_text("triton_models: []\n")
    # Each gets as far as the modules, and lacks the repository's variable or a server.
    for hosts, more in ((("one", "two"), {}), (("one",), {"triton_models": []})):
        done = play(tmp_path, "deploy_models", hosts=hosts, **more)
        assert "TASK [Plan]" in done.stdout and "No host has a list" not in done.stdout


@pytest.mark.parametrize("way", ["in", "out"])
@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "put its hosts into the group haproxy"),
        ({"triton_haproxy_hosts": []}, "name them in triton_haproxy_hosts"),
        (
            {"triton_haproxy_hosts": "localhost", "triton_haproxy_servers": []},
            "triton_haproxy_servers is empty: name the servers of one there",
        ),
        # With what the messages ask for it gets as far as the socket.
        ({"triton_haproxy_hosts": "localhost"}, "/nowhere.sock"),
        (
            {"triton_haproxy_hosts": ["localhost"], "triton_haproxy_servers": "triton/a"},
            "/nowhere.sock",
        ),
    ],
)
def test_a_hook_that_has_no_haproxy_to_ask_says_so(
    tmp_path: Path, way: str, variables: dict[str, Any], words: str
) -> None:
    hook = {"ansible.builtin.include_tasks": str(ROOT / f"playbooks/tasks/haproxy_{way}.yml")}
    (tmp_path / "hook.yml").write_text(
        yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [hook]}])
    )
    given = {"triton_haproxy_socket": "/nowhere.sock", "triton_haproxy_timeout": 1, **variables}
    done = subprocess.run(
        [*ansible_playbook(), "-i", "one,", "-c", "local", "-e", json.dumps(given), "hook.yml"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    refused(done, words)
