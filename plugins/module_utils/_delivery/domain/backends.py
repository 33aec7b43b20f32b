# SPDX-License-Identifier: Apache-2.0
"""Which backend Triton runs a model with, and which file each version needs for it, as its
configuration and its files tell; pure. The start wrapper reads this without protobuf.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from . import config_pbtxt
from .config_pbtxt import ModelConfig
from .pbtxt import Fields

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

# What Triton's FIL backend calls a format → the file that it looks for.
FIL_FILES = {
    "xgboost": "xgboost.model",
    "xgboost_json": "xgboost.json",
    "xgboost_ubj": "xgboost.ubj",
    "lightgbm": "model.txt",
    "treelite_checkpoint": "checkpoint.tl",
}
# The files of which each version needs one, where no default_model_filename names it. A backend
# that is not here may need none: TensorRT-LLM keeps its engines elsewhere. Several where releases
# differ, or where a backend makes one of the other (DALI).
_NEEDED: dict[str, tuple[str, ...]] = {
    "python": ("model.py",),
    "onnxruntime": ("model.onnx",),
    "tensorrt": ("model.plan",),
    "pytorch": ("model.pt", "model.pt2", "model.py"),
    "tensorflow": ("model.savedmodel", "model.graphdef"),
    "openvino": ("model.xml", "model.onnx", "model.pdmodel", "model.pb", "model.tflite"),
    "dali": ("model.dali", "dali.py"),
    "vllm": ("model.json",),
}
_NEEDED_BY_PLATFORM = {
    "tensorflow_savedmodel": ("model.savedmodel",),
    "tensorflow_graphdef": ("model.graphdef",),
}
# The parameter that names a Python environment, for the Python backend and others that are written
# in Python.
ENVIRONMENT_KEY = "EXECUTION_ENV_PATH"
STUB = "triton_python_backend_stub"
# Backends that are libraries on every server. Those of ONNX and of forests are written in Python on
# servers that come from PyPI, and some releases run a model.py of PyTorch in Python.
LIBRARIES = frozenset({"tensorrt", "tensorflow", "openvino", "dali"})
# They look for their own name alone, whatever the configuration calls the file.
_FIXED = frozenset({"vllm"})
# They choose a file by the GPU, where cc_model_filenames names one for it.
_BY_GPU = frozenset({"tensorrt", "onnxruntime", "pytorch", "tensorflow"})


@dataclass(frozen=True)
class Loading:
    """What of a configuration decides which files Triton reads.

    Attributes:
        backend: "" where the configuration names none.
        filename: ``default_model_filename``, or "".
        by_gpu: the files in ``cc_model_filenames``.
        latest, specific: of ``version_policy``: how many of the highest version folders, or which;
            both None where all are loaded.
    """

    backend: str
    platform: str
    filename: str = ""
    by_gpu: tuple[str, ...] = ()
    model_type: str = ""
    latest: int | None = 1
    specific: tuple[int, ...] | None = None

    @classmethod
    def of(cls, config: ModelConfig) -> Loading:
        """As the message of a configuration says."""
        policy = config.version_policy.WhichOneof("policy_choice")
        model_type = (
            config.parameters["model_type"].string_value
            if "model_type" in config.parameters
            else ""
        )
        return cls(
            config.backend or PLATFORMS.get(config.platform, ""),
            config.platform,
            config.default_model_filename,
            tuple(config.cc_model_filenames.values()),
            model_type,
            config.version_policy.latest.num_versions
            if policy == "latest"
            else None
            if policy
            else 1,
            tuple(config.version_policy.specific.versions) if policy == "specific" else None,
        )

    @classmethod
    def read(cls, fields: Fields) -> Loading:
        """As the text of a configuration says, where only the Python backend is asked for.

        Raises:
            ValueError: a number that is none.
        """
        policy = _block(fields, "version_policy")
        choice = next(iter(policy), None)
        specific = [str(one) for one in _block(policy, "specific").get("versions", ())]
        return cls(
            _text(fields, "backend"),
            _text(fields, "platform"),
            _text(fields, "default_model_filename"),
            latest=int(_text(_block(policy, "latest"), "num_versions") or "0", 0)
            if choice == "latest"
            else None
            if choice
            else 1,
            specific=tuple(int(one, 0) for one in specific) if choice == "specific" else None,
        )

    def versions(self, present: Collection[int]) -> tuple[int, ...]:
        """The version folders that Triton loads of those that are there, lowest first."""
        ordered = sorted(present)
        if self.specific is not None:
            return tuple(version for version in ordered if version in self.specific)
        return tuple(
            ordered if self.latest is None else ordered[-self.latest :] if self.latest else ()
        )

    @property
    def needed(self) -> tuple[str, ...]:
        """The files of which each version needs one; empty where that is not known."""
        usual = _NEEDED_BY_PLATFORM.get(self.platform) or _NEEDED.get(self.backend, ())
        if self.backend == "fil":
            usual = (FIL_FILES.get(self.model_type or "xgboost", ""),)
        if not any(usual) or self.backend in _FIXED:
            return tuple(name for name in usual if name)
        own = (self.filename,) if self.filename else usual
        if self.backend == "dali":  # makes a model of it where there is none
            own = tuple(dict.fromkeys((*own, "dali.py")))
        return (*own, *(self.by_gpu if self.backend in _BY_GPU else ()))

    def lacking(self, present: Collection[int], paths: Collection[str]) -> int | None:
        """The first version that Triton would load and that has none of the files it needs.

        Args:
            present: numbers of the version folders.
            paths: files of the model folder, and folders without a file.
        """
        if not self.needed:
            return None
        for version in self.versions(present):
            wanted = [posixpath.normpath(f"{version}/{name}") for name in self.needed]
            if not any(
                path == one or path.startswith(f"{one}/") for path in paths for one in wanted
            ):
                return version
        return None


def _block(fields: Fields, name: str) -> Fields:
    values = fields.get(name, ())
    return next((value for value in values if isinstance(value, dict)), {})


def _text(fields: Fields, name: str) -> str:
    values = fields.get(name, ())
    return next((value for value in values if isinstance(value, str)), "")


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


def completes(program: bytes) -> bool:
    """True where a program for the Python backend may add to its configuration at the load."""
    return b"auto_complete_config" in program
