# SPDX-License-Identifier: Apache-2.0
"""This machine's GPUs, and this machine as a host of role triton."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import preflight

from . import servers
from .servers import ROOT

host = preflight.load_host()
# CUDA's attributes of a device: major and minor number of its compute capability.
MAJOR, MINOR = 75, 76


@dataclass(frozen=True)
class Gpu:
    index: int
    uuid: str
    name: str
    capability: str


def listed_gpus() -> list[Gpu]:
    """As nvidia-smi lists them; capabilities from CUDA, for nvidia-smi's word to be compared
    with.
    """
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    rows = [row for row in host.listed_gpus() or [] if row[0]]
    if not rows:
        return []
    cuda = ctypes.CDLL("libcuda.so.1")
    found = []
    assert cuda.cuInit(0) == 0
    for index, uuid, name in rows:
        device, numbers = ctypes.c_int(), [ctypes.c_int(), ctypes.c_int()]
        assert cuda.cuDeviceGet(ctypes.byref(device), int(index)) == 0
        for number, attribute in zip(numbers, (MAJOR, MINOR)):
            assert cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device) == 0
        found.append(Gpu(int(index), uuid, name, ".".join(str(number.value) for number in numbers)))
    return found


@dataclass
class Here:
    """This machine as a host of role triton, everything of it in one folder."""

    folder: Path
    ports: list[int]
    variables: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        venv = servers.server_python("TRITON_SERVER_PYTHON", "triton-server").parent.parent
        self.variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "triton_home": str(self.folder / "triton"),
            "triton_model_repository": str(self.folder / "models"),
            "triton_user": "",
            "triton_service_manager": "supervisor",
            "triton_python": sys.executable,
            "triton_http_port": self.ports[0],
            "triton_grpc_port": self.ports[1],
            "triton_metrics_port": self.ports[2],
            "triton_start_timeout": 120,
            "triton_shutdown_timeout": 10,
            "triton_extra_args": ["--disable-auto-complete-config"],
            "triton_manage_venvs": False,
            "triton_server_venv": str(venv),
            "triton_client_venv": sys.prefix,
            "triton_supervisor_venv": sys.prefix,
        }

    def play(self, playbook: str, **more: Any) -> subprocess.CompletedProcess[str]:
        self.variables.update(more)
        inventory = self.folder / "inventory.json"
        inventory.write_text(
            json.dumps({"all": {"vars": self.variables}, "triton": {"hosts": {"here": None}}}),
            encoding="utf-8",
        )
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("ANSIBLE_", "MLFLOW_", "TRITON_", "CUDA_"))
        }
        environment = {
            **kept,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_COLLECTIONS_PATH": f"{ROOT / '.dev'}:{ROOT / '.cache/collections'}",
        }
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "ansible",
                "playbook",
                "-i",
                str(inventory),
                f"mlops.triton.{playbook}",
            ],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def changes(self, playbook: str, **more: Any) -> int:
        done = self.play(playbook, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return sum(
            int(number)
            for number in re.findall(r"changed=(\d+)", done.stdout.rpartition("PLAY RECAP")[2])
        )

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.ports[0]}"

    def infer(self, name: str, values: list[float]) -> dict[str, Any]:
        """Of each output the data."""
        body = {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [len(values)], "data": values}]
        }
        status, answer = servers.http(f"http://{self.url}/v2/models/{name}/infer", body)
        assert status == 200, answer
        return {output["name"]: output["data"] for output in answer["outputs"]}

    def log(self) -> str:
        return (self.folder / "triton/log/triton.log").read_text(encoding="utf-8", errors="replace")

    def metrics(self, name: str) -> dict[frozenset[tuple[str, str]], float]:
        """Values of one metric by its labels."""
        text = str(servers.http(f"http://127.0.0.1:{self.ports[2]}/metrics")[1])
        rows = re.findall(rf"^{name}\{{(.*)\}} (\S+)$", text, re.MULTILINE)
        return {
            frozenset(re.findall(r'(\w+)="([^"]*)"', labels)): float(value)
            for labels, value in rows
        }

    def gpu_memory(self) -> dict[str, tuple[int, int]]:
        """Bytes used and free of each GPU that the server sees, by UUID. From the driver, because
        the server's metrics are up to some seconds old.
        """
        seen = {
            uuid for labels in self.metrics("nv_gpu_memory_used_bytes") for _name, uuid in labels
        }
        question = ["nvidia-smi", "--query-gpu=uuid,memory.used,memory.free"]
        said = subprocess.run(
            [*question, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        rows = [line.split(", ") for line in said.splitlines()]
        return {uuid: (int(u) << 20, int(f) << 20) for uuid, u, f in rows if uuid in seen}

    def wait_until_ended(self, name: str) -> None:
        """Until no process of the Python backend serves the model, and the metrics are new."""
        place = f"{self.folder}/models/{name}/".encode()
        deadline = time.monotonic() + 30
        while any(place in _command_line(pid) for pid in host.all_processes()):
            assert time.monotonic() < deadline, f"a process of {name} goes on"
            time.sleep(0.1)
        while not self._metrics_are_new():
            assert time.monotonic() < deadline, "the metrics differ from nvidia-smi for good"
            time.sleep(0.1)

    def _metrics_are_new(self) -> bool:
        """Both count what the driver keeps for itself differently."""
        said = self.metrics("nv_gpu_memory_used_bytes")
        memory = self.gpu_memory()
        return all(
            abs(value - memory[uuid][0]) < 1 << 30
            for labels, value in said.items()
            for _name, uuid in labels
        )


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
