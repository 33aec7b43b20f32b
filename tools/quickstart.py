# SPDX-License-Identifier: Apache-2.0
"""From the registry to a real Triton on this machine: MLflow, Triton and three models, each
answering an inference.

    python tools/quickstart.py up | down | clean

Everything lies in .quickstart/ (or QUICKSTART_HOME) and .venv/ of the checkout. Ports: MLFLOW_PORT,
TRITON_HTTP_PORT, TRITON_GRPC_PORT and TRITON_METRICS_PORT.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

import preflight  # noqa: E402
from support import models as sample_models  # noqa: E402

host = preflight.load_host()

HOME = Path(os.environ.get("QUICKSTART_HOME") or ROOT / ".quickstart").absolute()
VENVS = ROOT / ".venv"
CONTROL = VENVS / "control/bin"
MADE_BY_MAKE = (
    ".venv",
    ".dev",
    ".cache",
    ".ansible",
    ".pytest_cache",
    ".ruff_cache",
    ".mypy_cache",
    "build",
    "dist",
    "tests/output",
)
LOOPBACK = "127.0.0.1"
PORTS = {
    "MLFLOW_PORT": 5000,
    "TRITON_HTTP_PORT": 8000,
    "TRITON_GRPC_PORT": 8001,
    "TRITON_METRICS_PORT": 8002,
}
# Carried by what `up` itself starts, so that a later command finds it when `up` was killed.
STEPS_SERVICE = f"{HOME}:steps"
STOP_SECONDS = 60


def services() -> dict[str, str]:
    """How the roles mark the processes of each server."""
    return {name: f"{base()}/{name}:{name}" for name in ("mlflow", "triton")}


class QuickstartError(Exception):
    """The text is one sentence for the user."""


@dataclass(frozen=True)
class Served:
    """One line of the table."""

    name: str
    registry_version: str
    triton_version: str
    state: str
    digest: str


# ---- what is asked for ---------------------------------------------------------------------------


def wanted_ports(environment: Mapping[str, str]) -> dict[str, int]:
    ports: dict[str, int] = {}
    for name, usual in PORTS.items():
        text = environment.get(name) or str(usual)
        if not text.isdecimal() or not 0 < int(text) < 65536:
            raise QuickstartError(f"{name} must be a port number, not {text!r}.")
        taken = next((other for other, port in ports.items() if port == int(text)), None)
        if taken:
            raise QuickstartError(f"{taken} and {name} are both {text}: give them different ports.")
        ports[name] = int(text)
    return ports


def check_ports(ports: Mapping[str, int]) -> None:
    found = []
    for name, port in ports.items():
        service = services()["mlflow" if name.startswith("MLFLOW") else "triton"]
        found.append(host.port_problem(LOOPBACK, port, name, service))
    sentences = [sentence for sentence in found if sentence]
    if sentences:
        raise QuickstartError("\n".join(sentences))


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The user's environment without what would change the servers, Ansible or Python behind our
    back.
    """
    unwanted = ("ANSIBLE_", "MLFLOW_", "TRITON_", "PYTHON", "MLOPS_TRITON_")
    clean = {key: value for key, value in environment.items() if not key.startswith(unwanted)}
    for name in ("no_proxy", "NO_PROXY"):
        clean[name] = ",".join(filter(None, [environment.get(name), LOOPBACK, "localhost"]))
    return {
        **clean,
        # Ansible wants UTF-8, and programs of the environment call each other by name.
        "LC_ALL": "C.UTF-8",
        "PATH": f"{CONTROL}{os.pathsep}{clean.get('PATH', os.defpath)}",
        "ANSIBLE_CONFIG": str(HOME / "ansible.cfg"),
        "ANSIBLE_HOME": str(HOME / "ansible"),
        "ANSIBLE_LOCAL_TEMP": str(HOME / "ansible/tmp"),
        "ANSIBLE_FORCE_COLOR": "0",
        host.SERVICE_VARIABLE: STEPS_SERVICE,
    }


# ---- files for Ansible ---------------------------------------------------------------------------


def base() -> Path:
    """Folder of the servers: HOME, or one in /tmp when HOME's path does not suit them.

    It may be too long for a socket, or hold what Triton's Python backend cannot start from. A link
    does not help, because libraries resolve it.
    """
    too_long = len(os.fsencode(HOME / "mlflow/supervisor.sock")) > host.SOCKET_PATH_LIMIT
    return elsewhere() if too_long or not host.is_plain(str(HOME)) else HOME


def elsewhere() -> Path:
    return (
        Path("/tmp")
        / f"mlops-triton-{os.getuid()}-{hashlib.sha256(os.fsencode(HOME)).hexdigest()[:12]}"
    )


def make_base() -> None:
    if base() == HOME:
        return
    folder = elsewhere()
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise QuickstartError(
            f"{folder} belongs to somebody else: remove it, or move the checkout to a short and"
            " plain path."
        )
    (HOME / "servers").unlink(missing_ok=True)
    (HOME / "servers").symlink_to(folder, target_is_directory=True)


def inventory(ports: Mapping[str, int], samples: Sequence[sample_models.Sample]) -> dict[str, Any]:
    name = "quickstart"
    common = {
        "ansible_connection": "local",
        "ansible_python_interpreter": str(CONTROL / "python"),
        "ansible_remote_tmp": str(HOME / "ansible/tmp"),
        "mlflow_tracking_uri": f"http://{LOOPBACK}:{ports['MLFLOW_PORT']}",
        "mlflow_models": [
            {
                "name": sample.name,
                "path": str(sample.folder),
                "aliases": ["champion"],
                "description": f"Quickstart: {sample.name}",
            }
            for sample in samples
        ],
    }
    mlflow = {
        "mlflow_home": str(base() / "mlflow"),
        "mlflow_user": "",
        "mlflow_manage_venvs": False,
        "mlflow_venv": str(VENVS / "mlflow-server"),
        "mlflow_supervisor_venv": str(VENVS / "control"),
        "mlflow_service_manager": "supervisor",
        "mlflow_host": LOOPBACK,
        "mlflow_port": ports["MLFLOW_PORT"],
    }
    triton = {
        "triton_home": str(base() / "triton"),
        "triton_user": "",
        "triton_model_repository": str(base() / "triton_models"),
        "triton_manage_venvs": False,
        "triton_server_venv": str(VENVS / "triton-server"),
        "triton_client_venv": str(VENVS / "control"),
        "triton_supervisor_venv": str(VENVS / "control"),
        "triton_service_manager": "supervisor",
        "triton_http_address": LOOPBACK,
        "triton_http_port": ports["TRITON_HTTP_PORT"],
        "triton_grpc_port": ports["TRITON_GRPC_PORT"],
        "triton_metrics_port": ports["TRITON_METRICS_PORT"],
        "triton_models": [
            {"name": sample.name, "model_uri": f"models:/{sample.name}@champion"}
            for sample in samples
        ],
    }
    return {
        "all": {"vars": common},
        "mlflow": {"hosts": {name: None}, "vars": mlflow},
        "triton": {"hosts": {name: None}, "vars": triton},
    }


def write_settings(ports: Mapping[str, int], samples: Sequence[sample_models.Sample]) -> None:
    (HOME / "ansible/tmp").mkdir(parents=True, exist_ok=True)
    make_base()
    replace(
        HOME / "inventory.yml",
        json.dumps(inventory(ports, samples), indent=2, ensure_ascii=False) + "\n",
    )
    replace(
        HOME / "ansible.cfg",
        "[defaults]\nnocows = true\nretry_files_enabled = false\nlocalhost_warning = false\n",
    )


def replace(path: Path, text: str) -> None:
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def make_models() -> list[sample_models.Sample]:
    folder = HOME / "models"
    shutil.rmtree(folder, ignore_errors=True)
    makers = (sample_models.make_onnx, sample_models.make_forest, sample_models.make_python)
    return [maker(folder) for maker in makers]


# ---- steps ---------------------------------------------------------------------------------------


def run_playbook(title: str, playbook: str) -> None:
    """Runs a playbook into a log file and prints its recap, or the end of the log when it fails."""
    log = HOME / "log" / f"{playbook}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"{title} (ansible-playbook playbooks/{playbook}.yml)", flush=True)
    command = [
        str(CONTROL / "python"),
        "-m",
        "ansible",
        "playbook",
        "-i",
        str(HOME / "inventory.yml"),
        f"playbooks/{playbook}.yml",
    ]
    with log.open("w", encoding="utf-8") as stream:
        code = subprocess.call(
            command,
            cwd=ROOT,
            env=child_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    text = log.read_text(encoding="utf-8", errors="replace")
    if code:
        tail = "\n".join(text.splitlines()[-30:])
        raise QuickstartError(
            f"{tail}\n\nplaybooks/{playbook}.yml failed; all it said is in {log}."
        )
    print("  " + " ".join(text.rpartition("PLAY RECAP")[2].splitlines()[1].split()), flush=True)


def make_venvs() -> None:
    # Not the Python of an environment that this may replace.
    command = [
        getattr(sys, "_base_executable", sys.executable),
        "tools/venvs.py",
        "control",
        "mlflow-server",
        "triton-server",
    ]
    code = subprocess.call(
        command, cwd=ROOT, env=child_environment(os.environ), stdin=subprocess.DEVNULL
    )
    if code:
        raise QuickstartError("The virtual environments are not complete; see above.")


def ask(url: str, body: Any = None) -> Any:
    """The JSON answer of a server on this machine."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    # Without handlers for proxies: the servers are on loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise QuickstartError(
            f"{url} answered {error.code}: {error.read().decode(errors='replace')[:500]}"
        ) from None
    except (OSError, ValueError) as error:
        raise QuickstartError(f"{url} does not answer: {error}.") from None


def served_models(triton: str) -> list[Served]:
    """What the records say is deployed, and what the server says of it."""
    repository = base() / "triton_models"
    marker = json.loads((repository / ".mlops-triton.json").read_text(encoding="utf-8"))
    records = (repository / marker["state_dir"] / "records").glob("*.json")
    states = {
        (row["name"], row.get("version")): row.get("state", "-")
        for row in ask(f"{triton}/v2/repository/index", {})
    }
    rows = []
    for path in sorted(records):
        record = json.loads(path.read_text(encoding="utf-8"))
        versions = [str(version) for version in record["triton_versions"]]
        state = ",".join(
            sorted({states.get((record["name"], version), "not served") for version in versions})
        )
        registry_version = str(record["registry_version"] or "-")
        rows.append(
            Served(
                record["name"],
                registry_version,
                ",".join(versions),
                state,
                record["manifest_digest"][:12],
            )
        )
    return rows


def check_answers(triton: str, samples: Sequence[sample_models.Sample]) -> None:
    for sample in samples:
        wrong = sample.differences(ask(f"{triton}/v2/models/{sample.name}/infer", sample.request()))
        if wrong:
            raise QuickstartError(f"Model {sample.name} answers wrongly: {'; '.join(wrong)}.")


def print_table(rows: Sequence[Served]) -> None:
    head = ("model", "registry version", "Triton version", "state", "digest", "inference")
    lines = [
        head,
        *(
            (row.name, row.registry_version, row.triton_version, row.state, row.digest, "correct")
            for row in rows
        ),
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    print()
    for line in lines:
        print(
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        )


# ---- commands ------------------------------------------------------------------------------------


@contextmanager
def hold_lock() -> Iterator[None]:
    """One command at a time; what a killed one left running is ended first, since it would go on
    changing things.
    """
    HOME.mkdir(exist_ok=True)
    with (HOME / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise QuickstartError(
                "Another quickstart command is running in this checkout: wait for it, or stop it."
            ) from None
        host.stop_processes_of(STEPS_SERVICE, 10)
        yield


def up() -> None:
    lacking = preflight.problems()
    if lacking:
        raise QuickstartError("\n".join(lacking))
    ports = wanted_ports(os.environ)
    with hold_lock():
        check_ports(ports)
        make_venvs()
        samples = make_models()
        write_settings(ports, samples)
        run_playbook("Starting MLflow and Triton", "provision")
        run_playbook("Publishing three models", "publish_models")
        run_playbook("Deploying them", "deploy_models")
        triton = f"http://{LOOPBACK}:{ports['TRITON_HTTP_PORT']}"
        check_answers(triton, samples)
        print_table(served_models(triton))
        print(f"\nMLflow: http://{LOOPBACK}:{ports['MLFLOW_PORT']}/#/models")
        print(f"Triton: {triton}/v2/models/{samples[0].name}/config")
        print("\nStop it with: make quickstart-down")


def down() -> None:
    with hold_lock():
        stopped = stop_services()
    print("stopped" if stopped else "nothing was running")


def stop_services() -> bool:
    """Supervisors first, which end their programs in order; then what a killed supervisor left."""
    running = {pid for service in services().values() for pid in host.processes_of(service)}
    for pid in running:
        if is_supervisor(pid):
            os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + STOP_SECONDS
    while any(is_supervisor(pid) for pid in running) and time.monotonic() < end:
        time.sleep(0.1)
    for service in services().values():
        host.stop_processes_of(service, 10)
    return bool(running)


def is_supervisor(pid: int) -> bool:
    try:
        return host.is_alive(pid) and b"supervisor.supervisord" in Path(
            f"/proc/{pid}/cmdline"
        ).read_bytes().split(b"\0")
    except OSError:
        return False


def clean() -> None:
    with hold_lock():
        stop_services()
        remove(elsewhere())
        for folder in (HOME, *(ROOT / name for name in MADE_BY_MAKE)):
            remove(folder)


def remove(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description="MLflow, Triton and three models on this machine.")
    parser.add_argument("command", choices=["up", "down", "clean"])
    command = {"up": up, "down": down, "clean": clean}[parser.parse_args().command]
    # A terminated step must end its children like an interrupted one.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        command()
    except QuickstartError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; the next run goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
