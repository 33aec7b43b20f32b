# SPDX-License-Identifier: Apache-2.0
"""Small wheels of packages that nobody published, for environments that are made without an index.

``mlflow_skinny``, ``pandas`` and ``numpy`` among them are empty modules of these names: enough for
what proves an environment.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.servers import ROOT

UV = ROOT / ".venv/uv/bin"
_MODULES = {"mlflow-skinny": "mlflow/pyfunc", "mlflow": "mlflow/pyfunc"}


def wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    needs: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
    tag: str = "py3-none-any",
) -> Path:
    """Make one; ``files`` are those of it, else an empty module of its name."""
    module = _MODULES.get(name, name.replace("-", "_"))
    listed = dict(files if files is not None else {f"{module}/__init__.py": "X = 1\n"})
    if "/" in module and files is None:
        listed[f"{module.partition('/')[0]}/__init__.py"] = ""
    stem = name.replace("-", "_")
    info = f"{stem}-{version}.dist-info"
    listed[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (
        "".join(f"Requires-Dist: {one}\n" for one in needs)
    )
    listed[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n"
    )
    listed[f"{info}/RECORD"] = "".join(f"{one},,\n" for one in [*listed, f"{info}/RECORD"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in listed.items():
            # With a fixed date: the same wheel has the same hash each time.
            archive.writestr(zipfile.ZipInfo(inside, (2026, 1, 1, 0, 0, 0)), text)
    return path


def source_distribution(folder: Path, name: str, version: str, backend: str) -> Path:
    """Make a package without a wheel, which builds itself by the program ``backend``."""
    stem = f"{name}-{version}"
    project = '[build-system]\nrequires=[]\nbuild-backend="backend"\nbackend-path=["."]\n'
    files = {
        "pyproject.toml": f'{project}[project]\nname="{name}"\nversion="{version}"\n',
        "backend.py": backend,
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for inside, text in files.items():
            entry = tarfile.TarInfo(f"{stem}/{inside}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


def basic(folder: Path) -> Path:
    """What every environment needs, and one package that a model might ask for."""
    for name in ("mlflow-skinny", "numpy"):
        wheel(folder, name)
    wheel(folder, "pandas", needs=("numpy",))
    wheel(folder, "solver", "1.0")
    wheel(folder, "solver", "2.0")
    return folder


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def python_for_all(minor: str, folder: Path) -> str | None:
    """A Python of this version that any user may run: one of the system, else a copy of pyenv's
    that lies in ``folder``, which others may enter; None where there is none.
    """
    system = Path(f"/usr/bin/python{minor}")
    if system.exists():
        return str(system)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for found in sorted((pyenv / "versions").glob(f"{minor}.*"), reverse=True):
        copy = folder / found.name
        if not copy.exists():
            unneeded = shutil.ignore_patterns(
                "test", "__pycache__", "idlelib", "*.a", "site-packages"
            )
            half = Path(tempfile.mkdtemp(dir=folder))
            shutil.copytree(found, half / "python", symlinks=True, ignore=unneeded)
            # Its library is looked for where it was built, which others may not enter.
            program = half / "python/bin" / f"python{minor}"
            built, here = os.fsencode(found / "lib") + b"\0", b"$ORIGIN/../lib\0"
            program.write_bytes(program.read_bytes().replace(built, here.ljust(len(built), b"\0")))
            (half / "python").rename(copy)
            half.rmdir()
        python = copy / "bin" / f"python{minor}"
        subprocess.run([python, "-c", "import ssl"], check=True)
        return str(python)
    return None
