# SPDX-License-Identifier: Apache-2.0
"""Hosts with a Triton each, and what the fleet playbooks make of them."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from warm_python import interpreter

from . import models, servers
from .playbooks import ansible_playbook, environment, run_task

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
    environment: dict[str, str] = field(default_factory=dict)

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
            env=environment(**self.environment),
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


@contextlib.contextmanager
def start_fleet(folder: Path, mlflow: servers.MLflow, hosts: tuple[str, ...]) -> Iterator[Fleet]:
    """Fresh servers, and the list of models "stable" and "moving" by their champions."""
    with contextlib.ExitStack() as stack:
        tritons = {}
        for name in hosts:
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


def changes(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """host → number of tasks that reported a change."""
    recap = done.stdout.rpartition("PLAY RECAP")[2].splitlines()
    return {
        line.split()[0]: int(line.split("changed=")[1].split()[0])
        for line in recap
        if "changed=" in line
    }
