# SPDX-License-Identifier: Apache-2.0
"""What answers for a model in its own environment, and is served with it. Nothing of it runs here.

- ``stub``: what Triton loads, as ``model.py``: starts the process of the model, passes requests on.
- ``pyfunc_worker``: that process: loads the model with MLflow, and answers.
- ``pyfunc_wire``: what the two say to each other.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from . import pyfunc_wire, pyfunc_worker, stub

STUB = "model.py"
WORKER = "pyfunc_worker.py"
WIRE = "pyfunc_wire.py"
SETTINGS = "pyfunc.json"
MODEL_FOLDER = "model"


def files() -> dict[str, bytes]:
    """The files of a version folder, by their names there. They are read by what imported them,
    because Ansible sends the core as a zip.
    """
    return {STUB: _source(stub), WORKER: _source(pyfunc_worker), WIRE: _source(pyfunc_wire)}


def _source(module: ModuleType) -> bytes:
    loader: Any = module.__loader__
    text: str = loader.get_source(module.__name__)
    return text.encode("utf-8")
