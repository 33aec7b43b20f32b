# SPDX-License-Identifier: Apache-2.0
"""A config.pbtxt for a model that came without one, made of what its file says."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..domain import config_pbtxt
from ..domain.config_pbtxt import ModelConfig
from .onnx import OnnxFile
from .trees import ForestFile

# A FIL batch is bounded by memory alone; this is what the embedded backend completes a
# configuration with.
_FIL_BATCH = 32768
# A configuration is kept in records and sent with each question for it.
_LONGEST_COLUMNS = 1 << 16
Tensor = tuple[str, str, Sequence[int]]
"""Name, type as Triton spells it, sizes."""


def onnx_config(
    model: OnnxFile, filename: str = "model.onnx", columns: Sequence[str] = ()
) -> ModelConfig:
    """A whole configuration where the file says enough, else the least, which Triton completes at
    the load.

    Args:
        columns: the names in the model's signature, which are its only input's where that takes as
            many.
    """
    config = _of_backend("onnxruntime", filename, "model.onnx")
    tensors = [*model.inputs, *model.outputs]
    if not model.inputs or any(
        tensor.data_type is None or tensor.dims is None for tensor in tensors
    ):
        return config
    # max_batch_size stays 0: the shapes are the model's own, its free first dimension takes any
    # batch.
    for side, described in ((config.input, model.inputs), (config.output, model.outputs)):
        for tensor in described:
            add_tensor(side, (tensor.name, str(tensor.data_type), tensor.dims or ()))
    dims = model.inputs[0].dims or ()
    if len(model.inputs) == 1 and len(dims) == 2 and dims[1] in (-1, len(columns)):
        _name_columns(config, columns)
    return config


def forest_config(forest: ForestFile, columns: Sequence[str] = ()) -> ModelConfig:
    """Probabilities for classes, one column each; plain numbers for everything else.

    Args:
        columns: what the model's columns are called, in the order of its features.
    """
    config = _of_backend("fil", "", "")
    config.max_batch_size = _FIL_BATCH
    add_tensor(config.input, ("input__0", "TYPE_FP32", [forest.features]))
    add_tensor(config.output, ("output__0", "TYPE_FP32", [forest.columns]))
    classifies = str(forest.task != "regression").lower()
    for key, value in (
        ("model_type", forest.model_type),
        ("output_class", classifies),
        ("predict_proba", classifies),
    ):
        config.parameters[key].string_value = value
    if forest.task == "binary":
        config.parameters["threshold"].string_value = "0.5"
    config.dynamic_batching.SetInParent()
    if len(columns) == forest.features:
        _name_columns(config, columns)
    return config


def _name_columns(config: ModelConfig, columns: Sequence[str]) -> None:
    """For those who send tables; the backends read their parameters by name, and not this one."""
    text = json.dumps(list(columns))
    if columns and len(text) <= _LONGEST_COLUMNS:
        config.parameters[config_pbtxt.COLUMNS_KEY].string_value = text


def torchscript_config(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> ModelConfig:
    config = _of_backend("pytorch", "", "")
    config.platform = "pytorch_libtorch"
    for side, tensors in ((config.input, inputs), (config.output, outputs)):
        for tensor in tensors:
            add_tensor(side, tensor)
    return config


def bare_config(backend: str) -> ModelConfig:
    """For a file that says nothing of its tensors: they come from the user."""
    config = _of_backend(backend, "", "")
    if backend == "tensorrt":
        config.platform = "tensorrt_plan"
    elif backend == "pytorch":
        config.platform = "pytorch_libtorch"
    return config


def add_tensor(side: ModelConfig, tensor: Tensor) -> None:
    """Add an input or output to a configuration."""
    added = side.add()
    added.name = tensor[0]
    added.data_type = types_of(added).values_by_name[tensor[1]].number
    # Triton has no scalars on the wire: its ONNX backend completes a configuration with [1] for
    # one, and an empty reshape goes with a batch alone.
    added.dims.extend(tensor[2] or (1,))


def types_of(tensor: ModelConfig) -> ModelConfig:
    """The names and numbers of Triton's data types."""
    return tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type


def _of_backend(backend: str, filename: str, default: str) -> ModelConfig:
    config = config_pbtxt.new_message()
    config.backend = backend
    if filename != default:
        config.default_model_filename = filename
    return config
