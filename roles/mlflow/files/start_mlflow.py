# SPDX-License-Identifier: Apache-2.0
"""Starts the MLflow server that a JSON file describes.

    python start_mlflow.py --config server.json [--print]

Run it with the Python of the environment that holds MLflow. The store URI may hold a database
password, so it reaches
the server through the environment, which only its own user can read, and never through the command
line. So does the key of the sessions; the administrator's password is in a file that MLflow reads
itself.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

SERVICE_VARIABLE = "MLOPS_TRITON_SERVICE"
KEYS = {
    "service",
    "host",
    "port",
    "workers",
    "backend_store_uri",
    "artifacts_destination",
    "allowed_hosts",
    "auth",
    "metrics_dir",
    "extra_args",
    "environment",
}
# MLflow's list of allowed hosts replaces its own, which lets these in.
OWN_HOSTS = ("localhost", "127.0.0.1", "[[]::1]", "0.0.0.0")
PRIVATE_HOSTS = ("10.*", "192.168.*", *(f"172.{number}.*" for number in range(16, 32)))


def read_settings(path: str) -> dict[str, Any]:
    settings = json.loads(Path(path).read_text(encoding="utf-8"))
    wrong = KEYS.symmetric_difference(settings)
    if wrong:
        raise ValueError(f"missing or unknown key {', '.join(sorted(wrong))}")
    return dict(settings)


def allowed_hosts(names: list[str]) -> str:
    """MLflow compares the whole Host header, and browsers leave the port out of it when it is the
    usual one.
    """
    if "*" in names:
        return "*"
    hosts = [*OWN_HOSTS, *names]
    return ",".join([*hosts, *(f"{host}:*" for host in hosts), *PRIVATE_HOSTS])


def make_argv(settings: dict[str, Any]) -> list[str]:
    argv = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        settings["host"],
        "--port",
        str(settings["port"]),
    ]
    argv += ["--workers", str(settings["workers"]), "--serve-artifacts"]
    argv += ["--artifacts-destination", settings["artifacts_destination"]]
    if settings["allowed_hosts"]:
        argv += ["--allowed-hosts", allowed_hosts(settings["allowed_hosts"])]
    if settings["auth"]:
        argv += ["--app-name", "basic-auth"]
    if settings["metrics_dir"]:
        argv += ["--expose-prometheus", settings["metrics_dir"]]
    return argv + [str(item) for item in settings["extra_args"]]


def make_environment(settings: dict[str, Any]) -> dict[str, str]:
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONHOME", "PYTHONPATH")
    }
    environment["PATH"] = os.pathsep.join(
        [str(Path(sys.prefix) / "bin"), environment.get("PATH") or os.defpath]
    )
    # In a container those are for the commands that are run beside the server.
    for name in ("MLFLOW_TRACKING_URI", "TRITON_MODEL_REPO", "TRITON_URL"):
        environment.pop(name, None)
    # The jobs of evaluation and scorers cost 12 processes and a gigabyte, and no registry needs
    # them.
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    if settings["auth"]:
        environment["MLFLOW_AUTH_CONFIG_PATH"] = settings["auth"]["config_file"]
        environment["MLFLOW_FLASK_SERVER_SECRET_KEY"] = (
            Path(settings["auth"]["secret_key_file"]).read_text(encoding="utf-8").strip()
        )
    environment.update({key: str(value) for key, value in settings["environment"].items()})
    environment["MLFLOW_BACKEND_STORE_URI"] = settings["backend_store_uri"]
    environment[SERVICE_VARIABLE] = settings["service"]
    return environment


def leftovers(service: str) -> list[int]:
    """Workers of a server that was killed: they live on and hold its port."""
    mark = f"{SERVICE_VARIABLE}={service}".encode()
    # The parent is the supervisor that is starting us.
    own = (os.getpid(), os.getppid())
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if (
                folder.name.isdigit()
                and int(folder.name) not in own
                and mark in (folder / "environ").read_bytes().split(b"\0")
            ):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def end_leftovers(service: str) -> None:
    for number, seconds in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        for pid in leftovers(service):
            print(f"start_mlflow: process {pid} of an earlier start is ended", file=sys.stderr)
            try:
                os.kill(pid, number)
            except OSError:
                continue
        end = time.monotonic() + seconds
        while leftovers(service) and time.monotonic() < end:
            time.sleep(0.1)


def forget_metrics(folder: str | None) -> None:
    """Each worker counts in a file of its own, and those of processes that are gone would be added
    up for ever.
    """
    for path in Path(folder).glob("*.db") if folder else ():
        path.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Starts the MLflow server that a JSON file describes."
    )
    parser.add_argument("--config", required=True, help="JSON file of settings")
    parser.add_argument(
        "--print", action="store_true", help="only print the command; it holds no secret"
    )
    arguments = parser.parse_args()
    try:
        settings = read_settings(arguments.config)
    except (OSError, ValueError) as error:
        print(f"start_mlflow: {arguments.config} cannot be used: {error}", file=sys.stderr)
        return 78
    argv = make_argv(settings)
    if arguments.print:
        print(json.dumps(argv))
        return 0
    end_leftovers(settings["service"])
    try:
        forget_metrics(settings["metrics_dir"])
        environment = make_environment(settings)
    except OSError as error:
        print(f"start_mlflow: {error.filename} cannot be used: {error.strerror}", file=sys.stderr)
        return 78
    sys.stdout.flush()
    os.execve(argv[0], argv, environment)
    return 0


if __name__ == "__main__":
    sys.exit(main())
