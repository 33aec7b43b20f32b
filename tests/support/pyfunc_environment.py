# SPDX-License-Identifier: Apache-2.0
"""A data scientist's Python: MLflow, pandas, numpy 2 and scikit-learn, made once by uv for all runs
of this machine. Standard library only.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .servers import ROOT, ServerError, server_python

# All models are logged with these, so that all share one environment where they are served too.
PINS = (
    "mlflow-skinny==3.17.2",
    "cloudpickle==3.1.3",
    "numpy==2.4.6",
    "pandas==3.1.1",
    "scikit-learn==1.9.1",
    "scipy==1.17.1",
)
CACHE = ROOT / ".cache" / "pyfunc"
# pandas and scikit-learn of PINS have wheels for these.
MINORS = (11, 12, 13)


def base_python() -> Path:
    """The interpreter behind the environment of the tests."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()


@functools.cache
def other_python() -> Path | None:
    """An interpreter of another minor version than that of the tests, where this machine has one:
    the one that OTHER_PYTHON names, or the first that is found.
    """
    named = os.environ.get("OTHER_PYTHON")
    found = [Path(named)] if named else []
    for minor in MINORS:
        name = f"python3.{minor}"
        shim = shutil.which(name)
        if minor != sys.version_info.minor and shim:
            # A shim of pyenv answers for the versions that are switched on alone; what it stands
            # for lies beside it.
            found += sorted(Path(shim).parent.parent.glob(f"versions/3.{minor}.*/bin/{name}"))
            found.append(Path(shim))
    return next(
        (path for path in found if _version(path) not in (None, _version(base_python()))), None
    )


def _version(python: Path) -> tuple[int, int] | None:
    words = [str(python), "-c", "import sys, venv; print(*sys.version_info[:2])"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    major, minor = done.stdout.split()
    return int(major), int(minor)


@functools.cache
def uv_settings() -> Mapping[str, str]:
    """Where packages come from on this machine, as variables of uv."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import pip_settings
    finally:
        sys.path.pop(0)
    python = server_python("UV_PYTHON_OF_TESTS", "uv")
    return pip_settings.for_uv(pip_settings.read(python), os.environ)


def uv(*words: str, environment: Mapping[str, str] | None = None) -> str:
    """Run uv with the settings of this machine's pip; returns what it prints."""
    program = server_python("UV_PYTHON_OF_TESTS", "uv").with_name("uv")
    done = subprocess.run(
        [str(program), *words],
        env={**os.environ, **uv_settings(), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise ServerError(f"uv {words[0]} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def pyfunc_python(python: Path | None = None, pins: Sequence[str] = PINS) -> Path:
    """The Python of an environment with ``pins``, made if it is not there yet."""
    base = python or base_python()
    digest = hashlib.sha256("\n".join([str(base), *pins]).encode()).hexdigest()[:16]
    place = CACHE / digest
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{digest}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "complete").exists():
            shutil.rmtree(place, ignore_errors=True)
            uv("venv", "--quiet", "--python", str(base), str(place))
            made = str(place / "bin/python")
            uv("pip", "install", "--quiet", "--compile-bytecode", "--python", made, *pins)
            (place / "complete").touch()
    return place / "bin/python"
