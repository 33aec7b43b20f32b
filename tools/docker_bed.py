# SPDX-License-Identifier: Apache-2.0
"""The test bed of Molecule: a Docker Engine, images made here of Debian packages and wheels, and
nothing of it left behind.

    python tools/docker_bed.py run [--keep] -- COMMAND …   up, the command, down
    (--keep: no down)
    python tools/docker_bed.py engine                      a Docker Engine, started here when none
    answers
    python tools/docker_bed.py up                          engine, images and wheels
    python tools/docker_bed.py down                        what this checkout made; also the engine,
    if it was started here
    python tools/docker_bed.py clean                       down, and the images

The command gets BED_ID (in the names and the label of everything it makes), BED_HOST_IMAGE,
BED_TRITON_IMAGE, BED_WHEELS, a folder of wheels that hosts mount on /wheels and from which their
pip installs without an index, BED_COMPILED, with which their Python keeps what it compiles
(compile_once.py), BED_FOLDER, where scenarios that share hosts keep what belongs to them, and
BED_PYTHON, which runs modules on this machine (warm_python.py); ansible-playbook on its PATH is one
whose imports are warm. Wheels come from the index that pip of this machine uses: its settings, and
the CA bundle, reach the one container that fetches them through its environment and read-only
mounts.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import compile_once
import pip_settings
import warm_python

ROOT = Path(__file__).resolve().parent.parent
FILES = ROOT / "molecule/bed"
ROLE = ROOT / "roles/triton/files"
CACHE = ROOT / ".cache/bed"
WHEELS = CACHE / "wheels"
COMPILED = CACHE / "compiled"
HOSTS = CACHE / "hosts"
LABEL = "mlops.triton.bed"
HOST_IMAGE = "mlops-triton-bed/host:12"
TRITON_IMAGE = "mlops-triton-bed/tritonserver:24.10-py3"
SUITE = "bookworm"
# PostgreSQL and HAProxy are there for the scenarios that need them, and start with those only.
PACKAGES = (
    "python3,python3-apt,python3-venv,libpython3.11,systemd,systemd-sysv,dbus,openssh-server,iproute2,ca-certificates,procps,sudo,curl,"
    "haproxy,postgresql,python3-psycopg2"
)
TRITON_CHANGES = (
    'ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh"]',
    "CMD []",
    "WORKDIR /opt/tritonserver",
    (
        "ENV PATH=/opt/tritonserver/python/bin:/opt/tritonserver/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # noqa: E501
    ),
    "ENV LD_LIBRARY_PATH=/opt/tritonserver/lib",
)
ENGINE_SECONDS = 60
STOP_SECONDS = 15


class BedError(Exception):
    """The text is one sentence for the user."""


def bed_id() -> str:
    """Tells what this checkout makes from what another one makes on the same engine."""
    return os.environ.get("BED_ID") or hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(
        ["docker", *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if check and done.returncode != 0:
        raise BedError(
            f"docker {' '.join(arguments[:2])} failed: {done.stderr.strip() or done.stdout.strip()}"
        )
    return done.stdout.strip() if done.returncode == 0 else ""


def digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:16]


def text_of(*paths: Path) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in paths]


# ---- engine --------------------------------------------------------------------------------------


def engine_answers() -> bool:
    return shutil.which("docker") is not None and bool(
        docker("version", "--format", "{{.Server.Version}}", check=False)
    )


def install(*packages: str) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BedError(
            f"This needs the packages {', '.join(packages)}: install them, or run it as root on"
            " Debian or Ubuntu."
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["update", "-qq"],
        ["install", "-qq", "-y", "--no-install-recommends", *packages],
    ):
        subprocess.run(
            ["apt-get", *command],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment,
        )


def start_engine() -> None:
    """As root only: everybody else needs an engine that already runs."""
    if os.geteuid() != 0:
        raise BedError(
            "No Docker Engine answers: start one that this user may use, or run this as root, which"
            " starts one itself."
        )
    if shutil.which("dockerd") is None or shutil.which("iptables") is None:
        install("docker.io", "iptables")
    CACHE.mkdir(parents=True, exist_ok=True)
    log = CACHE / "dockerd.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            ["dockerd"],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    (CACHE / "dockerd.pid").write_text(str(process.pid))
    end = time.monotonic() + ENGINE_SECONDS
    while not engine_answers():
        if process.poll() is not None or time.monotonic() > end:
            lines = log.read_text(errors="replace").splitlines()
            raise BedError(
                f"A Docker Engine does not start here; {log} ends with:"
                f" {lines[-1] if lines else 'nothing'}"
            )
        time.sleep(0.5)


def stop_engine() -> None:
    """Only the one that this checkout started."""
    pid_file = CACHE / "dockerd.pid"
    if not pid_file.is_file():
        return
    pid = int(pid_file.read_text())
    pid_file.unlink()
    with contextlib.suppress(OSError):
        if Path(f"/proc/{pid}/comm").read_text().strip() != "dockerd":
            return
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + ENGINE_SECONDS
        while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
            # A zombie, where this very process is the parent.
            os.waitpid(pid, os.WNOHANG)
            time.sleep(0.2)


# ---- images and wheels ---------------------------------------------------------------------------


def has_image(name: str, wanted: str) -> bool:
    return (
        docker(
            "image",
            "inspect",
            "--format",
            f'{{{{index .Config.Labels "{LABEL}.image"}}}}',
            name,
            check=False,
        )
        == wanted
    )


def host_digest() -> str:
    return digest(SUITE, PACKAGES, *text_of(FILES / "host_image.sh"))


def make_host_image() -> bool:
    """Returns whether it had to be made."""
    wanted = host_digest()
    if has_image(HOST_IMAGE, wanted):
        return False
    archive = CACHE / f"host-{wanted}.tar"
    if not archive.is_file():
        print("bed: Debian for the hosts", flush=True)
        if shutil.which("mmdebstrap") is None:
            install("mmdebstrap")
        new = archive.with_suffix(".new.tar")
        hook = f'--customize-hook=sh {shlex.quote(str(FILES / "host_image.sh"))} "$1"'
        log = CACHE / "mmdebstrap.log"
        with log.open("wb") as stream:
            command = [
                "mmdebstrap",
                "--variant=minbase",
                f"--include={PACKAGES}",
                hook,
                SUITE,
                str(new),
            ]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, check=False
            )
        if done.returncode != 0:
            raise BedError(f"mmdebstrap failed; {log} says why.")
        new.rename(archive)
    changes = (
        'CMD ["/lib/systemd/systemd"]',
        "ENV container=docker",
        f"LABEL {LABEL}.image={wanted}",
    )
    docker(
        "import",
        *(word for change in changes for word in ("--change", change)),
        str(archive),
        HOST_IMAGE,
    )
    return True


def wheel_sets() -> dict[str, list[str]]:
    """Arguments of one call of pip each, apart because they need not fit together; by a digest of
    what they ask for.
    """
    sets = {
        digest(SUITE, *text_of(path)): ["-r", f"/triton/{path.name}"]
        for path in sorted(ROLE.glob("requirements-*.txt"))
    }
    lines = (FILES / "wheels.txt").read_text(encoding="utf-8").splitlines()
    return {
        **sets,
        **{
            digest(SUITE, line): line.split() for line in lines if line and not line.startswith("#")
        },
    }


def pip_arguments() -> list[str]:
    """Options of ``docker run``: the settings, and read-only mounts of the files and folders that
    they name.
    """
    settings = pip_settings.of_this_machine()
    paths = {word.removeprefix("file://") for value in settings.values() for word in value.split()}
    mounts = []
    for path in sorted(paths):
        if not path.startswith("/"):
            continue
        # An index folder has its files beside it.
        real = (
            Path(path).parent if Path(path).is_dir() and Path(path).name == "simple" else Path(path)
        )
        if real.exists():
            mounts += ["--volume", f"{real}:{real}:ro"]
    # Names alone, so that values which hold a password are not in the process list.
    return [*mounts, *(word for key in sorted(settings) for word in ("--env", key))]


def pip_cache() -> list[str]:
    """Options of ``docker run`` that let pip in it keep what it downloads where this machine's pip
    does; another checkout's bed then takes it from there.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=False
    )
    folder = Path(done.stdout.strip())
    # It ends with an error where no cache is wanted.
    if done.returncode != 0 or not folder.is_absolute():
        return []
    folder.mkdir(parents=True, exist_ok=True)
    return [f"--volume={folder}:/tmp/pip-cache", "--env=PIP_CACHE_DIR=/tmp/pip-cache"]


def fetch_wheels() -> None:
    WHEELS.mkdir(parents=True, exist_ok=True)
    missing = {
        key: words for key, words in wheel_sets().items() if not (WHEELS / f".{key}").is_file()
    }
    if not missing:
        return
    print("bed: wheels for the hosts", flush=True)
    pip = (
        "/tmp/v/bin/python -m pip wheel -qq --no-input --disable-pip-version-check --wheel-dir"
        " /wheels"
    )
    calls = (f"{pip} {shlex.join(words)} && touch /wheels/.{key}" for key, words in missing.items())
    command = [
        "docker",
        "run",
        "--rm",
        "--network=host",
        f"--label={LABEL}={bed_id()}",
        f"--user={os.getuid()}:{os.getgid()}",
        "--env=HOME=/tmp",
        "--env=PIP_CONFIG_FILE=/dev/null",
        *pip_arguments(),
        *pip_cache(),
        f"--volume={WHEELS}:/wheels",
        f"--volume={ROLE}:/triton:ro",
        HOST_IMAGE,
        "sh",
        "-c",
        " && ".join(["python3 -m venv /tmp/v", *calls]),
    ]
    done = subprocess.run(
        command,
        env={**os.environ, **pip_settings.of_this_machine()},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode != 0:
        raise BedError("The wheels for the hosts could not be fetched; what pip said is above.")


def make_triton_image() -> bool:
    """Returns whether it had to be made."""
    sources = sorted(
        [*ROLE.glob("backends/*/*.py"), ROLE / "requirements-server.txt", FILES / "triton_image.sh"]
    )
    wanted = digest(host_digest(), TRITON_CHANGES, *text_of(*sources))
    if has_image(TRITON_IMAGE, wanted):
        return False
    print("bed: Triton in a container", flush=True)
    name = f"bed-{bed_id()}-image"
    docker("rm", "--force", name, check=False)
    docker(
        "run",
        f"--name={name}",
        f"--label={LABEL}={bed_id()}",
        f"--volume={WHEELS}:/wheels:ro",
        f"--volume={ROLE}:/triton:ro",
        f"--volume={FILES}:/bed:ro",
        # As in molecule/bed/create.yml.
        f"--volume={COMPILED}/compile_once.py:/etc/python3.11/sitecustomize.py:ro",
        f"--volume={COMPILED}/compile_once.d:/usr/lib/python3.11/compile_once.d",
        HOST_IMAGE,
        "sh",
        "/bed/triton_image.sh",
    )
    changes = (*TRITON_CHANGES, f"LABEL {LABEL}.image={wanted} {LABEL}=")
    docker(
        "commit", *(word for change in changes for word in ("--change", change)), name, TRITON_IMAGE
    )
    docker("rm", "--force", name)
    return True


# ---- commands ------------------------------------------------------------------------------------


@contextlib.contextmanager
def hold_lock() -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def engine() -> None:
    """a Docker Engine, started here when none answers"""
    with hold_lock():
        if not engine_answers():
            start_engine()


def up() -> None:
    """engine, images and wheels"""
    engine()
    with hold_lock():
        made = make_host_image()
        fetch_wheels()
        compile_once.install(str(COMPILED))
        made = make_triton_image() or made
        if made:
            # Those of which a newer one took the name. Never beside a scenario: what it is building
            # on such an image has the label too, and no name yet.
            docker("image", "prune", "--force", "--filter", f"label={LABEL}.image", check=False)


def down() -> None:
    """remove what this checkout made, and stop the engine if it was started here"""
    if engine_answers():
        mine = f"label={LABEL}={bed_id()}"
        for kind, listing, removal in (
            ("container", ["ls", "--all", "--quiet"], ["rm", "--force", "--volumes"]),
            ("network", ["ls", "--quiet"], ["rm"]),
            ("volume", ["ls", "--quiet"], ["rm", "--force"]),
        ):
            found = docker(kind, *listing, "--filter", mine).split()
            if found:
                docker(kind, *removal, *found)
    stop_engine()


def clean() -> None:
    """down, and the images"""
    if engine_answers():
        images = docker("image", "ls", "--quiet", "--filter", f"label={LABEL}.image").split()
        if images:
            docker("image", "rm", "--force", *dict.fromkeys(images))
    down()


COMMANDS = {"engine": engine, "up": up, "down": down, "clean": clean}


def descendants(pid: int) -> list[int]:
    """Processes below this one, the nearest first."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name between the brackets may hold anything.
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = list(children.get(pid, []))
    for process in found:
        found += children.get(process, [])
    return found


def carry_out(command: list[str], environment: dict[str, str]) -> int:
    """The command's exit code. An interruption ends it with all that it has started: it is in the
    way of the tidying, and make tells its children only.
    """
    with subprocess.Popen(command, env=environment) as child:
        try:
            return child.wait()
        except BaseException:
            left = [child.pid, *descendants(child.pid)]
            for number in (signal.SIGTERM, signal.SIGKILL):
                for pid in left:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, number)
                end = time.monotonic() + STOP_SECONDS
                while time.monotonic() < end and any(is_alive(pid) for pid in left):
                    child.poll()
                    time.sleep(0.2)
            raise


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2][1] != "Z"
    except OSError:
        return False


@contextlib.contextmanager
def warm_programs() -> Iterator[dict[str, str]]:
    """Variables that name them; a run around this one may have them already."""
    given = {name: os.environ.get(name, "") for name in ("BED_PYTHON", "BED_PROGRAMS")}
    if all(given.values()):
        yield given
        return
    usual = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    program, end = warm_python.begin("playbooks", sys.executable, usual)
    try:
        python = warm_python.interpreter()
        warm_python.wait_for(program)
        shown = program.parent / "bin/ansible-playbook"
        shown.parent.mkdir()
        words = [str(program), str(Path(sys.executable).parent / shown.name)]
        shown.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
        shown.chmod(0o755)
        yield {"BED_PYTHON": python, "BED_PROGRAMS": str(shown.parent)}
    finally:
        end()


def run(command: list[str], keep: bool) -> int:
    try:
        up()
        return run_in_bed(command)
    finally:
        if not keep:
            down()


def run_in_bed(command: list[str]) -> int:
    with warm_programs() as programs:
        told = {
            **programs,
            "PATH": f"{programs['BED_PROGRAMS']}:{os.environ.get('PATH', os.defpath)}",
            "BED_ID": bed_id(),
            "BED_HOST_IMAGE": HOST_IMAGE,
            "BED_TRITON_IMAGE": TRITON_IMAGE,
            "BED_WHEELS": str(WHEELS),
            "BED_COMPILED": str(COMPILED),
            "BED_FOLDER": str(HOSTS),
        }
        # The engine would make it, for root alone.
        HOSTS.mkdir(parents=True, exist_ok=True)
        return carry_out(command, {**os.environ, **told})


def interrupted(*_arguments: object) -> None:
    # A second signal must not cut the tidying short.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description="A Docker Engine and images for Molecule.")
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="up, a command, down")
    runs.add_argument("--keep", action="store_true", help="leave everything up afterwards")
    runs.add_argument("words", nargs="+", metavar="COMMAND")
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=(command.__doc__ or "").splitlines()[0])
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    try:
        if arguments.command == "run":
            return run(arguments.words, arguments.keep)
        COMMANDS[arguments.command]()
    except BedError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
