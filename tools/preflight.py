# SPDX-License-Identifier: Apache-2.0
"""Says what this machine lacks for the quickstart and the tests, one sentence each; silent when it
lacks nothing.

It must parse on old Pythons, which is what it reports.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from typing import Any, List, Optional

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOW, HIGH = (3, 11), (3, 12)


def load_host() -> Any:
    """The questions that role triton asks its hosts: this machine is one."""
    path = os.path.join(ROOT, "roles", "triton", "files", "host.py")
    spec = importlib.util.spec_from_file_location("mlops_triton_host", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # No byte code beside a file that roles copy.
    keep, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = keep
    return module


def other_python() -> Optional[str]:
    """A fitting interpreter on PATH, by name, or None."""
    for minor in range(HIGH[1], LOW[1] - 1, -1):
        name = "python3.{}".format(minor)
        path = shutil.which(name)
        # A version manager's shim may stand for an interpreter which is not there.
        if (
            path
            and subprocess.call(
                [path, "-c", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            == 0
        ):
            return name
    return None


def advice() -> str:
    name = other_python()
    if name:
        return "this machine has {0}, so add PYTHON={0} to the make command".format(name)
    return (
        "install one (Debian 12: apt-get install python3.11-venv libpython3.11, Ubuntu 24.04:"
        " apt-get install python3.12-venv libpython3.12), and add PYTHON=python3.11, or the like,"
        " to the make command"
    )


def problems() -> List[str]:
    fits = LOW <= sys.version_info[:2] <= HIGH
    return load_host().problems_of_this_host(LOW, HIGH, "" if fits else advice(), native=True)


def main() -> int:
    found = problems()
    for sentence in found:
        print(sentence, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
