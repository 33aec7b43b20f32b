# SPDX-License-Identifier: Apache-2.0
"""Which backend Triton runs a model with, as its configuration and its files tell; pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from . import config_pbtxt
from .config_pbtxt import ModelConfig

PLATFORMS = {
    "onnxruntime_onnx": "onnxruntime",
    "tensorrt_plan": "tensorrt",
    "pytorch_libtorch": "pytorch",
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
}
# From these names Triton tells a backend that no configuration names.
FILES = {
    "model.onnx": "onnxruntime",
    "model.plan": "tensorrt",
    "model.pt": "pytorch",
    "model.py": "python",
    "model.savedmodel": "tensorflow",
    "model.graphdef": "tensorflow",
    "model.xml": "openvino",
}


def backends_of(config: ModelConfig, paths: Iterable[str]) -> tuple[str, ...]:
    """The names of Triton's backends that may run a model: one where its configuration says so, and
    none where nothing tells it.

    Args:
        config: the message of config.pbtxt.
        paths: files of the model folder.
    """
    named = [
        *(["ensemble"] if config_pbtxt.is_ensemble(config) else []),
        config.backend,
        "" if config.backend else PLATFORMS.get(config.platform, config.platform),
    ]
    told = tuple(dict.fromkeys(name for name in named if name))
    names = {part for path in paths for part in path.split("/")[1:]}
    return told or tuple(dict.fromkeys(backend for file, backend in FILES.items() if file in names))


def code_in(config: ModelConfig, paths: Iterable[str]) -> str | None:
    """What a model makes Triton run beside its backend's own library, in words; None where there is
    no such thing.

    Triton looks for a backend's library in the model's folders before its own.
    """
    if config.runtime:
        return f"its configuration names the runtime '{config.runtime}'"
    if config.model_operations.op_library_filename:
        return (
            f"its configuration loads the library {config.model_operations.op_library_filename[0]}"
        )
    library = next(
        (path for path in paths if posixpath.basename(path).startswith("libtriton_")), None
    )
    return f"it brings the library {library}" if library else None
