# SPDX-License-Identifier: Apache-2.0
"""Maps the checkout to ``ansible_collections/mlops/triton`` in the wheel, where ansible-core and
MLflow both find it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "ansible_collections/mlops/triton"
FILES = (
    "galaxy.yml",
    "README.md",
    "CHANGELOG.md",
    "requirements.yml",
    "publish_model_to_mlflow.py",
)
FOLDERS = ("LICENSES", "meta", "playbooks", "plugins", "roles")
NOT_SHIPPED = ("__pycache__",)


class CollectionBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        if version == "editable":
            link_checkout(root)
        else:
            build_data["force_include"].update(collection_files(root))


def collection_files(root: Path) -> dict[str, str]:
    """Every file of the collection → its place in the wheel.

    File by file, because hatchling includes a forced folder whole, with whatever lies in it.
    """
    found = [root / name for name in FILES if (root / name).is_file()]
    for folder in FOLDERS:
        found.extend(
            path
            for path in sorted((root / folder).rglob("*"))
            if path.is_file() and path.suffix != ".pyc" and not set(NOT_SHIPPED) & set(path.parts)
        )
    return {str(path): f"{PACKAGE}/{path.relative_to(root).as_posix()}" for path in found}


def link_checkout(root: Path) -> None:
    """A link and not a copy, so that an editable install follows every change of the checkout."""
    link = root / ".dev" / PACKAGE
    link.parent.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(root, link.parent)
    if link.is_symlink() and os.readlink(link) == target:
        return
    if link.is_symlink():
        link.unlink()
    link.symlink_to(target, target_is_directory=True)
