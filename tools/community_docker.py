# SPDX-License-Identifier: Apache-2.0
"""Puts community.docker into ``.cache/collections`` from PyPI's ``ansible`` package, for checks
that cannot reach Galaxy.

Users get it from Galaxy: ``ansible-galaxy collection install -r requirements.yml``.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import version as installed_version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / ".cache/collections/ansible_collections"
WANTED = ("community/docker", "community/library_inventory_filtering_v1")
# Which release of the package was made for which ansible-core.
PACKAGE = {"2.19": "12.3.0", "2.20": "13.8.0", "2.21": "14.5.0"}


def is_needed() -> bool:
    """Whether a role, playbook or scenario names the collection."""
    folders = (ROOT / "roles", ROOT / "playbooks", ROOT / "molecule")
    files = (path for folder in folders for path in folder.rglob("*.y*ml"))
    return any("community.docker." in path.read_text(encoding="utf-8") for path in files)


def fetch(version: str) -> None:
    with tempfile.TemporaryDirectory(prefix="mlops-triton-") as scratch:
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-qq",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
            scratch,
            f"ansible=={version}",
        ]
        subprocess.run(pip, check=True, stdin=subprocess.DEVNULL)
        (wheel,) = Path(scratch).glob("*.whl")
        prefixes = tuple(f"ansible_collections/{name}/" for name in WANTED)
        staging = TARGET.parent / "staging"
        shutil.rmtree(staging, ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(
                staging, [name for name in archive.namelist() if name.startswith(prefixes)]
            )
    shutil.rmtree(TARGET, ignore_errors=True)
    # Last, so that an interrupted download is never taken for a collection.
    (staging / "ansible_collections").rename(TARGET)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--if-needed", action="store_true", help="only when a role, playbook or scenario names it"
    )
    if parser.parse_args().if_needed and not is_needed():
        return 0
    version = PACKAGE[".".join(installed_version("ansible-core").split(".")[:2])]
    marker = TARGET / f".ansible-{version}"
    if not marker.is_file():
        print(f".cache/collections: fetching community.docker from ansible {version}", flush=True)
        fetch(version)
        marker.touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
