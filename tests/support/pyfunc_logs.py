# SPDX-License-Identifier: Apache-2.0
"""Has models of ``logged_models`` logged, and asks Triton what MLflow was asked."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import pandas
import pip_settings
import tritonclient.http as triton_http

from .logged_models import values
from .servers import ROOT, server_python

Logged = dict[str, list[dict[str, Any]]]
Cells = tuple[str, list[Any]]
# The tensor of a column of a signature, and how its cells are held.
COLUMNS = {
    "boolean": ("BOOL", numpy.bool_),
    "integer": ("INT32", numpy.int32),
    "long": ("INT64", numpy.int64),
    "float": ("FP32", numpy.float32),
    "double": ("FP64", numpy.float64),
    "string": ("BYTES", numpy.object_),
    "datetime": ("BYTES", numpy.object_),
}
TENSORS = {"bool": "BOOL", "float32": "FP32", "float64": "FP64", "int64": "INT64"}


def log_models(python: Path, folder: Path, tracking_uri: str, names: Iterable[str]) -> Logged:
    """Train and register models with this Python; the versions of each, with the answers that
    MLflow gives there.
    """
    wanted = list(names)
    # It finds the programs of the tests, and neither the collection nor servers of anybody else.
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "PYTHON"))
    }
    done = subprocess.run(
        [
            *(str(python), "-m", "support.logged_models.log"),
            *(str(folder), tracking_uri, *wanted),
        ],
        env={**kept, "PYTHONPATH": str(ROOT / "tests"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: json.loads((folder / f"{name}.json").read_text("utf-8")) for name in wanted}


def variables_with_uv(folder: Path) -> dict[str, str]:
    """Of a process that finds uv, and none of the Pythons beside it; packages are looked for as pip
    looks here.
    """
    link = folder / "programs/uv"
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(server_python("UV_PYTHON_OF_TESTS", "uv").with_name("uv"))
    told = pip_settings.for_uv(pip_settings.read(), os.environ)
    kept = ("UV_INDEX_STRATEGY", "SSL_CERT_FILE", "ALL_PROXY")
    path = f"{link.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {"PATH": path, **{name: told[name] for name in kept if name in told}}


def environment_options(folder: Path, pythons: Sequence[Path] = ()) -> dict[str, Any]:
    """Option ``environments``: one folder for all models, and the package index of this machine."""
    told = pip_settings.read()
    options: dict[str, Any] = {"folder": str(folder), "pythons": [str(path) for path in pythons]}
    if index := told.get("index-url"):
        options["index_url"] = index
    for option, name in (("extra_index_urls", "extra-index-url"), ("find_links", "find-links")):
        if told.get(name):
            options[option] = told[name].split()
    if pip_settings.is_on(told.get("no-index", "")):
        options["no_index"] = True
    return options


def ask_tensors(
    url: str, name: str, version: Mapping[str, Any], request: Mapping[str, Any]
) -> list[Cells]:
    """Triton's answer to the signature's tensors, in the order of its configuration, as types and
    cells.
    """
    with triton_http.InferenceServerClient(url, network_timeout=120) as client:
        config = client.get_model_config(name)
        names = [one["name"] for one in config["input"]]
        inputs = _inputs(names, version["inputs"], values.read(request["inputs"]))
        params = {
            # A list, and a number that is no whole one, is text in Triton's parameters.
            key: json.dumps(value) if isinstance(value, (list, float)) else value
            for key, value in (request["params"] or {}).items()
        }
        answer = client.infer(name, inputs, parameters=params or None)
        response = answer.get_response()
        return [
            (one["datatype"], _cells(answer.as_numpy(one["name"])))
            for wanted in config["output"]
            for one in response["outputs"]
            if one["name"] == wanted["name"]
        ]


def _inputs(names: Sequence[str], signature: Sequence[Mapping[str, Any]], asked: Any) -> list[Any]:
    made = []
    for position, spec in enumerate(signature):
        # Who names no tensor is given a name by the server's configuration.
        name = spec.get("name") or names[position]
        if spec["type"] == "tensor":
            array = asked[spec["name"]] if isinstance(asked, dict) else asked
            # What has one dimension has another of 1 in a batch.
            array = array.reshape(-1, 1) if array.ndim == 1 else array
            made.append(_input(name, TENSORS[spec["tensor-spec"]["dtype"]], array))
        elif name in asked:
            datatype, dtype = COLUMNS[spec["type"]]
            column = asked[name]
            if spec["type"] == "datetime":
                column = column.map(lambda moment: moment.isoformat())
            made.append(_input(name, datatype, column.to_numpy(dtype).reshape(-1, 1)))
    return made


def _input(name: str, datatype: str, array: Any) -> Any:
    made = triton_http.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def _cells(array: Any) -> list[Any]:
    cells = array.reshape(-1).tolist()
    return [one.decode() if isinstance(one, bytes) else values.write(one) for one in cells]


def expected_tensors(version: Mapping[str, Any], request: Mapping[str, Any]) -> list[Cells]:
    """What MLflow answered, as tensors of the signature's outputs."""
    answer = request["answer"]
    found = []
    for spec in version["outputs"]:
        array = _part(answer, spec.get("name"))
        if spec["type"] == "tensor":
            dtype = spec["tensor-spec"]["dtype"]
            datatype = "BYTES" if dtype == "str" else TENSORS[dtype]
        else:
            datatype = COLUMNS[spec["type"]][0]
        cells = [one["time"] if isinstance(one, dict) and "time" in one else one for one in array]
        found.append((datatype, cells))
    return found


def _part(answer: Mapping[str, Any], name: str | None) -> list[Any]:
    if "frame" in answer:
        return list(dict(answer["frame"])[name]["values"])
    if "dict" in answer:
        return _part(dict(answer["dict"])[name], None)
    if "list" in answer:
        return list(answer["list"])
    return list((answer.get("series") or answer["array"])["values"])


def ask_document(url: str, name: str, text: str) -> Any:
    """The answer to a document as MLflow's scoring server takes it."""
    with triton_http.InferenceServerClient(url, network_timeout=120) as client:
        request = _input("request", "BYTES", numpy.array([text], dtype=numpy.object_))
        answer = client.infer(name, [request])
        return json.loads(answer.as_numpy("response").item())


def same_moments(cells: list[Any]) -> list[Any]:
    """ISO 8601 has several texts for one moment."""
    return [str(pandas.Timestamp(cell)) for cell in cells]
