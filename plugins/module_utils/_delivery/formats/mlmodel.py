# SPDX-License-Identifier: Apache-2.0
"""MLflow's description of a Triton model: MLmodel, its signature, an input example, and words for a
reader.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..domain.config_pbtxt import ModelConfig
from ..domain.manifest import Manifest
from ..errors import InvalidOption
from ..libraries import require
from ..outside import JsonDict, JsonObject
from .default_config import Tensor, types_of

EXAMPLE_NAME = "input_example.json"
SERVING_NAME = "serving_input_example.json"
_NUMPY = {
    "TYPE_BOOL": "bool",
    "TYPE_UINT8": "uint8",
    "TYPE_UINT16": "uint16",
    "TYPE_UINT32": "uint32",
    "TYPE_UINT64": "uint64",
    "TYPE_INT8": "int8",
    "TYPE_INT16": "int16",
    "TYPE_INT32": "int32",
    "TYPE_INT64": "int64",
    "TYPE_FP16": "float16",
    "TYPE_FP32": "float32",
    "TYPE_FP64": "float64",
    "TYPE_STRING": "object",
}
_TRITON = {numpy: triton for triton, numpy in _NUMPY.items()} | {
    "str": "TYPE_STRING",
    "string": "TYPE_STRING",
    "bytes": "TYPE_STRING",
}
_MOST_TENSORS = 50


@dataclass(frozen=True)
class Description:
    """What there is to say of a published model."""

    folder: str
    backend: str
    config: ModelConfig
    manifest: Manifest
    content: str
    example: JsonObject | None = None


def render(
    model: Description, mlflow_version: str, model_id: str | None, run_id: str | None
) -> bytes:
    """MLmodel, with what NVIDIA's plugin reads (``data``) and what MLflow's pages show."""
    with require("yaml", "to describe the model for MLflow"):
        import yaml
    flavor = {
        "data": model.folder,
        "backend": model.backend,
        "files": [entry.path for entry in model.manifest.files],
        "digest": model.manifest.digest,
        "content": model.content,
    }
    document: JsonDict = {
        "artifact_path": None,
        "flavors": {"triton": flavor},
        "mlflow_version": mlflow_version,
        "model_id": model_id,
        "model_size_bytes": model.manifest.size,
        "model_uuid": model_id,
        "run_id": run_id,
        "utc_time_created": time.strftime("%Y-%m-%d %H:%M:%S.000000", time.gmtime()),
        "signature": signature_of(model.config),
    }
    if model.example:
        # MLflow 2 and 3 disagree on how an example of type "ndarray" is written.
        document["saved_input_example_info"] = {
            "artifact_path": EXAMPLE_NAME,
            "type": "json_object",
            "serving_input_path": SERVING_NAME,
        }
    return yaml.safe_dump(
        {key: value for key, value in document.items() if value is not None}
    ).encode()


def signature_of(config: ModelConfig) -> JsonDict | None:
    """MLflow's form of a configuration's inputs and outputs; None where MLflow has no word for one
    of them.
    """
    sides = {"inputs": _specs(config, config.input), "outputs": _specs(config, config.output)}
    if not all(sides.values()):
        return None
    return {side: json.dumps(specs) for side, specs in sides.items()} | {"params": None}


def _specs(config: ModelConfig, tensors: ModelConfig) -> list[JsonDict] | None:
    specs = []
    for tensor in tensors:
        dtype = _NUMPY.get(_type_of(tensor))
        if dtype is None:
            return None
        shape = [-1] * bool(config.max_batch_size) + [int(size) for size in tensor.dims]
        specs.append(
            {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}, "name": tensor.name}
        )
    return specs


def _type_of(tensor: ModelConfig) -> str:
    return str(types_of(tensor).values_by_number[tensor.data_type].name)


def tensors_of(mlmodel: Mapping[str, object] | None, side: str) -> list[Tensor] | None:
    """The tensors of a signature, as Triton names their types; None where it has columns, or types
    that Triton does not know.
    """
    signature = (mlmodel or {}).get("signature")
    text = signature.get(side) if isinstance(signature, Mapping) else None
    try:
        specs = json.loads(text) if isinstance(text, str) else []
        found: list[Tensor] = [
            (
                str(spec.get("name") or ""),
                _TRITON[spec["tensor-spec"]["dtype"]],
                [int(size) for size in spec["tensor-spec"]["shape"]],
            )
            for spec in specs
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return found or None


def columns_of(mlmodel: Mapping[str, object] | None) -> tuple[str, ...]:
    """The names of the columns that a signature says a model takes; none where it has tensors, or
    columns without names of their own.
    """
    signature = (mlmodel or {}).get("signature")
    text = signature.get("inputs") if isinstance(signature, Mapping) else None
    try:
        specs = json.loads(text) if isinstance(text, str) else []
        names = [spec.get("name") for spec in specs if spec.get("type") != "tensor"]
    except (ValueError, TypeError, AttributeError, RecursionError):
        return ()
    named = len(names) == len(specs) == len({*map(str, names)})
    return tuple(names) if named and all(isinstance(name, str) for name in names) else ()


def types_in(mlmodel: Mapping[str, object] | None, side: str) -> tuple[str, ...]:
    """The types of a signature's columns, or those of numpy of its tensors, as MLflow writes them;
    none where it has no such side, or one that is none.
    """
    signature = (mlmodel or {}).get("signature")
    text = signature.get(side) if isinstance(signature, Mapping) else None
    try:
        specs = json.loads(text) if isinstance(text, str) else []
        return tuple(
            str(spec["tensor-spec"]["dtype"] if spec["type"] == "tensor" else spec["type"])
            for spec in specs
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()


def check_example(example: Mapping[str, object], config: ModelConfig) -> None:
    """Refuse an example that the model has no tensors for. A configuration without inputs is
    completed by Triton, and not judged.
    """
    names = [tensor.name for tensor in config.input]
    unknown = sorted({*example} - {*names})
    if names and unknown:
        raise InvalidOption(
            f"input_example names the input '{unknown[0]}', and the model has {', '.join(names)}",
            step="read the example",
        )
    optional = {tensor.name for tensor in config.input if tensor.optional}
    absent = [name for name in names if name not in example and name not in optional]
    if absent:
        raise InvalidOption(
            f"input_example does not name the input '{absent[0]}'", step="read the example"
        )


def example_files(example: Mapping[str, object]) -> dict[str, bytes]:
    """The example as MLflow's clients read it, and as a request to a server."""
    return {
        name: (json.dumps(data, sort_keys=True) + "\n").encode()
        for name, data in ((EXAMPLE_NAME, dict(example)), (SERVING_NAME, {"inputs": dict(example)}))
    }


def example_id(example: Mapping[str, object]) -> str:
    return hashlib.sha256(example_files(example)[SERVING_NAME]).hexdigest()[:16]


def in_words(model: Description) -> str:
    """A description in Markdown, for a version whose publisher gave none."""
    count = len(model.manifest.files)
    backend = f" for backend **{model.backend}**" if model.backend else ""
    lines = [
        (
            f"Triton model `{model.folder}`{backend}: {count} file{'s' * (count != 1)},"
            f" {_amount(model.manifest.size)}."
        )
    ]
    rows = [
        *_rows("input", model.config, model.config.input),
        *_rows("output", model.config, model.config.output),
    ]
    if rows and len(rows) <= _MOST_TENSORS:
        lines += ["", "| | tensor | type | shape |", "|---|---|---|---|", *rows]
    return "\n".join(lines)


def _rows(side: str, config: ModelConfig, tensors: ModelConfig) -> Iterable[str]:
    for tensor in tensors:
        shape = ["batch"] * bool(config.max_batch_size) + [
            str(size) if size >= 0 else "any" for size in tensor.dims
        ]
        yield (
            f"| {side} | `{tensor.name}` | {_type_of(tensor).removeprefix('TYPE_')} |"
            f" {', '.join(shape)} |"
        )


def _amount(size: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"
