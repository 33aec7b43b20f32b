# SPDX-License-Identifier: Apache-2.0
"""Publishing against older MLflow servers: 2.11.3, for which the Morpheus guide was written, and
the newest 2.x.

    python tests/compat/run_servers.py [2.11.3] [2]

Makes an environment for each below ``.venv/``: mlflow-skinny and what its server imports, without
the gigabyte of a whole MLflow.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMON = (
    "flask<4",
    "flask-cors",
    "graphene<4",
    "gunicorn",
    "alembic",
    "sqlalchemy<2.1",
    "sqlparse",
    "querystring-parser",
    "pandas<3",
    "numpy<2",
    "setuptools<80",
)
SERVERS = {"2.11.3": ("mlflow-skinny==2.11.3",), "2": ("mlflow-skinny>=2.22,<3",)}


def environment(name: str) -> Path:
    """The Python of a complete environment for this server."""
    return complete(f"compat-server-{name}", (*SERVERS[name], *COMMON))


def complete(folder_name: str, packages: Sequence[str]) -> Path:
    """The Python of an environment below ``.venv/`` that has these packages; two runs at once make
    it once.
    """
    folder = ROOT / ".venv" / folder_name
    folder.parent.mkdir(exist_ok=True)
    stamp, wanted = folder / "complete.txt", "\n".join([sys.version, *packages])
    python = folder / "bin" / "python"
    with open(folder.with_name(f".{folder_name}.lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
            venv.EnvBuilder(clear=True, with_pip=True).create(folder)
            subprocess.run(
                [
                    python,
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    *packages,
                ],
                check=True,
            )
            stamp.write_text(wanted, encoding="utf-8")
    return python


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
