# SPDX-License-Identifier: Apache-2.0
"""Environments for a server in a container, on a real Docker Engine with a server's image.

Molecule's scenario triton_docker runs these tests, because the bed has engine and image.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.environments.bounded import (
    Bounds,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.environments.containers import (  # noqa: E501
    LABEL,
    Container,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.environments.environments import (  # noqa: E501
    Environment,
    Environments,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import DeliveryError
from support.environments import Place, new_place, wanted
from support.wheels import python_for_all, sha256

IMAGE = os.environ["BED_TRITON_IMAGE"]
OWN_LABEL = f"mlops.triton.bed={os.environ['BED_ID']}"
SECRET = "Sesame-4713"
SOLVER = wanted("solver")


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with new_place() as made:
        yield made


@pytest.fixture(scope="module")
def built(place: Place) -> Environment:
    return inside(place).build(SOLVER)


def inside(place: Place, **options: Any) -> Environments:
    return place.environments(folder=str(place.folder), **{"container": IMAGE, **options})


def left(place: Place) -> list[str]:
    """Containers of this folder."""
    return docker("ps", "-aq", "--filter", f"label={LABEL}={place.folder}").split()


def run_in_image(*words: str) -> str:
    return docker("run", "--rm", "--entrypoint", words[0], IMAGE, *words[1:])


def test_the_images_python_makes_it_and_runs_it(place: Place, built: Environment) -> None:
    asked = "import json, sys; print(json.dumps([sys.version.split()[0], sys._base_executable]))"
    version, base = json.loads(run_in_image("python3", "-c", asked))
    assert built.version == version
    assert os.readlink(os.path.dirname(built.python) + "/python") == built.base
    assert built.base == run_in_image("readlink", "-f", base)
    mount = f"type=bind,source={place.folder},target={place.folder},readonly"
    program = "import solver, pandas, sys; print(solver.X, sys.prefix)"
    said = docker(
        *("run", "--rm", "--network", "none", "--user", "65534:65534", "--mount", mount),
        *("--entrypoint", built.python, IMAGE, "-c", program),
    )
    assert said == f"1 {os.path.dirname(os.path.dirname(built.python))}"
    assert left(place) == []


def test_what_is_there_is_not_made_again_and_one_of_the_host_is_another(
    place: Place, built: Environment
) -> None:
    again = inside(place)
    planned = again.look(SOLVER)
    assert (planned.is_ready, planned.digest) == (True, built.digest)
    assert again.build(SOLVER) == built
    ours = place.environments(folder=str(place.folder))
    assert ours.look(SOLVER).digest != built.digest
    assert ours.key(SOLVER) != again.key(SOLVER)


def test_what_another_host_has_resolved_is_installed(place: Place, built: Environment) -> None:
    """Although a newer version can be had."""
    assert ("solver", "2.0") in built.packages
    old = sha256(place.links / "solver-1.0-py3-none-any.whl")
    lock = "".join(
        f"solver==1.0 --hash=sha256:{old}\n" if line.startswith("solver==") else f"{line}\n"
        for line in built.lock.splitlines()
    )
    needs = wanted("solver", "numpy")
    others = inside(place, locks={inside(place).key(needs): lock})
    assert others.look(needs).packages == len(built.packages)
    made = others.build(needs)
    assert ("solver", "1.0") in made.packages and made.lock == lock


def test_another_minor_version_is_refused_and_a_python_below_the_folder_helps(
    place: Place, built: Environment
) -> None:
    other = "3.12" if built.version.startswith("3.11.") else "3.11"
    needs = wanted("solver==1.0", python=other)
    assert not inside(place).look(needs).is_ready
    with pytest.raises(DeliveryError) as refused:
        inside(place).build(needs)
    said = str(refused.value)
    assert f"needs Python {other}, and {IMAGE}" in said, said
    assert f"below {place.folder}" in said and "name it in pythons" in said, said
    python = python_for_all(other, place.folder)
    if python is None or not Path(python).is_relative_to(place.folder):
        pytest.skip(f"this host has no Python {other} that could be copied into the folder")
    made = inside(place, pythons=[python]).build(needs)
    assert made.version.startswith(f"{other}.") and made.base == os.path.realpath(python)


def test_no_secret_is_in_a_list_of_processes(place: Place, tmp_path: Path) -> None:
    address = f"http://user:{SECRET}@127.0.0.1:9/simple"
    seen: list[str] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for entry in Path("/proc").iterdir():
                try:
                    seen.append((entry / "cmdline").read_bytes().decode(errors="replace"))
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with pytest.raises(DeliveryError) as refused:
            inside(place, no_index=False, index_url=address).build(wanted("unheard-of"))
    finally:
        done.set()
        watcher.join()
    assert any("docker" in line and "UV_DEFAULT_INDEX" in line for line in seen)
    assert not [line for line in seen if SECRET in line]
    assert SECRET not in str(refused.value)


def test_what_a_killed_run_left_is_ended_by_the_next_one(place: Place, built: Environment) -> None:
    program = (
        "from support.environments import uv_is_found\n"
        "from ansible_collections.mlops.triton.plugins.module_utils._delivery.environments"
        " import bounded, containers\n"
        f"place = containers.Container({IMAGE!r}, None, {str(place.folder)!r})\n"
        "place.run(['sleep', '600'], {}, bounded.Bounds(600))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.Popen([sys.executable, "-c", program], env=environment)
    end = time.monotonic() + 60
    while not left(place) and time.monotonic() < end and killed.poll() is None:
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(left(place)) == 1
    inside(place).build(wanted("solver==2.0"))
    assert left(place) == []


def test_one_that_takes_too_long_is_ended(place: Place) -> None:
    ended = Container(IMAGE, None, str(place.folder)).run(["sleep", "600"], {}, Bounds(1))
    assert ended.late and left(place) == []


def test_the_servers_container_says_which_image_and_must_have_the_folder(
    place: Place, built: Environment
) -> None:
    def servers(*mounts: str) -> str:
        return docker(
            *("create", "--label", OWN_LABEL, "--entrypoint", "sleep"),
            *(word for one in mounts for word in ("--mount", one)),
            *(IMAGE, "1"),
        )

    with_it = servers(f"type=bind,source={place.base},target={place.base},readonly")
    elsewhere = servers(f"type=bind,source={place.folder},target=/environments")
    try:
        assert inside(place, container=with_it).build(SOLVER) == built
        with pytest.raises(DeliveryError, match="does not have the folder of environments"):
            inside(place, container=elsewhere).build(SOLVER)
    finally:
        docker("rm", "--force", with_it, elsewhere)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"container": "nobody-has-this"}, "neither a container nor an image of the name nobody-"),
        ({"container_engine": "unix:///nowhere.sock"}, "name its address in container_engine"),
    ],
)
def test_what_is_not_there_is_said_in_words(
    place: Place, options: dict[str, Any], words: str
) -> None:
    """And a plan only says that nothing is known yet."""
    assert inside(place, **options).look(SOLVER).digest is None
    with pytest.raises(DeliveryError, match=words):
        inside(place, **options).build(SOLVER)
