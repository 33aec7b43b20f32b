# SPDX-License-Identifier: Apache-2.0
"""An interpreter of another minor version than that of the tests. Standard library only."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from .servers import ROOT

# The libraries of pyfunc_environment have wheels for these.
MINORS = (11, 12, 13)
MAKE = """
import sys
sys.path[:0] = sys.argv[1:]
from support.pyfunc_environment import make_environment
print(make_environment())
"""


@functools.cache
def other_python() -> Path | None:
    """The one that OTHER_PYTHON names, or the first that is found; None where there is none."""
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
    other = next((path for path in found if _is_other(path)), None)
    return for_everybody(other) if other else None


def for_everybody(python: Path) -> Path:
    """Root makes environments as nobody, who may not run what lies in root's home: then a copy."""
    ask = "import sys; print(sys.executable); print(sys.prefix)"
    words = [str(python), "-I", "-c", ask]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    executable, prefix = map(Path, said.splitlines())
    way = [*prefix.parents, prefix]
    if os.geteuid() or all(folder.stat().st_mode & 0o005 == 0o005 for folder in way):
        return executable
    copy = ROOT / ".cache/pyfunc/python" / prefix.name
    copied = copy / executable.relative_to(prefix)
    copy.parent.mkdir(parents=True, exist_ok=True)
    with open(copy.parent / f"{prefix.name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not copied.exists():
            unfinished = copy.with_name(f"{prefix.name}.new")
            shutil.rmtree(unfinished, ignore_errors=True)
            unneeded = shutil.ignore_patterns("site-packages", "test", "__pycache__", "*.a")
            shutil.copytree(prefix, unfinished, symlinks=True, ignore=unneeded)
            _find_libraries_beside(unfinished / executable.relative_to(prefix), prefix)
            unfinished.rename(copy)
    return copied


def _find_libraries_beside(program: Path, prefix: Path) -> None:
    """A Python that was built with a shared library looks for it where that was installed."""
    installed, beside = os.fsencode(prefix / "lib") + b"\0", b"$ORIGIN/../lib"
    told = program.read_bytes()
    program.write_bytes(told.replace(installed, beside.ljust(len(installed), b"\0")))


def _is_other(python: Path) -> bool:
    words = [str(python), "-c", "import sys, venv; print(*sys.version_info[:2])"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    own = f"{sys.version_info.major} {sys.version_info.minor}"
    return done.returncode == 0 and done.stdout.strip() != own


def make_other_environment(python: Path) -> Path:
    """The environment of Python models with this interpreter; its Python."""
    words = [str(python), "-c", MAKE, str(ROOT / "tests"), str(ROOT / "tools")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return Path(done.stdout.splitlines()[-1])
