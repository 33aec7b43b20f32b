# SPDX-License-Identifier: Apache-2.0
"""A lock becomes a folder: made in a temporary name, looked at, proven, then renamed.

A run that is killed leaves a temporary folder, which the next one removes.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

from .. import disk
from ..deadline import Deadline
from ..effects import effect
from ..errors import DeliveryError
from ..progress import step
from .bounded import STEP
from .options import EnvironmentOptions
from .place import Place, Work
from .proof import prove
from .pythons import Python
from .resolving import Lock, environment_digest
from .sealing import seal
from .stamp import BILL, NAME, Environment, bill_of_materials, made_of
from .uv_program import Uv


def make(lock: Lock, python: Python, uv: Uv, place: Place, work: Work) -> Environment:
    """Build an environment. The caller holds the lock of the folder.

    Raises:
        DeliveryError: it cannot be made; nothing of it is left.
    """
    digest = environment_digest(lock, python)
    target = place.path(digest)
    listed = os.path.join(work.top, "lock.txt")
    disk.write_file(listed, lock.text.encode())
    made = work / "environment"
    with effect("create environment", made), place.cache(work, own=uv.builds) as cache:
        uv(
            ["venv", "--quiet", "--no-project", "--relocatable", "--python", python.path, made],
            cache,
        )
    with (
        step(f"install {len(lock.packages)} packages"),
        effect("install packages", made),
        place.cache(work, own=uv.builds) as cache,
    ):
        uv(
            [
                *("pip", "install", "--quiet", "--python", os.path.join(made, "bin/python")),
                *("--require-hashes", "--no-deps", "--compile-bytecode"),
                *uv.choice,
                *("--requirement", listed),
            ],
            cache,
        )
    ready = os.path.join(work.top, "environment")
    disk.move_new(made, ready)
    size = seal(ready, frozenset({os.path.realpath(python.path)}), place.seals)
    with step("import packages"):
        names = [name for name, _version in lock.packages]
        prove(os.path.join(ready, "bin/python"), names, work / "tmp", place.user, place.run)
    environment, written = made_of(target, digest, lock, python, size)
    disk.write_json(os.path.join(ready, BILL), bill_of_materials(digest, lock, python))
    disk.write_json(os.path.join(ready, NAME), written)
    _flush(ready)
    disk.remove_tree(target)  # one that somebody damaged
    disk.move_new(ready, target)
    return environment


def _flush(path: str) -> None:
    """What is renamed has all its bytes after a power cut: the stamp would say so otherwise."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(AttributeError):
            ctypes.CDLL(None).syncfs(descriptor)
    finally:
        os.close(descriptor)


def install_python(
    minor: str,
    options: EnvironmentOptions,
    uv: Uv,
    place: Place,
    work: Work,
    deadline: Deadline,
) -> None:
    """Have uv install a Python from the mirror, for all environments of the folder."""
    if deadline.passed or options.python_mirror is None:
        return
    made = work / "pythons"
    with (
        step(f"install Python {minor}"),
        effect("install python", made),
        place.cache(work, own=False) as cache,
    ):
        uv(
            ["python", "install", "--no-bin", "--install-dir", made, minor],
            cache,
            UV_PYTHON_INSTALL_MIRROR=options.python_mirror,
            UV_PYTHON_DOWNLOADS="automatic",
        )
    kept = place.path("pythons")
    disk.make_folder(kept)
    # Beside it uv has files of its own, and links with shorter names.
    for name in disk.entries(made):
        found = os.path.join(made, name)
        if os.path.islink(found) or not os.path.isfile(os.path.join(found, f"bin/python{minor}")):
            continue
        ready = os.path.join(work.top, name)
        disk.move_new(found, ready)
        seal(ready, frozenset(), place.seals)
        disk.remove_tree(os.path.join(kept, name))
        disk.move_new(ready, os.path.join(kept, name))
        return
    raise DeliveryError(f"uv installed no Python {minor} from python_mirror", step=STEP)
