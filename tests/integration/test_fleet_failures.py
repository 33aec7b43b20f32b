# SPDX-License-Identifier: Apache-2.0
"""What a run of the fleet playbooks leaves, and says, where something is wrong."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from support import models, servers
from support.fleets import Fleet, start_fleet

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


def row(done: subprocess.CompletedProcess[str], host: str, model: str) -> list[str]:
    """Version, state and the words of the result, as the table has them."""
    words = [line.strip(' ",').split() for line in table(done).splitlines()]
    (found,) = (line for line in words if line[:2] == [host, model])
    return found[2:]


def refused(fleet: Fleet, *arguments: str, **variables: Any) -> str:
    """A run that begins on no host; what it says at its end."""
    before = fleet.serves()
    fleet.hooks()
    done = fleet.play("deploy_models", *arguments, **variables)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "host " in table(done), done.stdout + done.stderr
    assert fleet.serves() == before and fleet.hooks() == []
    return table(done)


def records(fleet: Fleet, host: str) -> dict[str, str]:
    """What the host has of its models, as it is written down."""
    repository = fleet.tritons[host].repository
    found = repository.with_name(f"{repository.name}.mlops-triton").glob("records/*")
    return {path.name: path.read_text() for path in found}


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


def test_a_server_that_is_down_keeps_all_hosts_as_they_are(fleet: Fleet) -> None:
    fleet.publish(tried=2)
    address = f"127.0.0.1:{servers.free_ports(1)[0]}"
    fleet.host_variables["two"] = {"triton_url": address}
    # On host one only its records would change.
    served = [{"name": name, "model_uri": f"models:/{name}/1"} for name in ("steady", "tried")]
    recorded = records(fleet, "one")
    refused(fleet, triton_models=served, triton_deployment_set="nightly")
    assert records(fleet, "one") == recorded != {}
    said = refused(fleet)
    assert f"two: Triton does not answer at {address}" in said, said
    would = fleet.play("deploy_models", "--check")
    assert would.returncode == 0, would.stdout
    alone = fleet.play("deploy_models", "--limit", "!two")
    fleet.host_variables.clear()
    assert alone.returncode == 0, alone.stdout
    assert fleet.serves()["one"]["tried"] == 2
    assert fleet.play("deploy_models").returncode == 0
    assert fleet.serves() == everywhere(steady=1, tried=2)


def test_a_host_stays_in_service_where_only_its_record_changes(fleet: Fleet) -> None:
    asked = [
        {"name": "steady", "model_uri": "models:/steady/1"},
        {"name": "tried", "model_uri": "models:/tried/latest"},
    ]
    fleet.hooks()
    for variables in ({"triton_models": asked}, {"triton_deployment_set": "nightly"}, {}):
        done = fleet.play("deploy_models", **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        assert {what for _host, what in fleet.hooks()} == {"returns"}
    assert fleet.serves() == everywhere(steady=1, tried=2)


def listing(fleet: Fleet, *models_: models.Sample) -> list[dict[str, Any]]:
    own = [{"name": one.name, "model_uri": str(one.folder)} for one in models_]
    return [*fleet.variables["triton_models"], *own]


def test_a_long_list_says_what_failed_and_not_everything(fleet: Fleet) -> None:
    many = [
        models.make_python(
            fleet.folder / "many", f"m{number}", fail="no weights" if number == 7 else None
        )
        for number in range(20)
    ]
    fleet.environment = {"ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml"}  # a line for each value
    done = fleet.play("deploy_models", "--limit", "one", triton_models=listing(fleet, *many))
    fleet.environment = {}
    assert done.returncode == 2, done.stdout
    assert "no weights" in table(done) and "m19" in table(done)
    lines = [one for one in done.stdout.splitlines() if one and not one.startswith("progress: ")]
    # 22 of them are the table's, and two those of each task; all models with all that is known of
    # them are 850.
    assert len(lines) < 170, len(lines)
    assert fleet.serves() == everywhere(steady=1, tried=2)


def test_a_model_that_fails_is_shown_with_what_is_served_of_it(fleet: Fleet) -> None:
    served = fleet.serves()["one"]["tried"]
    bad = models.make_python(fleet.folder / "bad", "tried", identity=3, fail="no such weights")
    fleet.publish(tried=bad)
    done = fleet.play("deploy_models", "--limit", "one")
    assert done.returncode == 2
    assert row(done, "one", "tried")[:3] == [str(served), "present", "failed:"]
    assert fleet.serves()["one"]["tried"] == served
    fleet.publish(tried=2)


def test_or_a_host_keeps_what_is_good_and_the_run_goes_on(fleet: Fleet) -> None:
    fleet.publish(steady=2)
    bad = models.make_python(fleet.folder / "worse", "tried", identity=4, fail="no such weights")
    fleet.publish(tried=bad)
    served = fleet.serves()["one"]["tried"]
    fleet.hooks()
    done = fleet.play("deploy_models", triton_on_failure="keep_good")
    assert done.returncode == 2, done.stdout
    assert fleet.serves() == everywhere(steady=2, tried=served)
    assert fleet.hooks() == [(host, what) for host in HOSTS for what in ("leaves", "returns")]
    for host in HOSTS:
        assert row(done, host, "steady")[2] == "changed,", table(done)
        assert row(done, host, "tried")[:3] == [str(served), "present", "failed:"]
        assert f"{host}: 1 of 2 models failed: " in table(done)
    again = fleet.play("deploy_models", triton_on_failure="keep_good")
    # What is good is in place by now: the run goes on all the same.
    assert again.returncode == 2
    assert fleet.hooks() == [(host, what) for host in HOSTS for what in ("leaves", "returns")]
    assert fleet.serves() == everywhere(steady=2, tried=served)
    alone = {"triton_models": fleet.variables["triton_models"][1:]}
    nothing = fleet.play("deploy_models", triton_on_failure="keep_good", **alone)
    assert nothing.returncode == 2
    assert fleet.hooks() == [("one", "leaves"), ("one", "returns")]
    fleet.publish(tried=2)


def test_what_is_not_to_be_purged_stays_where_a_text_says_so(fleet: Fleet) -> None:
    """``-e name=value`` brings a text."""
    owned = fleet.serves()
    fleet.variables["triton_deployment_set"] = "nightly"
    assert fleet.play("deploy_models").returncode == 0
    shorter = {"triton_models": fleet.variables["triton_models"][:1]}
    for text, expected in (
        ("False", owned),
        ("yes", {host: {"steady": served["steady"]} for host, served in owned.items()}),
    ):
        done = fleet.play("deploy_models", "-e", f"triton_purge={text}", **shorter)
        assert done.returncode == 0, done.stdout + done.stderr
        assert fleet.serves() == expected
    del fleet.variables["triton_deployment_set"]
    assert fleet.play("deploy_models").returncode == 0
    assert fleet.serves() == owned


def test_what_to_do_on_a_failure_is_one_of_three_things(fleet: Fleet) -> None:
    said = refused(fleet, triton_on_failure="keep-good")
    assert "triton_on_failure" in said and "keep_good" in said


def test_the_client_environment_is_used_whatever_python_the_run_is_given(fleet: Fleet) -> None:
    fleet.publish(steady=5)
    given = ("-e", "ansible_python_interpreter=/usr/bin/false")
    hooks = {"triton_out_of_service_tasks": "", "triton_in_service_tasks": ""}
    done = fleet.play("deploy_models", *given, **hooks)
    assert done.returncode == 0, done.stdout + done.stderr
    bad = models.make_python(fleet.folder / "again", "tried", identity=6, fail="no such weights")
    tried = {"triton_models": listing(fleet, bad)[::2]}
    failed = fleet.play("deploy_models", *given, **hooks, **tried)
    assert failed.returncode == 2 and "no such weights" in table(failed)
    assert "Bringing it back failed" not in table(failed)
    assert {served["steady"] for served in fleet.serves().values()} == {5}


def test_variables_reach_the_modules(fleet: Fleet) -> None:
    given = {
        "triton_timeout": 123,
        "triton_lock_timeout": 7,
        "triton_parallel_loads": 3,
        "triton_purge_limit": 5,
        "triton_server_log": str(fleet.folder / "triton.log"),
        "mlflow_registry_uri": fleet.mlflow.url,
    }
    done = fleet.play("deploy_models", "--check", "--limit", "one", "-vvv", **given)
    assert done.returncode == 0, done.stdout + done.stderr
    for shown in (
        '"timeout": 123.0',
        '"lock_timeout": 7.0',
        '"parallel_loads": 3',
        '"purge_limit": 5.0',
        f'"server_log": "{fleet.folder}/triton.log"',
        f'"registry_uri": "{fleet.mlflow.url}"',
    ):
        assert shown in done.stdout, shown
    refused(fleet, triton_allowed_backends=["onnxruntime"])
