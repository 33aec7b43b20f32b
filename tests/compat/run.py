# SPDX-License-Identifier: Apache-2.0
"""The MLflow plugin with older clients of MLflow: the contract against a server of the same age,
the guide against today's.

    python tests/compat/run.py [2.11.3] [2]

Makes environments for each below ``.venv/``. The Morpheus guide was written for 2.11.3.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import run_servers

ROOT = run_servers.ROOT
CLIENTS = run_servers.venvs.OLD_CLIENTS
# What meets MLflow's client in another way; the rest of the contract is the same code.
TESTS = (
    "(whole_life or existing_name or without_model_uri or errors_have or scripts_know or notebook"
    " or command_line or one_client) and not one_sentence"
)


def environment(name: str) -> Path:
    """The Python of a complete environment for this client."""
    return run_servers.complete(f"compat-{name}")


def run(name: str) -> int:
    python = environment(name)
    said = subprocess.run(
        [python, "-c", "import mlflow; print(mlflow.__version__)"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    print(f"MLflow {said.strip()}:", flush=True)
    begin = time.monotonic()
    pytest = [str(python), "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider"]
    own = {**os.environ, "MLFLOW_SERVER_PYTHON": str(run_servers.environment(name))}
    contract = subprocess.run(
        [*pytest, "-k", TESTS, "tests/integration/test_mlflow_plugin.py"],
        cwd=ROOT,
        env=own,
        check=False,
    )
    guide = subprocess.run(
        [*pytest, "tests/integration/test_reference_guide.py"], cwd=ROOT, check=False
    )
    print(f"{time.monotonic() - begin:.0f} s", flush=True)
    return contract.returncode or guide.returncode


def main() -> int:
    names = sys.argv[1:] or list(CLIENTS)
    unknown = [name for name in names if name not in CLIENTS]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; known are {', '.join(CLIENTS)}", file=sys.stderr)
        return 2
    return max(run(name) for name in names)


if __name__ == "__main__":
    sys.exit(main())
