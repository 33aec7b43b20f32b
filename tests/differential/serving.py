# SPDX-License-Identifier: Apache-2.0
"""A trained model on its way to an answer, without a registry and a server: what is made of its
files, read and computed by the code of backend fil.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import config_pbtxt
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import (
    Artifact,
    Numbering,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import (
    FileEntry,
    Manifest,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.flavors.conversion import (
    convert,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.flavors.layouts import (
    layout_of,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.local_model import (  # noqa: E501
    read_local_model,
)

ROOT = Path(__file__).resolve().parents[2]


class TritonModelException(Exception):
    """Stands for the one of Triton's Python backend."""


def _backend() -> Any:
    """Backend fil, with a stand-in for what only a server has."""
    stub: Any = types.ModuleType("triton_python_backend_utils")
    stub.TritonModelException = TritonModelException
    stub.get_model_dir = lambda: ""
    sys.modules["triton_python_backend_utils"] = stub
    path = ROOT / "roles/triton/files/backends/fil/model.py"
    spec = importlib.util.spec_from_file_location("fil_backend", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FIL = _backend()


def convert_logged(folder: Path, flavor: str, entry: dict[str, Any], filename: str) -> Path:
    """The model folder that becomes of FOLDER/FILENAME when a version of an MLflow flavor is
    deployed.
    """
    size = (folder / filename).stat().st_size
    artifact = Artifact({filename: size}, (), {"flavors": {flavor: entry}}, None, _read_nothing)
    layout = layout_of(artifact, None, Numbering("auto", 1, False))
    staged = folder / "staged"
    shutil.rmtree(staged, ignore_errors=True)
    for source, target, _size in layout.files:
        (staged / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / source, staged / target)
    manifest = Manifest.of([FileEntry(target, size, "") for _source, target, _size in layout.files])
    made, _manifest = convert(layout, str(staged), manifest)
    (staged / "config.pbtxt").write_bytes(made.author_config)
    return staged


def _read_nothing(path: str) -> bytes:
    raise AssertionError(f"{path} is read")


def publish(path: Path) -> Path:
    """The model folder that is uploaded for a local one, or for a bare file."""
    model = read_local_model(str(path), "net")
    published = path.parent / "published"
    shutil.rmtree(published, ignore_errors=True)
    for name, piece in model.pieces.items():
        target = published / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if piece.file:
            shutil.copyfile(piece.file, target)
        else:
            target.write_bytes(piece.data)
    return published


def answers(folder: Path, rows: Any) -> Any:
    """What backend fil answers for FP32 rows: a row each, as the configuration says."""
    from google.protobuf import json_format

    message = config_pbtxt.parse((folder / "config.pbtxt").read_bytes())
    config = json.loads(json_format.MessageToJson(message, preserving_proto_field_name=True))
    sys.modules["triton_python_backend_utils"].get_model_dir = lambda: str(folder / "1")  # type: ignore[attr-defined]
    forest = FIL.Forest(config)
    forest.fit(config)
    found = forest.predict(numpy.ascontiguousarray(rows, dtype=numpy.float32))
    return found.reshape(len(rows), -1)
