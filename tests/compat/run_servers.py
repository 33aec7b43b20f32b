# SPDX-License-Identifier: Apache-2.0
"""Publishing against older MLflow servers: 2.11.3, for which the Morpheus guide was written, and
the newest 2.x.

    python tests/compat/run_servers.py [2.11.3] [2]

tools/venvs.py makes an environment for each below ``.venv/``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import venvs  # noqa: E402

SERVERS = venvs.OLD_SERVERS


def environment(name: str) -> Path:
    """The Python of a complete environment for this server."""
    return complete(f"compat-server-{name}")


def complete(name: str) -> Path:
    """The Python of an environment below ``.venv/``, made where it is missing."""
    subprocess.run([sys.executable, ROOT / "tools/venvs.py", name], check=True)
    return venvs.known_venvs()[name].python


def main() -> int:
    names = sys.argv[1:] or list(SERVERS)
    unknown = [name for name in names if name not in SERVERS]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; known are {', '.join(SERVERS)}", file=sys.stderr)
        return 2
    worst = 0
    for name in names:
        settings = {**os.environ, "OLD_MLFLOW_PYTHON": str(environment(name))}
        print(f"MLflow server {name}:", flush=True)
        done = subprocess.run(
            [
                ROOT / ".venv/control/bin/python",
                "-m",
                "pytest",
                "-q",
                "tests/compat/test_old_servers.py",
            ],
            cwd=ROOT,
            env=settings,
            check=False,
        )
        worst = max(worst, done.returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
