# SPDX-License-Identifier: Apache-2.0
"""Makes the virtual environments under ``.venv/``; one that is complete and up to date is left
alone.

uv installs into them, with the settings of this machine's pip; where it cannot be had, or does not
get through, pip does, which takes minutes more.
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
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import compile_once
import pip_settings

ROOT = Path(__file__).resolve().parent.parent
VENVS = ROOT / ".venv"
STAMP = "complete.sha256"
LINK = ROOT / ".dev/ansible_collections/mlops/triton"


UV = "uv>=0.9,<1"

# Older releases of MLflow, each with its clients (tests/compat/run.py) and its server
# (tests/compat/run_servers.py): mlflow-skinny and what that imports, without the gigabyte of a
# whole MLflow.
OLD_CLIENTS = {
    # What this release imports and does not ask for: pkg_resources.
    "2.11.3": ("mlflow-skinny==2.11.3", "setuptools<80", "numpy<2"),
    "2": ("mlflow-skinny<3", "numpy"),
}
OLD_SERVERS = {"2.11.3": ("mlflow-skinny==2.11.3",), "2": ("mlflow-skinny>=2.22,<3",)}
# Libraries that the parsers use, and atheris, which has no wheel for each machine.
FUZZER = ("atheris>=3,<4", "numpy", "PyYAML", "treelite>=4.4,<5", "tritonclient[grpc]>=2.41")
OLD_CLIENT_TOOLS = ("tritonclient[http,grpc]>=2.41", "pandas", "PyYAML", "requests", "pytest>=8")
OLD_SERVER_TOOLS = (
    "flask<4",
    "flask-cors",
    "graphene<4",
    "gunicorn",
    "alembic",
    "sqlalchemy<2.1",
    "sqlparse",
    "querystring-parser",
    "pandas<3",
    "numpy<2",
    "setuptools<80",
)


@dataclass(frozen=True)
class Venv:
    """``steps`` are arguments of one ``pip install`` each; ``inputs`` are the texts whose change
    makes the environment stale; ``compiled`` are modules that only processes import which may not
    keep what they compile.
    """

    name: str
    purpose: str
    steps: tuple[tuple[str, ...], ...]
    inputs: tuple[str, ...] = field(default=())
    editable: bool = False
    compiles_once: bool = False
    compiled: tuple[str, ...] = ()

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
        facts += self.compiled
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def project_facts() -> tuple[dict[str, object], list[str]]:
    """What an installation of the project depends on, and its requirements without Ansible: those
    for signatures among them.
    """
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    without_ansible = [
        line for line in project["dependencies"] if not line.startswith("ansible-core")
    ] + project["optional-dependencies"]["signing"]
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
            (*editable, Path(compile_once.__file__).read_text(encoding="utf-8")),
            editable=True,
            compiles_once=True,
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
            compiled=("numpy", "onnxruntime", "treelite"),
        ),
        Venv(
            "frameworks",
            "what trains models for tests",
            (("-r", str(frameworks)),),
            (frameworks.read_text(encoding="utf-8"),),
        ),
        Venv("fuzz", "what feeds the parsers of foreign bytes", (FUZZER,)),
    ]
    return {venv.name: venv for venv in [*venvs, *old_venvs()]}


def old_venvs() -> list[Venv]:
    clients = [
        Venv(f"compat-{name}", f"a client of MLflow {name}", ((*packages, *OLD_CLIENT_TOOLS),))
        for name, packages in OLD_CLIENTS.items()
    ]
    servers = [
        Venv(
            f"compat-server-{name}", f"a server of MLflow {name}", ((*packages, *OLD_SERVER_TOOLS),)
        )
        for name, packages in OLD_SERVERS.items()
    ]
    return [*clients, *servers]


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

    def run(
        self, command: Sequence[str], lock: int, environment: Mapping[str, str] | None = None
    ) -> None:
        with self._guard:
            if self._over:
                raise subprocess.CalledProcessError(-signal.SIGTERM, command)
            # They inherit the lock, because they go on writing for a while when this process is
            # killed.
            child = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=(lock,),
                env={**os.environ, **(environment or {})},
            )
            self._running.append(child)
        if child.wait() or self._over:
            raise subprocess.CalledProcessError(child.returncode, command)

    @property
    def is_over(self) -> bool:
        return self._over

    def end(self) -> None:
        with self._guard:
            self._over = True
            for child in self._running:
                child.terminate()


# -qq hides pip's warnings about the user's own index settings, not its errors.
PIP = ("-m", "pip", "install", "-qq", "--no-input", "--disable-pip-version-check")


@dataclass(frozen=True)
class Uv:
    program: Path
    variables: Mapping[str, str]


def find_uv(lock: int, installation: Installation) -> Uv | None:
    """uv in an environment of its own, which this makes; None where there is none to be had."""
    venv = Venv("uv", "uv, which fills the others", ((UV,),))
    try:
        if not is_complete(venv):
            install(venv, lock, installation, None)
        variables = pip_settings.for_uv(pip_settings.read(venv.python), os.environ)
    except subprocess.CalledProcessError:
        if installation.is_over:
            raise
        print("uv cannot be had here; pip installs instead, which takes longer", flush=True)
    except pip_settings.UnknownSetting as error:
        print(
            f"uv does not follow pip's setting {error}; pip installs, which takes longer",
            flush=True,
        )
    else:
        return Uv(venv.folder / "bin/uv", variables)
    return None


def base_python() -> str:
    """The interpreter that made the environment of this one, or this one: an environment that is
    active may be the very one that is to be made anew.
    """
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def install(venv: Venv, lock: int, installation: Installation, uv: Uv | None) -> None:
    print(f"{venv.folder.relative_to(ROOT)}: installing {venv.purpose}", flush=True)
    shutil.rmtree(venv.folder, ignore_errors=True)
    installation.run([base_python(), "-m", "venv", str(venv.folder)], lock)
    for step in venv.steps:
        if not (uv and install_with_uv(venv, step, lock, installation, uv)):
            installation.run([str(venv.python), *PIP, *step], lock)
    if venv.compiles_once:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        compile_once.install(str(venv.folder / f"lib/python{version}/site-packages"))
    if venv.compiled:
        words = [str(venv.python), "-c", f"import {', '.join(venv.compiled)}"]
        installation.run(words, lock, {"PYTHONDONTWRITEBYTECODE": ""})
    unfinished = venv.folder / (STAMP + ".new")
    unfinished.write_text(venv.digest())
    unfinished.rename(venv.folder / STAMP)


def install_with_uv(
    venv: Venv, step: tuple[str, ...], lock: int, installation: Installation, uv: Uv
) -> bool:
    words = [str(uv.program), "pip", "install", "--quiet", "--python", str(venv.python), *step]
    try:
        installation.run(words, lock, uv.variables)
    except subprocess.CalledProcessError as error:
        if installation.is_over:
            raise
        name = venv.folder.relative_to(ROOT)
        print(f"{name}: uv ended with {error.returncode}; pip tries as well", flush=True)
        return False
    return True


def main() -> int:
    venvs = known_venvs()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"which ({', '.join(venvs)}); all but compat-* and fuzz when omitted",
    )
    usual = [name for name in venvs if name not in {"fuzz", *(old.name for old in old_venvs())}]
    names = parser.parse_args().names or usual
    unknown = sorted(set(names) - set(venvs))
    if unknown:
        parser.error(f"no such environment: {', '.join(unknown)} (there are {', '.join(venvs)})")
    with hold_lock() as lock:
        stale = [venvs[name] for name in names if not is_complete(venvs[name])]
        return install_all(stale, lock) if stale else 0


def install_all(venvs: list[Venv], lock: int) -> int:
    """Two at a time, because unpacking takes one processor; editable ones in turn, because they
    share the link to this checkout.
    """
    installation = Installation()

    def install_in_turn(lane: list[Venv], uv: Uv | None) -> None:
        for venv in lane:
            try:
                install(venv, lock, installation, uv)
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
            uv = pool.submit(find_uv, lock, installation).result()
            lanes = [
                [venv for venv in venvs if venv.editable is editable] for editable in (True, False)
            ]
            for done in [pool.submit(install_in_turn, lane, uv) for lane in lanes]:
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
