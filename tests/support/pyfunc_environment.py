# SPDX-License-Identifier: Apache-2.0
"""The environment of a Python model, as a data scientist logs it: made once, shared by all tests.

It lies in ``.cache/pyfunc/``, under a digest of its pins, and nothing removes or changes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pip_settings

ROOT = Path(__file__).resolve().parents[2]
PINS = (
    "mlflow-skinny==3.17.2",
    "numpy==2.4.6",
    "pandas==3.1.1",
    "scikit-learn==1.9.1",
)


def make_environment(pins: Sequence[str] = PINS) -> Path:
    """Its Python."""
    facts = [os.path.realpath(sys.executable), sys.version, *pins]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    folder = ROOT / ".cache" / "pyfunc" / digest
    python = folder / "bin/python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Processes of pytest-xdist, and other checkouts that share the cache.
    with open(folder.parent / f"{digest}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # What it was made with may be gone.
        if not ((folder / "complete").exists() and python.exists()):
            _install(folder, python, pins)
            (folder / "complete").touch()
    return python


def _install(folder: Path, python: Path, pins: Sequence[str]) -> None:
    base = str(getattr(sys, "_base_executable", None) or sys.executable)
    uv = ROOT / ".venv/uv/bin/uv"
    if uv.exists():
        variables = pip_settings.for_uv(pip_settings.read(uv.with_name("python")), os.environ)
        steps = [
            [uv, "venv", "--quiet", "--clear", "--python", base, folder],
            [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, *pins],
        ]
    else:
        variables = {}
        pip = ["-m", "pip", "install", "-qq", "--no-input", "--disable-pip-version-check"]
        steps = [[base, "-m", "venv", "--clear", folder], [python, *pip, *pins]]
    for step in steps:
        subprocess.run(list(map(str, step)), check=True, env={**os.environ, **variables})
