# SPDX-License-Identifier: Apache-2.0
"""Several hosts of group triton that are this machine: role triton runs on each under supervisord,
and hooks write down when they are called.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import preflight
import yaml
from warm_python import interpreter

from . import models, servers
from .playbooks import ansible_playbook, environment

host = preflight.load_host()

# Which servers have the model ready at that moment stands in the journal, too.
HOOK = """\
- name: Ask all hosts for the model
  ansible.builtin.uri:
    url: http://127.0.0.1:{{{{ hostvars[item].triton_http_port }}}}/v2/models/{{{{ sample }}}}/ready
    status_code: [200, 400, 404, -1]
  loop: "{{{{ groups.triton }}}}"
  register: asked

- name: Write down that the host {0}
  ansible.builtin.lineinfile:
    path: "{{{{ journal }}}}"
    line: >-
      {{{{ inventory_hostname }}}} {0} {{{{ asked.results | map(attribute='status') | join(',') }}}}
      {{{{ lookup('pipe', 'date +%s%N') }}}}
    create: true
    mode: "0600"
  changed_when: false

- name: Fail where the test wants it
  ansible.builtin.fail:
    msg: the hook is told to fail
  when: fails | default('') == inventory_hostname ~ ' {0}'
"""


@dataclass
class LocalHosts:
    """Hosts of group triton on this machine, each with a home, ports and models of its own."""

    folder: Path
    sample: models.Sample
    variables: dict[str, Any]
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def play(
        self, playbook: str, *arguments: str, extra: dict[str, Any] | None = None, **overrides: Any
    ) -> subprocess.CompletedProcess[str]:
        inventory = {
            "all": {"vars": {"sample": self.sample.name, **self.variables, **overrides}},
            "triton": {"hosts": self.hosts},
        }
        (self.folder / "inventory.yml").write_text(yaml.safe_dump(inventory, sort_keys=False))
        words = ["-i", "inventory.yml", f"mlops.triton.{playbook}", *arguments]
        words += [word for key, value in (extra or {}).items() for word in ("-e", f"{key}={value}")]
        done = subprocess.run(
            [*ansible_playbook(), *words],
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        (self.folder / "last.log").write_text(done.stdout + done.stderr)
        return done

    def add(self, name: str, **variables: Any) -> None:
        ports = servers.free_ports(3)
        self.hosts[name] = {
            "triton_home": str(self.folder / name),
            "triton_model_repository": str(self.folder / f"models-{name}"),
            "triton_http_port": ports[0],
            "triton_grpc_port": ports[1],
            "triton_metrics_port": ports[2],
            **variables,
        }

    def stop(self, name: str) -> None:
        host.stop_processes_of(f"{self.folder}/{name}:triton", 10)

    def servers(self) -> dict[str, list[int]]:
        """The tritonservers of each host, by process id."""
        return {
            name: sorted(
                pid
                for pid in host.processes_of(f"{self.folder}/{name}:triton")
                if b"--http-port" in Path(f"/proc/{pid}/cmdline").read_bytes()
            )
            for name in self.hosts
        }

    def answers(self, name: str) -> bool:
        url = f"http://127.0.0.1:{self.hosts[name]['triton_http_port']}/v2/models"
        status, answer = servers.http(f"{url}/{self.sample.name}/infer", self.sample.request())
        return status == 200 and self.sample.differences(answer) == []

    def hooks(self) -> list[str]:
        """What the hooks wrote down since the last call: host, what, who had the model ready."""
        journal = self.folder / "journal"
        lines = journal.read_text().splitlines() if journal.exists() else []
        journal.unlink(missing_ok=True)
        return [line.rpartition(" ")[0] for line in lines]


def environments() -> dict[str, Any]:
    server = servers.server_python("TRITON_SERVER_PYTHON", "triton-server")
    return {
        "triton_manage_venvs": False,
        "triton_server_venv": str(server.parent.parent),
        "triton_client_venv": sys.prefix,
        "triton_supervisor_venv": sys.prefix,
    }


def variables(folder: Path) -> dict[str, Any]:
    return {
        "ansible_connection": "local",
        "ansible_python_interpreter": interpreter(),
        "triton_user": "",
        "triton_service_manager": "supervisor",
        "triton_start_timeout": 60,
        "triton_shutdown_timeout": 5,
        "triton_extra_args": ["--disable-auto-complete-config"],
        "journal": str(folder / "journal"),
        "triton_out_of_service_tasks": str(folder / "leaves.yml"),
        "triton_in_service_tasks": str(folder / "returns.yml"),
        **environments(),
    }


def make_hooks(folder: Path) -> None:
    for name in ("leaves", "returns"):
        (folder / f"{name}.yml").write_text(HOOK.format(name))


def said(done: subprocess.CompletedProcess[str]) -> str:
    """All that a run printed, on one line."""
    return " ".join((done.stdout + done.stderr).split())
