# SPDX-License-Identifier: Apache-2.0
"""Playbooks over several hosts: Tritons of this machine, each with a repository of its own."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from support import models, servers
from support.playbooks import ansible_playbook, environment, run_task
from warm_python import interpreter

pytestmark = [pytest.mark.long, pytest.mark.takes(120)]

HOSTS = ("one", "two", "three")
HOOK = """\
- name: Write down that the host {0}
  ansible.builtin.lineinfile:
    path: "{{{{ journal }}}}"
    line: "{{{{ inventory_hostname }}}} {0} {{{{ lookup('pipe', 'date +%s%N') }}}}"
    create: true
    mode: "0600"
  changed_when: false
"""


@dataclass
class Fleet:
    """Hosts with a Triton each, a registry, and hooks that write down when they are called."""

    folder: Path
    mlflow: servers.MLflow
    tritons: dict[str, servers.Triton]
    variables: dict[str, Any] = field(default_factory=dict)
    host_variables: dict[str, dict[str, Any]] = field(default_factory=dict)

    def play(
        self, playbook: str, *arguments: str, **overrides: Any
    ) -> subprocess.CompletedProcess[str]:
        hosts = {
            name: {
                "triton_url": triton.url,
                "triton_model_repository": str(triton.repository),
                **self.host_variables.get(name, {}),
            }
            for name, triton in self.tritons.items()
        }
        inventory = {"all": {"vars": {**self.variables, **overrides}}, "triton": {"hosts": hosts}}
        (self.folder / "inventory.yml").write_text(yaml.safe_dump(inventory, sort_keys=False))
        words = [
            *ansible_playbook(),
            "-i",
            "inventory.yml",
            f"mlops.triton.{playbook}",
            *arguments,
        ]
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        (self.folder / "last.log").write_text(done.stdout + done.stderr)
        return done

    def publish(self, **identities: int | models.Sample) -> None:
        """Publish the next version of each model, which becomes the champion; an integer stands for
        a good one of that identity.
        """
        made = [
            (
                what
                if isinstance(what, models.Sample)
                else models.make_python(self.folder / f"source-{what}", name, identity=what)
            )
            for name, what in identities.items()
        ]
        listed = [
            {"name": sample.name, "path": str(sample.folder), "aliases": ["champion"]}
            for sample in made
        ]
        assert not run_task(
            self.folder, "mlflow_publish", {"models": listed, "tracking_uri": self.mlflow.url}
        ).get("failed")

    def serves(self) -> dict[str, dict[str, Any]]:
        """host → model → what tells one deployment from another: the answer of the model's output
        "identity".
        """
        found: dict[str, dict[str, Any]] = {}
        for host, triton in self.tritons.items():
            found[host] = {}
            for row in triton.index():
                if row.get("state") == "READY":
                    status, answer = triton.infer(
                        row["name"],
                        {
                            "inputs": [
                                {
                                    "name": "x",
                                    "datatype": "FP32",
                                    "shape": [1, 3],
                                    "data": [1, 2, 3],
                                }
                            ]
                        },
                    )
                    assert status == 200, answer
                    found[host][row["name"]] = next(
                        o["data"][0] for o in answer["outputs"] if o["name"] == "identity"
                    )
        return found

    def hooks(self) -> list[tuple[str, str]]:
        """(host, "leaves" or "returns") in the order of the calls; each call of this forgets
        them.
        """
        journal = self.folder / "journal"
        lines = journal.read_text().splitlines() if journal.exists() else []
        journal.unlink(missing_ok=True)
        return [(host, what) for host, what, dummy in (line.split() for line in lines)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, mlflow: servers.MLflow) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with contextlib.ExitStack() as stack:
        tritons = {}
        for name in HOSTS:
            tritons[name] = stack.enter_context(
                servers.triton_server(
                    folder / name, extra_args=["--disable-auto-complete-config"], admin_key=None
                )
            )
        for name in ("leaves", "returns"):
            (folder / f"{name}.yml").write_text(HOOK.format(name))
        yield Fleet(
            folder,
            mlflow,
            tritons,
            {
                "ansible_connection": "local",
                "ansible_python_interpreter": interpreter(),
                "mlflow_tracking_uri": mlflow.url,
                "triton_client_python": interpreter(),
                "journal": str(folder / "journal"),
                "triton_out_of_service_tasks": str(folder / "leaves.yml"),
                "triton_in_service_tasks": str(folder / "returns.yml"),
                "triton_models": [
                    {"name": name, "model_uri": f"models:/{name}@champion"}
                    for name in ("stable", "moving")
                ],
            },
        )


def everywhere(**served: int) -> dict[str, dict[str, int]]:
    return {host: dict(served) for host in HOSTS}


def changes(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """host → number of tasks that reported a change."""
    recap = done.stdout.rpartition("PLAY RECAP")[2].splitlines()
    return {
        line.split()[0]: int(line.split("changed=")[1].split()[0])
        for line in recap
        if "changed=" in line
    }


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
