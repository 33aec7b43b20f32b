# SPDX-License-Identifier: Apache-2.0
"""Small disks, and full ones."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.bench import Bench

NEEDS_ROOT = "needs root, to mount a file system"


@contextlib.contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[Path]:
    """A tmpfs (or what ``arguments`` say) at ``folder``."""
    if os.geteuid() != 0:
        pytest.skip(NEEDS_ROOT)
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", *(arguments or ("-t", "tmpfs", "-o", "size=8m,mode=755", "tmpfs")), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all space that is left."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as stream:
        while True:
            stream.write(b"\0" * 4096)
    assert os.statvfs(folder).f_bavail == 0
    return filler


def weights(bench: Bench, identity: int, size: int) -> str:
    sample = bench.sample(identity)
    (sample.folder / "1" / "weights.bin").write_bytes(os.urandom(size))
    return str(sample.folder)
