# SPDX-License-Identifier: Apache-2.0
"""Model folders of Triton that hold a model of MLflow with its worker, written by hand."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.mlops.triton.plugins.module_utils._delivery import worker

from . import servers

MODELS = Path(__file__).resolve().parents[1] / "data/pyfunc"
TRITON_TYPES = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "STRING",
    "binary": "STRING",
    "datetime": "STRING",
    "float32": "FP32",
}


def save_models(python: Path, folder: Path) -> str:
    """What tests/data/pyfunc/save.py saves, by the Python of the models; what it printed."""
    return subprocess.run(
        [str(python), "-B", str(MODELS / "save.py"), str(folder)],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def column(name: str, kind: str, **more: Any) -> dict[str, Any]:
    spec = {"name": name, "type": kind, "required": True, "kind": "column", "shape": None}
    return {**spec, "column": name, **more}


def tensor(name: str, kind: str, shape: Sequence[int], **more: Any) -> dict[str, Any]:
    spec = {"name": name, "type": kind, "required": True, "kind": "tensor", "shape": list(shape)}
    return {**spec, **more}


def write_model(
    repository: Path,
    name: str,
    artifact: Path,
    python: Path | str,
    inputs: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
    *,
    instances: int = 1,
    **settings: Any,
) -> Path:
    """The model folder; ``settings`` are further keys of pyfunc.json."""
    folder = repository / name
    version = folder / "1"
    version.mkdir(parents=True)
    for file, content in worker.files().items():
        (version / file).write_bytes(content)
    shutil.copytree(artifact, version / worker.MODEL_FOLDER)
    told = {
        "schema": 1,
        "worker": "1.0",
        "python": str(python),
        "environment": "made-by-hand",
        "form": "tensors",
        "inputs": list(inputs),
        "outputs": list(outputs),
        "batched": True,
        "params": [],
        "independent_rows": True,
        "predict_timeout": 60.0,
        "start_timeout": 60.0,
        **settings,
    }
    (version / worker.SETTINGS).write_text(json.dumps(told))
    (folder / "config.pbtxt").write_text(_config(told, instances))
    return folder


def _config(told: Mapping[str, Any], instances: int) -> str:
    if told["form"] == "json":
        given = 'name: "request" data_type: TYPE_STRING dims: [1]'
        answer = 'name: "response" data_type: TYPE_STRING dims: [1]'
    else:
        given = " }, { ".join(_tensor(each, told["batched"]) for each in told["inputs"])
        answer = " }, { ".join(_tensor(each, told["batched"]) for each in told["outputs"])
    batched = told["batched"] and told["form"] == "tensors"
    lines = [
        'backend: "python"',
        f"max_batch_size: {2**20 if batched else 0}",
        f"input [ {{ {given} }} ]",
        f"output [ {{ {answer} }} ]",
        f"instance_group [ {{ kind: KIND_CPU count: {instances} }} ]",
    ]
    if batched and told["independent_rows"]:
        lines.append("dynamic_batching { max_queue_delay_microseconds: 20000 }")
    return "\n".join(lines) + "\n"


def _tensor(spec: Mapping[str, Any], batched: bool) -> str:
    shape = list(spec["shape"] or [])
    dims = ([1] if spec["kind"] == "column" else shape[1:] or [1]) if batched else shape
    optional = "" if spec["required"] else " optional: true"
    kind = TRITON_TYPES[spec["type"]]
    return f'name: "{spec["name"]}" data_type: TYPE_{kind} dims: {dims}{optional}'


def worker_pids(model: Path) -> list[int]:
    """Processes on this machine that have this model folder's model loaded, or load it."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if str(model).encode() in words and b"-c" in words and servers.is_alive(pid):
                found.append(pid)
    return sorted(found)


def wait_for(what: Callable[[], Any], seconds: float = 60) -> Any:
    """Its first true value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come true within {seconds} s")
