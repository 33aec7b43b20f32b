# SPDX-License-Identifier: Apache-2.0
"""Playbooks over several hosts: Tritons of this machine, each with a repository of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from support import models, servers
from support.fleets import Fleet, changes, start_fleet
from support.playbooks import run_task

pytestmark = [pytest.mark.long, pytest.mark.takes(120)]

HOSTS = ("one", "two", "three")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, mlflow: servers.MLflow) -> Iterator[Fleet]:
    with start_fleet(tmp_path_factory.mktemp("fleet"), mlflow, HOSTS) as started:
        yield started


def everywhere(**served: int) -> dict[str, dict[str, int]]:
    return {host: dict(served) for host in HOSTS}


def test_hosts_are_changed_one_after_the_other_and_once(fleet: Fleet) -> None:
    fleet.publish(stable=1, moving=1)
    would = fleet.play("deploy_models", "--check", "--diff")
    assert would.returncode == 0, would.stdout + would.stderr
    assert fleet.serves() == everywhere() and fleet.hooks() == []
    done = fleet.play("deploy_models", "--diff")
    assert done.returncode == 0, done.stdout + done.stderr
    assert changes(would) == changes(done) == dict.fromkeys(HOSTS, 1)
    assert diffs(would) == diffs(done) != []
    assert fleet.serves() == everywhere(stable=1, moving=1)
    assert fleet.hooks() == [(host, what) for host in HOSTS for what in ("leaves", "returns")]


def diffs(done: subprocess.CompletedProcess[str]) -> list[str]:
    return sorted(line for line in done.stdout.splitlines() if line.startswith(("+", "-")))


def test_a_host_where_nothing_changes_stays_in_service_and_no_secret_is_shown(fleet: Fleet) -> None:
    done = fleet.play("deploy_models", "-vvv", triton_admin_key={"secret": "Sesame-4711"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert changes(done) == dict.fromkeys(HOSTS, 0)
    assert "Sesame-4711" not in done.stdout + done.stderr
    assert {what for dummy, what in fleet.hooks()} == {"returns"}


def test_hosts_report_for_themselves_and_stay_in_service_for_it(fleet: Fleet) -> None:
    variables = {"triton_registry_status": "{{ inventory_hostname }}"}
    would = fleet.play("deploy_models", "--check", "--diff", **variables)
    done = fleet.play("deploy_models", "--diff", **variables)
    again = fleet.play("deploy_models", **variables)
    assert [run.returncode for run in (would, done, again)] == [0, 0, 0], (
        would.stdout + done.stdout + again.stdout
    )
    assert changes(would) == changes(done) == dict.fromkeys(HOSTS, 1) and changes(
        again
    ) == dict.fromkeys(HOSTS, 0)
    assert diffs(would) == diffs(done) != []
    assert {what for dummy, what in fleet.hooks()} == {"returns"}
    version = Registry(fleet.mlflow.url, 60).version_info("moving", 1)
    assert {key for key in version.tags if "deployed" in key} == {
        f"triton.deployed/{host}" for host in HOSTS
    }
    assert all(f"| {host} | present |" in version.description for host in HOSTS)


def test_the_password_in_an_address_is_not_shown(fleet: Fleet) -> None:
    done = run_task(
        fleet.folder,
        "triton_model_info",
        {
            "triton_url": fleet.tritons["one"].url,
            "model_repository": str(fleet.tritons["one"].repository),
            "names": [],
            "tracking_uri": "http://reader:Sesame-4712@127.0.0.1:1",
        },
        "-vvv",
    )
    assert done["models"] == []
    assert "tracking_uri" in done["_output"]
    assert (
        "Sesame-4712" not in done["_output"].partition("TASK [Do]")[2].partition("TASK [Write]")[0]
    )


def test_a_model_that_breaks_on_the_canary_reaches_no_other_host(fleet: Fleet) -> None:
    fleet.publish(
        stable=2,
        moving=models.make_python(
            fleet.folder / "bad", "moving", identity=2, fail="no such weights"
        ),
    )
    done = fleet.play("deploy_models")
    assert done.returncode == 2
    assert fleet.serves() == everywhere(stable=1, moving=1)
    assert fleet.hooks() == [("one", "leaves"), ("one", "returns")]
    assert (
        "no such weights" in done.stdout
        and "rolled back" in done.stdout
        and "not reached" in done.stdout
    )


def test_a_host_that_fails_in_the_middle_ends_the_run_and_those_before_it_stay(
    fleet: Fleet,
) -> None:
    fleet.publish(moving=3)
    assert fails_on_two(fleet) == {
        **everywhere(stable=1, moving=1),
        "one": {"stable": 2, "moving": 3},
    }


def test_or_all_are_returned(fleet: Fleet) -> None:
    fleet.publish(stable=4)
    assert fails_on_two(fleet, triton_on_failure="rollback_all") == {
        **everywhere(stable=1, moving=1),
        "one": {"stable": 2, "moving": 3},
    }
    assert fleet.hooks()[-2:] == [("one", "leaves"), ("one", "returns")]


def fails_on_two(fleet: Fleet, **variables: Any) -> dict[str, dict[str, Any]]:
    broken = {
        "name": "broken",
        "model_uri": str(
            models.make_python(fleet.folder / "broken", "broken", fail="not on this host").folder
        ),
    }
    fleet.hooks()
    fleet.host_variables["two"] = {"triton_models": [*fleet.variables["triton_models"], broken]}
    done = fleet.play("deploy_models", **variables)
    fleet.host_variables.clear()
    assert done.returncode == 2, done.stdout
    assert "not on this host" in done.stdout, done.stdout
    return fleet.serves()


def test_the_next_run_repairs_and_models_are_rolled_back_and_removed(fleet: Fleet) -> None:
    assert fleet.play("deploy_models").returncode == 0
    assert fleet.serves() == everywhere(stable=4, moving=3)
    for _again in range(2):
        done = fleet.play(
            "rollback_models", "--limit", "three", triton_models_to_roll_back=["stable"]
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert fleet.serves()["three"] == {"stable": 1, "moving": 3}
    assert changes(done) == {"three": 0}
    for changed in (1, 0):
        done = fleet.play("remove_models", triton_models_to_remove=["moving"])
        assert done.returncode == 0, done.stdout + done.stderr
        assert changes(done) == dict.fromkeys(HOSTS, changed)
        assert {name for served in fleet.serves().values() for name in served} == {"stable"}


def test_a_host_that_cannot_be_planned_keeps_all_others_as_they_are(fleet: Fleet) -> None:
    fleet.publish(stable=5)
    for variables, words in (
        ({"triton_client_python": "/nowhere/bin/python"}, "run mlops.triton.provision first"),
        (
            {
                "ansible_connection": "ssh",
                "ansible_host": "127.0.0.1",
                "ansible_port": servers.free_ports(1)[0],
            },
            "cannot be reached",
        ),
    ):
        fleet.host_variables["three"] = variables
        done = fleet.play("deploy_models")
        fleet.host_variables.clear()
        assert done.returncode == 2, done.stdout + done.stderr
        assert words in done.stdout
        assert "not reached: replace models:/stable" in done.stdout
        assert 5 not in {served["stable"] for served in fleet.serves().values()}
