# SPDX-License-Identifier: Apache-2.0
"""What a run of the fleet playbooks leaves, and says, where something is wrong."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from support import models, servers
from support.fleets import Fleet, changes, start_fleet

pytestmark = [pytest.mark.long, pytest.mark.takes(120)]

HOSTS = ("one", "two")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, mlflow: servers.MLflow) -> Iterator[Fleet]:
    with start_fleet(tmp_path_factory.mktemp("failures"), mlflow, HOSTS) as started:
        started.variables["triton_models"] = [
            {"name": name, "model_uri": f"models:/{name}@champion"} for name in ("steady", "tried")
        ]
        started.publish(steady=1, tried=1)
        assert started.play("deploy_models").returncode == 0
        started.hooks()
        yield started


def everywhere(**served: int) -> dict[str, dict[str, int]]:
    return {host: dict(served) for host in HOSTS}


def table(done: subprocess.CompletedProcess[str]) -> str:
    """What the last play prints."""
    return done.stdout.rpartition("TASK [Show what is deployed]")[2]


def refused(fleet: Fleet, *arguments: str, **variables: Any) -> str:
    """A run that begins on no host; what it says at its end."""
    before = fleet.serves()
    fleet.hooks()
    done = fleet.play("deploy_models", *arguments, **variables)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "host " in table(done), done.stdout + done.stderr
    assert fleet.serves() == before and fleet.hooks() == []
    return table(done)


@pytest.mark.parametrize("mode", [(), ("--check",)], ids=["run", "check"])
def test_a_registry_that_cannot_be_asked_is_told_of_each_host(
    fleet: Fleet, mode: tuple[str, ...]
) -> None:
    nowhere = f"http://127.0.0.1:{servers.free_ports(1)[0]}"
    missing = [{"name": "steady", "model_uri": "models:/steady@nobody"}]
    for variables, words in (
        ({"mlflow_controller_tracking_uri": nowhere}, nowhere),
        ({"triton_models": missing}, "nobody"),
    ):
        said = refused(fleet, *mode, **variables)
        assert all(f"{host}: mlflow_model_version: " in said for host in HOSTS), said
        assert words in said


@pytest.mark.parametrize("mode", [(), ("--check",)], ids=["run", "check"])
@pytest.mark.parametrize("hook", ["triton_out_of_service_tasks", "triton_in_service_tasks"])
def test_a_hook_that_does_not_exist_is_found_before_a_host_begins(
    fleet: Fleet, hook: str, mode: tuple[str, ...]
) -> None:
    fleet.publish(tried=1)
    said = refused(fleet, *mode, **{hook: "tasks/nowhere.yml"})
    assert all(f"{host}: {hook}: tasks/nowhere.yml" in said for host in HOSTS), said
