# SPDX-License-Identifier: Apache-2.0
"""Layouts for what MLflow's own flavors store. What only the files tell is added when they are
here, by ``flavors.conversion``.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..domain import config_pbtxt
from ..domain.layout import (
    EXAMPLES,
    MLFLOW_FILES,
    MLFLOW_FOLDERS,
    STEP,
    Artifact,
    Layout,
    Numbering,
    named_file,
)
from ..errors import ArtifactError
from ..formats.default_config import bare_config, torchscript_config
from ..formats.mlmodel import tensors_of
from ..outside import JsonObject

# Advice is what tests/integration/test_matrix.py has tried: a tool that is not there is not named.
_INSTEAD = {
    "catboost": (
        "save it with save_model('model.onnx', format='onnx'), take the node ZipMap of a classifier"
        " out and make its input the output, and publish that"
    ),
}
_PYFUNC = "python_function"
# Python-based backends hand a file's name on in a command line, which a space splits: the load then
# hangs, and its name with it.
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def why_not(names: Sequence[str]) -> ArtifactError:
    """Why none of an artifact's flavors can be served, and what would work."""
    others = [name for name in names if name != _PYFUNC] or [_PYFUNC]
    if others == [_PYFUNC]:
        advice = (
            "it is Python code that only MLflow can run: publish a Triton model folder with a"
            " model.py"
        )
    else:
        advice = next(
            (_INSTEAD[name] for name in others if name in _INSTEAD),
            "publish it as ONNX, or a Triton model folder with a model.py that computes it",
        )
    return ArtifactError(f"its flavor {', '.join(others)} cannot be served: {advice}", step=STEP)


def _entry(artifact: Artifact, flavor: str) -> JsonObject:
    entry = (artifact.mlmodel or {}).get("flavors", {}).get(flavor)
    return entry if isinstance(entry, Mapping) else {}


def _onnx(artifact: Artifact, numbering: Numbering) -> Layout:
    model = named_file(
        artifact, "onnx", _entry(artifact, "onnx").get("data"), (".onnx",), ".onnx file"
    )
    version, base = numbering.version(), posixpath.dirname(model)
    beside = posixpath.join(base, config_pbtxt.CONFIG_NAME)
    given = beside in artifact.files
    name = posixpath.basename(model)
    if not given and not _SAFE_NAME.fullmatch(name):
        name = "model.onnx"
    files = []
    for path, size in sorted(artifact.files.items()):
        relative = posixpath.relpath(path, base) if base else path
        if _belongs_to_onnx(path, relative, model):
            target = name if path == model else relative
            labels = path.endswith(".txt")
            files.append((path, target if labels else f"{version}/{target}", size))
    config = (
        artifact.read(beside)
        if given
        else (f'backend: "onnxruntime"\ndefault_model_filename: "{name}"\n'.encode())
    )
    config_pbtxt.parse(config)
    return Layout(
        "onnx", tuple(files), (), config, (version,), (1,), conversion=None if given else "onnx"
    )


def _belongs_to_onnx(path: str, relative: str, model: str) -> bool:
    """The model, its external data (whose names MLflow draws at random), and label files."""
    if path == model:
        return True
    if (
        relative.startswith(("..", *EXAMPLES))
        or relative in MLFLOW_FILES
        or path.endswith((".pbtxt", ".onnx"))
    ):
        return False
    return relative.split("/")[0] not in MLFLOW_FOLDERS


def _trees(
    flavor: str, keys: tuple[str, ...], endings: tuple[str, ...]
) -> Callable[[Artifact, Numbering], Layout]:
    def make(artifact: Artifact, numbering: Numbering) -> Layout:
        entry = _entry(artifact, flavor)
        named = next((entry[key] for key in keys if key in entry), None)
        return _one_file(
            artifact,
            numbering,
            flavor,
            named_file(artifact, flavor, named, endings, f"file of a {flavor} model"),
        )

    return make


def _one_file(artifact: Artifact, numbering: Numbering, flavor: str, path: str) -> Layout:
    version, model_class = numbering.version(), _entry(artifact, flavor).get("model_class")
    return Layout(
        flavor,
        ((path, f"{version}/{posixpath.basename(path)}", artifact.files[path]),),
        (),
        config_pbtxt.render(bare_config("fil")),
        (version,),
        (1,),
        conversion=flavor,
        model_class=str(model_class) if model_class else None,
        warnings=_of_sparse_data(artifact) if flavor == "xgboost" else (),
    )


def _of_sparse_data(artifact: Artifact) -> tuple[str, ...]:
    """What is absent from a sparse matrix is missing to XGBoost, and zero to everybody else."""
    saved = (artifact.mlmodel or {}).get("saved_input_example_info")
    kind = saved.get("type") if isinstance(saved, Mapping) else None
    if not str(kind).startswith("sparse_matrix"):
        return ()
    said = (
        "its input example is sparse, and what is absent there is missing to XGBoost: send NaN for"
        " it, as a zero is a number"
    )
    return (said,)


def _pytorch(artifact: Artifact, numbering: Numbering) -> Layout:
    folder = str(_entry(artifact, "pytorch").get("model_data") or "data")
    path = named_file(
        artifact,
        "pytorch",
        posixpath.join(folder, "model.pth"),
        (".pth", ".pt", ".pt2"),
        "PyTorch file",
    )
    if path.endswith(".pt2"):
        raise ArtifactError(
            f"{path} was made by torch.export, and Triton loads TorchScript: log"
            " torch.jit.script(model) instead, or publish it as ONNX",
            step=STEP,
        )
    version, size = numbering.version(), artifact.files[path]
    sides = [tensors_of(artifact.mlmodel, side) for side in ("inputs", "outputs")]
    if scalar := next((name or "output" for name, _type, dims in sides[1] or () if not dims), None):
        raise ArtifactError(
            f"the signature says that the output '{scalar}' has no dimension, and Triton's PyTorch"
            " backend answers no such tensors: let the module return it with one, as in"
            " total.reshape(1), and log it so",
            step=STEP,
        )
    if sides[0] and sides[1]:
        config, missing = (
            torchscript_config(_by_number("INPUT", sides[0]), _by_number("OUTPUT", sides[1])),
            None,
        )
    else:
        config, missing = (
            bare_config("pytorch"),
            (
                "what inputs and outputs the module has is not known: log a TorchScript module"
                " (torch.jit.script(model), Triton loads no other) with a signature of tensors, or"
                " give config, as {input: [{name: INPUT__0, data_type, dims}], output: [{name:"
                " OUTPUT__0, data_type, dims}]}"
            ),
        )
    return Layout(
        "pytorch",
        ((path, f"{version}/model.pt", size),),
        (),
        config_pbtxt.render(config),
        (version,),
        (1,),
        conversion="pytorch",
        missing=missing,
    )


def _by_number(word: str, tensors: Sequence[Any]) -> list[Any]:
    """Triton hands tensors to a module by the number in their names; a signature lists them in the
    same order.
    """
    return [
        (f"{word}__{index}", data_type, dims)
        for index, (_name, data_type, dims) in enumerate(tensors)
    ]


MLFLOW_MAKERS: dict[str, Callable[[Artifact, Numbering], Layout]] = {
    "onnx": _onnx,
    "xgboost": _trees("xgboost", ("data",), (".ubj", ".json", ".xgb", ".bst", ".model")),
    "lightgbm": _trees("lightgbm", ("data",), (".lgb", ".txt", ".skops", ".pkl")),
    "sklearn": _trees("sklearn", ("pickled_model",), (".skops", ".pkl")),
    "pytorch": _pytorch,
}
