# SPDX-License-Identifier: Apache-2.0
"""What a server says, checked for its shape before anything is read of it: a server may be broken,
hostile, or no Triton at all.

Each function raises WrongShape, and leaves out nothing that the server said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..domain.fields import Fields, WrongShape, whole
from ..domain.served import VersionRow
from .transport import JsonObject


def read_index(answer: object) -> dict[str, tuple[VersionRow, ...]]:
    """Rows of the repository index by model name."""
    rows: dict[str, tuple[VersionRow, ...]] = {}
    for number, one in enumerate(_list(answer, "the index"), 1):
        row = Fields(one, f"row {number} of the index: ")
        version = row.text_or("version", "")
        entry = VersionRow(
            whole(version, f"{row.where}version") if version else None,
            row.text_or("state", ""),
            row.text_or("reason", ""),
        )
        name = row.text("name")
        rows[name] = (*rows.get(name, ()), entry)
    return rows


def read_config(answer: object) -> JsonObject:
    """A configuration, of which what this collection reads is as Triton has it."""
    config = Fields(answer, "the configuration: ")
    if "max_batch_size" in config.data:
        whole(config.data["max_batch_size"], f"{config.where}max_batch_size")
    for side in ("input", "output"):
        for one in config.objects(side):
            _check_tensor(one, "data_type", "dims")
    for key in ("model_transaction_policy", "sequence_batching", "ensemble_scheduling"):
        if config.data.get(key) is not None:
            config.mapping(key)
    for control_input in config.inner("sequence_batching").objects("control_input"):
        for control in control_input.objects("control"):
            control.text_or("kind", "")
            control.text_or("data_type", "")
    for step in config.inner("ensemble_scheduling").objects("step"):
        step.text("model_name")
    parameters = config.inner("parameters")
    for key in parameters.data:
        parameters.inner(key).text_or("string_value", "")
    _refuse_deep(config.data)
    return config.data


def deploy_id_of_answer(config: JsonObject) -> str | None:
    """In a configuration that ``read_config`` made."""
    block = (config.get("parameters") or {}).get("mlops_triton_deploy_id") or {}
    found = block.get("string_value")
    return found if isinstance(found, str) else None


def read_metadata(answer: object) -> JsonObject:
    """A model's metadata."""
    metadata = Fields(answer, "the metadata: ")
    for side in ("inputs", "outputs"):
        for one in metadata.objects(side):
            _check_tensor(one, "datatype", "shape")
    if metadata.data.get("versions") is not None:
        for version in metadata.texts("versions"):
            whole(version, f"{metadata.where}a version")
    return metadata.data


def read_release(answer: object) -> str:
    return Fields(answer, "the server's metadata: ").text_or("version", "")


def read_identity(answer: object) -> tuple[str, tuple[str, ...]]:
    """What a server calls itself, and what it can do: name and version, and its extensions."""
    said = Fields(answer, "the server's metadata: ")
    name = f"{said.text_or('name', '')} {said.text_or('version', '')}"
    return name, tuple(sorted(said.texts("extensions")))


def read_statistics(answer: object) -> dict[tuple[str, str], tuple[int, int, int]]:
    """Numbers that only grow while a version is loaded, by name and version."""
    found = {}
    for one in Fields(answer, "the statistics: ").objects("model_stats"):
        numbers = (
            whole(one.data.get(key) or 0, f"{one.where}{key}")
            for key in ("inference_count", "execution_count", "last_inference")
        )
        first, second, third = numbers
        found[one.text("name"), one.text_or("version", "")] = (first, second, third)
    return found


def _check_tensor(tensor: Fields, kind: str, shape: str) -> None:
    tensor.text("name")
    tensor.text_or(kind, "")
    for size in tensor.each(shape) if tensor.data.get(shape) is not None else ():
        whole(size, f"{tensor.where}a number of {shape}")


def _list(found: object, where: str) -> list[Any]:
    if not isinstance(found, (list, tuple)):
        raise WrongShape(f"{where} is not a list")
    return list(found)


def _refuse_deep(config: Mapping[str, object]) -> None:
    """What lies too deep for a digest to be made of it."""
    try:
        json.dumps(config)
    except (RecursionError, ValueError, TypeError) as error:
        raise WrongShape(f"the configuration cannot be written as JSON ({error})") from error
