# SPDX-License-Identifier: Apache-2.0
"""The file in which a module keeps its progress has a name that others may see."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.mlops.triton.plugins.plugin_utils import progress


def shown(path: Path) -> bytes:
    return subprocess.run(
        ["/bin/sh", "-c", progress._own(str(path))], capture_output=True, check=False, timeout=60
    ).stdout


def test_only_the_user_s_own_file_is_shown(tmp_path: Path) -> None:
    own, other, pipe, link = (tmp_path / name for name in ("own", "other", "pipe", "link"))
    own.write_text("standing")
    os.mkfifo(pipe)  # nobody writes into it: whoever opens it waits
    link.symlink_to(own)
    assert (shown(own), shown(pipe), shown(link), shown(tmp_path / "none")) == (
        b"standing",
        b"",
        b"",
        b"",
    )
    if os.geteuid():
        pytest.skip("only root can make a file of another user")
    other.write_text("lies")
    os.chown(other, 64123, 64123)
    assert shown(other) == b""
