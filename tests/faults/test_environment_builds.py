# SPDX-License-Identifier: Apache-2.0
"""Builders of environments that are killed, and disks that are full under them."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.effects import observe
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import DeliveryError
from support import wheels
from support.disks import mounted
from support.environments import Place, new_place, wanted
from support.rows import Row

pytest.importorskip("yaml")
SOLVER = wanted("solver==1.0")


@pytest.fixture
def place() -> Iterator[Place]:
    with new_place() as made:
        yield made


def killed_after(number: int, act: Callable[[], object]) -> bool:
    """Have a process do it that ends itself after so many effects; False where it had fewer."""
    child = os.fork()
    if child == 0:
        ended = 0

        def note(moment: str, _kind: str, _subject: str) -> None:
            nonlocal ended
            ended += moment == "after"
            if ended == number:
                os.kill(os.getpid(), signal.SIGKILL)

        with observe(note):
            act()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def imports(python: str) -> bool:
    return (
        subprocess.run([python, "-c", "import mlflow.pyfunc, solver"], check=False).returncode == 0
    )


def is_whole(place: Place) -> None:
    """One run makes what was asked for, and leaves nothing else."""
    done = place.environments().build(SOLVER)
    assert place.environments().look(SOLVER).is_ready
    assert place.names() == [done.digest] and place.left_behind == []
    if os.geteuid() == 0:
        assert stat.S_IMODE((place.folder / "cache").stat().st_mode) == 0o700


def test_kill_points_of_an_environment(place: Place, row: Row) -> None:
    """kill -9 in a build of an environment, after each effect."""
    number = kills = whole = 0
    while killed_after(number := number + 1, lambda: place.environments().build(SOLVER)):
        kills += 1
        for found in place.environments().present():
            assert imports(found.python), f"half an environment after effect {number}"
            whole += 1
        is_whole(place)
        place.environments().remove_unused([])
        for lock in (place.folder / "locks").iterdir():
            lock.unlink()
    assert kills > 10
    row.saw(f"N = {kills}: {whole} kills left a whole one, all others none; the next run built it")


def test_kill_points_of_a_removal(place: Place, row: Row) -> None:
    """kill -9 in a removal of environments, after each effect."""
    number = kills = 0

    def remove() -> None:
        place.environments().remove_unused([])

    place.environments().build(SOLVER)
    while killed_after(number := number + 1, remove):
        kills += 1
        assert all(imports(found.python) for found in place.environments().present())
        is_whole(place)
    assert kills and place.names() == []
    row.saw(f"N = {kills}: what was left of one counted as none, and was built anew")


def test_nothing_builds_on_when_the_builder_is_killed(place: Place, row: Row) -> None:
    """kill -9 in a build, while a package is imported."""
    mark = f"solver-{os.getpid()}-{time.time_ns()}"
    endless = f"import time\nMARK = {mark!r}\nwhile True: time.sleep(0.01)\n"
    wheels.wheel(place.links, "numpy", files={"numpy.py": endless})
    child = os.fork()
    if child == 0:
        place.environments().build(SOLVER)
        os._exit(0)
    folder = str(place.folder)
    _until(lambda: _importing(folder))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    _until(lambda: not _importing(folder))
    wheels.wheel(place.links, "numpy", "1.1")
    for lock in (place.folder / "locks").iterdir():
        lock.unlink()
    is_whole(place)
    row.saw("what it had started ended with it; the next run built the environment")


def _importing(folder: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if folder.encode() in words and b"import_module" in words and b"_START" not in words:
            found.append(path.parent.name)
    return found


def _until(happened: Callable[[], object]) -> None:
    for _time in range(1000):
        if happened():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen")


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone mounts file systems")
def test_a_full_disk_is_said_and_leaves_no_environment(place: Place, row: Row) -> None:
    """disk full while an environment is built (tmpfs of 8 MB)."""
    wheels.wheel(place.links, "large", files={"large.py": f"X = '{'x' * (9 << 20)}'\n"})
    small = Path(tempfile.mkdtemp(dir=place.base))
    small.chmod(0o755)
    with mounted(small):
        place.folder = small / "environments"
        with pytest.raises(DeliveryError) as caught:
            place.environments().build(wanted("large"))
        said = str(caught.value)
        assert "the disk is full" in said and said.endswith("No environment was changed.")
        assert place.names() == [] and place.left_behind == []
        row.saw(said)
        is_whole(place)
