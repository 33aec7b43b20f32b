# SPDX-License-Identifier: Apache-2.0
"""The folder of backends of the server from PyPI: Triton's Python backend with the stub of this
interpreter, and the backends that this collection brings.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from _delivery.disk import make_folder, replace, set_permissions, write_file

from .failures import StartError
from .installation import Installation, find_installation, stub_of_this_python
from .settings import Settings

LEFTOVER_SECONDS = 600
NO_BYTECODE_NAME = "mlops_triton_no_bytecode.pth"
# Python would write __pycache__ into the model's folder, and Triton takes any new file there for a
# changed model: the next load, which should do nothing, would initialise it again. The stub runs
# Python isolated, so that environment variables do not reach it; what the environment's
# site-packages say does.
NO_BYTECODE = (
    b"import sys; sys.dont_write_bytecode = sys.dont_write_bytecode or bool(sys.flags.isolated)\n"
)


def default_backend_sources() -> Path:
    """``backends`` beside the folder, or beside the zip, of this program."""
    place = Path(__file__).resolve().parents[1]
    return (place if place.is_dir() else place.parent) / "backends"


def prepare_backends(settings: Settings) -> bool:
    """Fill the backend folder, and keep Python from writing into the repository; returns whether
    anything was written.

    File by file, each replaced atomically and only when it differs: a run that was interrupted is
    completed by the next, and a server that is using the folder never sees it without a file.
    """
    found = find_installation()
    changed = False
    for data, destination, mode in _wanted_files(settings, found):
        changed = _replace_file(data, destination, mode) or changed
    if not os.access(str(found.server), os.X_OK):
        os.chmod(str(found.server), 0o755)
        changed = True
    return changed


def _wanted_files(settings: Settings, found: Installation) -> list[tuple[bytes, Path, int]]:
    """Bytes, place and mode of each file."""
    target = Path(settings.backend_directory or "")
    sources = (
        Path(settings.backend_sources) if settings.backend_sources else default_backend_sources()
    )
    wanted = [
        (path.read_bytes(), target / "python" / path.name, 0o644)
        for path in sorted((found.backends / "python").iterdir())
        if path.is_file()
    ]
    stub = stub_of_this_python(found)
    wanted.append((stub.read_bytes(), target / "python" / stub.name, 0o755))
    models = sorted(sources.glob("*/model.py"))
    if not models:
        raise StartError(f"{sources} holds no backend (onnxruntime/model.py, fil/model.py).")
    for model in models:
        for path in sorted(model.parent.glob("*.py")):
            wanted.append((path.read_bytes(), target / model.parent.name / path.name, 0o644))
    wanted.append((NO_BYTECODE, found.libraries.parent / NO_BYTECODE_NAME, 0o644))
    return wanted


def _replace_file(data: bytes, destination: Path, mode: int) -> bool:
    if (
        destination.is_file()
        and destination.stat().st_size == len(data)
        and destination.read_bytes() == data
    ):
        if destination.stat().st_mode & 0o777 == mode:
            return False
        set_permissions(str(destination), -1, -1, mode)
        return True
    # Not made with the umask of whoever calls: the server runs as another user.
    make_folder(str(destination.parent))
    for left in destination.parent.glob(f".{destination.name}.*.new"):
        # A young one may be that of another server which starts from the same environment now.
        if time.time() - left.stat().st_mtime > LEFTOVER_SECONDS:
            left.unlink()
    temporary = destination.parent / f".{destination.name}.{os.getpid()}.new"
    write_file(str(temporary), data, mode)
    replace(str(temporary), str(destination))
    return True
