# SPDX-License-Identifier: Apache-2.0
"""The server from PyPI inside a virtual environment, and what a host lacks for it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import NamedTuple

import host

from .failures import StartError

# The stub of the PyPI server was built against numpy 1, which has no wheels for Python 3.13.
PYTHONS = ((3, 9), (3, 12))


class Installation(NamedTuple):
    """Program and folders of the package pytriton."""

    server: Path
    backends: Path
    caches: Path
    stubs: Path
    libraries: Path


def find_installation() -> Installation:
    """Raises StartError where pytriton is missing or incomplete."""
    spec = importlib.util.find_spec("pytriton")
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise StartError(
            f"nvidia-pytriton is not installed for {sys.executable}: install it there, or use the"
            " Python that has it."
        )
    package = Path(places[0])
    base = package / "tritonserver"
    found = Installation(
        server=base / "bin" / "tritonserver",
        backends=base / "backends",
        caches=base / "caches",
        stubs=base / "python_backend_stubs",
        libraries=package.parent / "nvidia_pytriton.libs",
    )
    for path in (found.server, found.backends / "python", found.libraries):
        if not path.exists():
            raise StartError(f"nvidia-pytriton is incomplete: {path} is missing; install it again.")
    return found


def stub_of_this_python(found: Installation) -> Path:
    """Raises StartError where pytriton has no stub for this interpreter."""
    stub = found.stubs / "{}.{}".format(*sys.version_info[:2]) / "triton_python_backend_stub"
    if not stub.exists():
        raise StartError(f"nvidia-pytriton is incomplete: {stub} is missing; install it again.")
    return stub


def installed_version(distribution: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def native_problems() -> list[str]:
    """What of this host or this Python keeps the PyPI server from working, one sentence each."""
    problems = host.wheel_problems()
    problems += host.version_problems(*PYTHONS, "make Triton's environment with one of those")
    problems += host.libpython_problems()
    numpy = installed_version("numpy")
    if numpy is None or int(numpy.split(".")[0]) >= 2:
        problems.append(
            f"The Triton environment needs numpy 1 (numpy<2), it has {numpy or 'none'}: every"
            ' inference would fail; install "numpy<2" there.'
        )
    try:
        stub_of_this_python(find_installation())
    except StartError as err:
        problems.append(str(err))
    return problems
