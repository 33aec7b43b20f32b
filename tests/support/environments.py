# SPDX-License-Identifier: Apache-2.0
"""Places in which tests make environments, with uv and without an index."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pip_settings
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.requirements import (
    Requirements,
    read_requirements,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.environments.environments import (  # noqa: E501
    EnvironmentOptions,
    Environments,
)

from support.wheels import UV, basic

PYTHON = "3.11"


def uv_is_found() -> None:
    """uv of `make venvs`, on PATH."""
    if (UV / "uv").exists() and str(UV) not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = f"{os.environ['PATH']}{os.pathsep}{UV}"


def wanted(*lines: str, python: str | None = PYTHON, **files: bytes) -> Requirements:
    """What a model needs that was logged with MLflow 1.0."""
    given = {"requirements.txt": "".join(f"{line}\n" for line in lines).encode()}
    return read_requirements(given | files, "1.0", python)


def of_this_machine() -> dict[str, Any]:
    """Options by which packages are had from where pip of this machine has them."""
    uv_is_found()
    told = pip_settings.for_uv(pip_settings.read(sys.executable), os.environ)
    os.environ.setdefault("UV_INDEX_STRATEGY", told["UV_INDEX_STRATEGY"])
    found = {
        "index_url": told.get("UV_DEFAULT_INDEX"),
        "extra_index_urls": told.get("UV_INDEX", "").split(),
        "find_links": [one for one in told.get("UV_FIND_LINKS", "").split(",") if one],
        "no_index": bool(told.get("UV_NO_INDEX")),
    }
    return {key: value for key, value in found.items() if value}


class Place:
    """A folder of this host that any user may enter, with a wheelhouse and environments."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.links = basic(base / "links")
        self.folder = base / "environments"

    def environments(self, state: str = "", **options: Any) -> Environments:
        given = {"find_links": [str(self.links)], "no_index": True, **options}
        return Environments(str(self.folder), EnvironmentOptions.from_options(given), 20, state)

    def names(self) -> list[str]:
        """The environments that are there."""
        return sorted(
            entry.name for entry in self.folder.iterdir() if (entry / "bin/python").is_symlink()
        )

    @property
    def left_behind(self) -> Sequence[str]:
        building = self.folder / "building"
        return sorted(os.listdir(building)) if building.exists() else []


@contextmanager
def new_place() -> Iterator[Place]:
    uv_is_found()
    base = Path(tempfile.mkdtemp())
    base.chmod(0o755)
    try:
        yield Place(base)
    finally:
        shutil.rmtree(base, ignore_errors=True)
