# SPDX-License-Identifier: Apache-2.0
"""Makes the virtual environments under ``.venv/``; one that is complete and up to date is left
alone.
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
import threading
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENVS = ROOT / ".venv"
STAMP = "complete.sha256"
LINK = ROOT / ".dev/ansible_collections/mlops/triton"


@dataclass(frozen=True)
class Venv:
    """``arguments`` are those of ``pip install``; ``inputs`` are the texts whose change makes the
    environment stale.
    """

    name: str
    purpose: str
    steps: tuple[tuple[str, ...], ...]
    inputs: tuple[str, ...] = field(default=())
    editable: bool = False

    @property
    def folder(self) -> Path:
        return VENVS / self.name

    @property
    def python(self) -> Path:
        return self.folder / "bin/python"

    def digest(self) -> str:
        # Scripts of an environment hold absolute paths, so a moved checkout or another interpreter
        # needs a new one.
        facts = [str(ROOT), os.path.realpath(sys.executable), sys.version, self.steps, self.inputs]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def project_facts() -> tuple[dict[str, object], list[str]]:
    """What an installation of the project depends on, and its requirements without Ansible."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    without_ansible = [
        line for line in project["dependencies"] if not line.startswith("ansible-core")
    ]
    return {"build": settings["build-system"], "project": project}, without_ansible


def known_venvs() -> dict[str, Venv]:
    project, without_ansible = project_facts()
    editable = (
        json.dumps(project, sort_keys=True),
        (ROOT / "hatch_build.py").read_text(encoding="utf-8"),
    )
    mlflow = ROOT / "tools/requirements-mlflow-server.txt"
    triton = ROOT / "roles/triton/files/requirements-server.txt"
    frameworks = ROOT / "tools/requirements-frameworks.txt"
    venvs = [
        Venv(
            "control",
            "Ansible, this collection, linters and tests",
            (("-e", ".[test]"),),
            editable,
            editable=True,
        ),
        Venv(
            "core",
            "the core without Ansible",
            (
                ("pytest>=8", "hypothesis>=6.100", "onnx>=1.17", *without_ansible),
                ("--no-deps", "-e", "."),
            ),
            editable,
            editable=True,
        ),
        Venv(
            "mlflow-server",
            "an MLflow server",
            (("-r", str(mlflow)),),
            (mlflow.read_text(encoding="utf-8"),),
        ),
        Venv(
            "triton-server",
            "a Triton server",
            (("-r", str(triton)),),
            (triton.read_text(encoding="utf-8"),),
        ),
        Venv(
            "frameworks",
            "what trains models for tests",
            (("-r", str(frameworks)),),
            (frameworks.read_text(encoding="utf-8"),),
        ),
    ]
    return {venv.name: venv for venv in venvs}


@contextmanager
def hold_lock() -> Iterator[int]:
    """Two makes at once must not build the same folder. Yields the lock's descriptor."""
    VENVS.mkdir(exist_ok=True)
    with (VENVS / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(".venv: waiting for another run that is installing", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def is_complete(venv: Venv) -> bool:
    stamp = venv.folder / STAMP
    if not stamp.is_file() or stamp.read_text() != venv.digest():
        return False
    if venv.editable and not (LINK / "galaxy.yml").is_file():
        return False
    # The interpreter behind the environment may have been removed since.
    return os.access(venv.python, os.X_OK)


class Installation:
    """Programs at work, which one that fails or an interruption ends."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self._over = False
        self._guard = threading.Lock()

    def run(self, command: Sequence[str], lock: int) -> None:
        with self._guard:
            if self._over:
                raise subprocess.CalledProcessError(-signal.SIGTERM, command)
            # They inherit the lock, because they go on writing for a while when this process is
            # killed.
            child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=(lock,))
            self._running.append(child)
        if child.wait():
            raise subprocess.CalledProcessError(child.returncode, command)

    def end(self) -> None:
        with self._guard:
            self._over = True
            for child in self._running:
                child.terminate()


def install(venv: Venv, lock: int, installation: Installation) -> None:
    print(f"{venv.folder.relative_to(ROOT)}: installing {venv.purpose}", flush=True)
    shutil.rmtree(venv.folder, ignore_errors=True)
    # -qq hides pip's warnings about the user's own index settings, not its errors.
    pip = [
        str(venv.python),
        "-m",
        "pip",
        "install",
        "-qq",
        "--no-input",
        "--disable-pip-version-check",
    ]
    for command in (
        [sys.executable, "-m", "venv", str(venv.folder)],
        *([*pip, *step] for step in venv.steps),
    ):
        installation.run(command, lock)
    unfinished = venv.folder / (STAMP + ".new")
    unfinished.write_text(venv.digest())
    unfinished.rename(venv.folder / STAMP)


def main() -> int:
    venvs = known_venvs()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which ({', '.join(venvs)}); all when omitted"
    )
    names = parser.parse_args().names or list(venvs)
    unknown = sorted(set(names) - set(venvs))
    if unknown:
        parser.error(f"no such environment: {', '.join(unknown)} (there are {', '.join(venvs)})")
    with hold_lock() as lock:
        return install_all([venvs[name] for name in names if not is_complete(venvs[name])], lock)


def install_all(venvs: list[Venv], lock: int) -> int:
    """Two at a time, because unpacking takes one processor; editable ones in turn, because they
    share the link to this checkout.
    """
    installation = Installation()

    def install_in_turn(lane: list[Venv]) -> None:
        for venv in lane:
            try:
                install(venv, lock, installation)
            except subprocess.CalledProcessError as error:
                failed = (
                    f"{venv.folder.relative_to(ROOT)} could not be made ({' '.join(error.cmd[:4])}"
                    f" … ended with {error.returncode}"
                )
                raise SystemExit(
                    f"{failed}, its message is above); run the same command again to repair it"
                ) from error

    with ThreadPoolExecutor(2) as pool:
        try:
            lanes = [
                [venv for venv in venvs if venv.editable is editable] for editable in (True, False)
            ]
            for done in [pool.submit(install_in_turn, lane) for lane in lanes]:
                done.result()
        except BaseException:
            installation.end()
            raise
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command finishes it")
