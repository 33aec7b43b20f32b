# SPDX-License-Identifier: Apache-2.0
"""Models that MLflow's pyfunc runs, in this process: what MLflow's schema enforcement lets through
to the model; and what a served configuration says of one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

TENSORS = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "STRING",
    "binary": "STRING",
    "datetime": "STRING",
}


def column(name: str, kind: str, required: bool = True, **more: Any) -> dict[str, Any]:
    """A column as ``pyfunc.json`` has it."""
    return {
        "name": name,
        "type": kind,
        "required": required,
        "kind": "column",
        "shape": None,
        **more,
    }


def tensor(name: str, kind: str, shape: Sequence[int], **more: Any) -> dict[str, Any]:
    return {**column(name, kind, **more), "kind": "tensor", "shape": [*shape]}


def settings(
    inputs: Sequence[Mapping[str, Any]] = (),
    outputs: Sequence[Mapping[str, Any]] = (),
    params: Sequence[Mapping[str, Any]] = (),
    form: str = "tensors",
) -> str:
    """The value of the parameter that says how pyfunc is asked."""
    found = {"form": form, "inputs": [*inputs], "outputs": [*outputs], "params": [*params]}
    return json.dumps(found, separators=(",", ":"))


def served_config(text: str) -> dict[str, Any]:
    """A configuration as Triton shows it, whose parameter is ``text``."""
    document = json.loads(text)
    parameters = {"mlops_triton_pyfunc": {"string_value": text}}
    if document["form"] == "json":
        return {
            "max_batch_size": 0,
            "input": [{"name": "request", "data_type": "TYPE_STRING", "dims": ["1"]}],
            "output": [{"name": "response", "data_type": "TYPE_STRING", "dims": ["1"]}],
            "parameters": parameters,
        }
    return {
        "max_batch_size": 1 << 20,
        "input": [_tensor(one, True) for one in document["inputs"]],
        "output": [_tensor(one, False) for one in document["outputs"]],
        "parameters": parameters,
    }


def _tensor(field: Mapping[str, Any], is_input: bool) -> dict[str, Any]:
    import numpy
    from tritonclient.utils import np_to_triton_dtype

    kind = TENSORS.get(field["type"])
    if field["kind"] == "tensor":
        kind = np_to_triton_dtype(numpy.dtype(field["type"]))
        kind = "STRING" if kind == "BYTES" else kind
    dims = [str(size) for size in (field["shape"] or [-1])[1:]] or ["1"]
    optional = is_input and not field["required"]
    return {
        "name": field["name"],
        "data_type": f"TYPE_{kind}",
        "dims": dims,
        **({"optional": True} if optional else {}),
    }


def pbtxt(name: str, config: Mapping[str, Any]) -> str:
    """The same as a config.pbtxt of the Python backend."""
    lines = [f'name: "{name}"', 'backend: "python"', f"max_batch_size: {config['max_batch_size']}"]
    for kind in ("input", "output"):
        for one in config[kind]:
            optional = " optional: true" if one.get("optional") else ""
            lines.append(
                f"{kind} [{{ name: {json.dumps(one['name'])} data_type: {one['data_type']}"
                f" dims: [{', '.join(one['dims'])}]{optional} }}]"
            )
    for key, value in config["parameters"].items():
        text = json.dumps(value["string_value"], ensure_ascii=True)
        lines.append(f'parameters {{ key: "{key}" value {{ string_value: {text} }} }}')
    return "\n".join([*lines, "instance_group [{ kind: KIND_CPU count: 1 }]", ""])


def seen_by_pyfunc(
    values: Any, inputs: Sequence[Mapping[str, Any]], params: Any = None, declared: Any = None
) -> Any:
    """What a model gets when MLflow's pyfunc is asked; raises MLflow's own exception."""
    import numpy
    from mlflow.models import Model
    from mlflow.models.signature import ModelSignature
    from mlflow.pyfunc import PyFuncModel
    from mlflow.types.schema import ColSpec, Schema, TensorSpec

    specs: list[Any] = [
        TensorSpec(numpy.dtype(one["type"]), one["shape"], one["name"])
        if one["kind"] == "tensor"
        else ColSpec(one["type"], one["name"], one["required"])
        for one in inputs
    ]
    seen: list[Any] = []

    class Impl:
        def predict(self, model_input: Any, params: Any = None) -> Any:
            seen.append(model_input)
            return model_input

    metadata = Model(
        signature=ModelSignature(inputs=Schema(specs), params=declared),
        flavors={"python_function": {"loader_module": "here"}},
    )
    PyFuncModel(model_meta=metadata, model_impl=Impl()).predict(values, params=params)
    return seen[0]


def seen_by_worker(arrays: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]]) -> Any:
    """The DataFrame that a worker makes of a request's tensors."""
    import numpy
    import pandas

    columns = {}
    for one in inputs:
        if one["name"] not in arrays:
            continue
        values = arrays[one["name"]][1][:, 0]
        if one["type"] == "string":
            values = [text.decode() for text in values]
        elif one["type"] == "datetime":
            values = numpy.array([text.decode() for text in values], dtype="datetime64[ns]")
        columns[one["name"]] = values
    return pandas.DataFrame(columns)


def scored(text: bytes, inputs: Sequence[Mapping[str, Any]]) -> Any:
    """The DataFrame that MLflow's scoring server makes of a document."""
    import mlflow.pyfunc.scoring_server as server
    from mlflow.types.schema import ColSpec, Schema

    document = json.loads(text)
    schema = Schema([ColSpec(one["type"], one["name"], one["required"]) for one in inputs])
    data = {key: value for key, value in document.items() if key != "params"}
    return server.infer_and_parse_data(data, schema)


def in_base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
