# SPDX-License-Identifier: Apache-2.0
"""A clean copy of the collection at ``…/ansible_collections/mlops/triton``, uncommitted changes
included.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def git_environment() -> dict[str, str]:
    """Without a hook's GIT_DIR, which would point every git at the checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}


def project_files() -> list[Path]:
    """Tracked files and new ones that git does not ignore, relative to the checkout."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        env=git_environment(),
        check=True,
        capture_output=True,
    ).stdout
    names = sorted({os.fsdecode(name) for name in listing.split(b"\0") if name})
    return [Path(name) for name in names if (ROOT / name).is_file()]


def copy_collection(base: Path) -> Path:
    """A real folder, because ansible-test refuses a link, and a git repository, because it asks git
    what to test.
    """
    target = base / "ansible_collections/mlops/triton"
    shutil.rmtree(target, ignore_errors=True)
    for name in project_files():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    subprocess.run(["git", "init", "-q", "."], cwd=target, env=git_environment(), check=True)
    return target
