# SPDX-License-Identifier: Apache-2.0
"""One file as a model: what kind it is, by its name and then by its content, and the refusals that
name both.
"""

from __future__ import annotations

import ast
import os
import re
import struct
import zipfile
from dataclasses import dataclass

from ..domain.config_pbtxt import ModelConfig
from ..errors import ArtifactError, DeliveryError, InvalidOption
from .default_config import bare_config, forest_config, onnx_config
from .given_file import opened
from .onnx import LFS_POINTER, OnnxFile, read_onnx, refuse_what_triton_cannot_carry
from .tensorrt import PLAN_MAGIC
from .trees import NAMES, ForestFile, read_forest

STEP = "read the model"
_LONGEST_PATH = 4096
_LONGEST_METADATA = 1 << 16
_TEXT_LINK = re.compile(rb"(\.\./)+[\x21-\x7e]+")
_KINDS = {
    "onnx": "onnx",
    "plan": "tensorrt",
    "engine": "tensorrt",
    "bst": "xgboost",
    "json": "xgboost",
    "ubj": "xgboost",
    "model": "xgboost",
    "xgb": "xgboost",
    "txt": "lightgbm",
    "lgb": "lightgbm",
    "tl": "treelite",
    "pt": "torchscript",
    "pth": "torchscript",
    "pt2": "torchscript",
    "py": "python",
}
_PICKLES = frozenset({"pkl", "pickle", "joblib", "skops", "dill", "cloudpickle"})
_SIGNS = (
    (re.compile(rb"\x80[\x02-\x05]"), "a pickle, which is a program and is not run here"),
    (re.compile(rb"PK\x03\x04"), "a zip archive"),
    (re.compile(rb"\x1f\x8b"), "a gzip archive"),
    (re.compile(rb"\x89HDF"), "an HDF5 file"),
    (re.compile(rb"(?i)\s*<(!doctype|html|\?xml)"), "a page of HTML or XML"),
    (re.compile(rb"tree\r?\nversion="), "a LightGBM model"),
    (
        re.compile(rb"\s*\[\s*{"),
        "what XGBoost's dump_model writes for readers: save the model with save_model",
    ),
    (re.compile(rb"\s*[{\[]"), "JSON"),
    (re.compile(rb"\x7fELF"), "a program"),
)
FORMS = (
    ".onnx, .plan or .engine (TensorRT), .bst, .json or .ubj (XGBoost), .txt or .lgb (LightGBM),"
    " .tl (treelite), .pt (TorchScript), model.py"
)


@dataclass(frozen=True)
class ModelFile:
    """A file and the model folder that it becomes.

    Attributes:
        target: where it belongs in the version folder.
        config: the configuration, as far as the file tells.
        external: further files beside it that belong to it, relative to its folder.
        missing: what the file does not tell, as a sentence; None where the configuration is whole.
        instead: what has to lie there in place of the file's bytes; None for those.
    """

    target: str
    config: ModelConfig
    external: tuple[str, ...] = ()
    missing: str | None = None
    instead: bytes | None = None


def kind_of(path: str) -> str | None:
    """What a file is by its name alone; None where that is no name of a model."""
    return _KINDS.get(_ending(path))


def _ending(path: str) -> str:
    name = os.path.basename(path)
    return name.rpartition(".")[2].lower() if "." in name else ""


@dataclass(frozen=True)
class Look:
    """What a file says of itself, by its kind; ``completes``: a program completes its
    configuration.
    """

    kind: str
    onnx: OnnxFile | None = None
    forest: ForestFile | None = None
    completes: bool = False


def kind_of_model(path: str) -> str:
    """What a file is by its name, and by what git may have left in its place.

    Raises:
        InvalidOption: its name is not one of a model.
        ArtifactError: it holds no model of any kind.
    """
    kind = kind_of(path)
    if _ending(path) in _PICKLES:
        raise InvalidOption(
            f"{path} is a pickle or a scikit-learn file, which Triton cannot serve: log the model"
            " with MLflow's sklearn, xgboost or lightgbm flavor, which is converted when it is"
            " deployed, or save it as ONNX",
            step=STEP,
        )
    if kind is None:
        raise InvalidOption(
            f"{path} is neither a folder in Triton's layout nor a file of a known kind: {FORMS}",
            step=STEP,
        )
    refuse_what_is_no_file(path, path)
    return kind


def look_into(path: str, kind: str) -> Look:
    """Find out whether a file is what its name says.

    Raises:
        ArtifactError: it is not.
    """
    if kind == "onnx" or kind in NAMES:
        try:
            if kind == "onnx":
                return Look(kind, onnx=read_onnx(path))
            return Look(kind, forest=read_forest(path, kind))
        except ArtifactError as error:
            error.message += _looks_like(path)
            error.about(step=STEP)
            raise
    if kind == "python":
        return Look(kind, completes=_completes(path))
    reason = {"tensorrt": why_no_plan, "torchscript": why_no_torchscript}[kind](path)
    if reason:
        raise ArtifactError(f"{path} {reason}", step=STEP)
    return Look(kind)


def read_model_file(path: str) -> ModelFile:
    """Find out what a file is.

    Raises:
        InvalidOption: its name is not one of a model.
        ArtifactError: its content is not what its name says.
    """
    return model_file_of(path, look_into(path, kind_of_model(path)))


def model_file_of(path: str, look: Look) -> ModelFile:
    """The model folder that a file becomes.

    Raises:
        ArtifactError: an ONNX model of what Triton cannot carry.
    """
    if look.onnx is not None:
        return _onnx(path, look.onnx)
    if look.forest is not None:
        config = forest_config(look.forest, look.forest.names)
        return ModelFile(look.forest.filename, config, instead=look.forest.instead)
    return {"tensorrt": _tensorrt, "torchscript": _torchscript, "python": _python}[look.kind](look)


def refuse_what_is_no_file(real: str, shown: str) -> None:
    """Refuse an empty file and what git leaves in place of a file: an LFS pointer, a link as
    text.
    """
    with open(real, "rb") as file:
        head = file.read(_LONGEST_PATH)
    if head.startswith(LFS_POINTER):
        raise ArtifactError(
            f"this is a git-lfs pointer: {shown}; fetch the file itself with 'git lfs pull'",
            step=STEP,
        )
    if _TEXT_LINK.fullmatch(head.rstrip(b"\r\n")):
        raise ArtifactError(
            f"{shown} holds only the text {head.decode()!r}: it was a symbolic link in git and was"
            " checked out without links; copy the file itself there, or check out with"
            " core.symlinks=true",
            step=STEP,
        )
    if not head and shown == real:
        raise ArtifactError(f"{shown} is empty", step=STEP)


def _looks_like(path: str) -> str:
    with opened(path) as file:
        head = file.read(256)
    said = next((what for sign, what in _SIGNS if sign.match(head)), None) or _recognize_onnx(path)
    return f"; it looks like {said}" if said else ""


def _recognize_onnx(path: str) -> str | None:
    """ONNX has no sign of its own at the beginning, so it is read."""
    try:
        read_onnx(path)
    except DeliveryError:
        return None
    return "an ONNX model"


def _onnx(path: str, described: OnnxFile) -> ModelFile:
    refuse_what_triton_cannot_carry(described, path)
    unknown = [
        tensor.name for tensor in (*described.inputs, *described.outputs) if tensor.dims is None
    ]
    return ModelFile(
        "model.onnx",
        onnx_config(described),
        described.external,
        (
            None
            if not unknown
            else (
                f"the ONNX model does not say how many dimensions '{unknown[0]}' has: give inputs"
                " and outputs in config, as {input: [{name, data_type, dims}], output: [{name,"
                " data_type, dims}]}"
            )
        ),
    )


def _tensorrt(_look: Look) -> ModelFile:
    return ModelFile(
        "model.plan",
        bare_config("tensorrt"),
        missing=(
            "a TensorRT plan does not name its inputs and outputs: give them in config, as"
            " {max_batch_size: …, input: [{name, data_type, dims}], output: [{name, data_type,"
            " dims}]}"
        ),
    )


def why_no_plan(path: str) -> str | None:
    """Why a file is no TensorRT plan. Old plans begin in several ways, so only what is certainly
    something else is told.
    """
    with opened(path) as file:
        head = file.read(_LONGEST_METADATA)
    size = int.from_bytes(head[:4], "little")
    if head[4:5] == b"{" and head[4 + size :].startswith(PLAN_MAGIC):
        return (
            f"has {size} bytes of somebody's metadata before the TensorRT plan, with which Triton"
            f" cannot load it: leave out the first {size + 4} bytes (with Ultralytics, export the"
            " engine through trtexec)"
        )
    said = _looks_like(path)
    return f"is no TensorRT plan{said}" if said else None


def _torchscript(_look: Look) -> ModelFile:
    return ModelFile(
        "model.pt",
        bare_config("pytorch"),
        missing=(
            "a TorchScript module does not name its inputs and outputs: give them in config, as"
            " {input: [{name: INPUT__0, data_type, dims}], output: [{name: OUTPUT__0, data_type,"
            " dims}]}"
        ),
    )


def why_no_torchscript(path: str) -> str | None:
    """Why Triton cannot load a file of PyTorch; None for a TorchScript module. Its list of contents
    tells; nothing is unpickled.
    """
    try:
        with opened(path) as file, zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError, struct.error):
        return f"is no TorchScript module{_looks_like(path)}; save it with torch.jit.save"
    inner = {name.split("/", 1)[1] for name in names if "/" in name}
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return None
    if any(
        "models/" in name
        and name.endswith(".json")
        or name.endswith("serialized_exported_program.json")
        for name in names
    ):
        return (
            "was made by torch.export, and Triton loads TorchScript: save it with torch.jit.save,"
            " or as ONNX"
        )
    if "data.pkl" in inner:
        return (
            "is a pickled PyTorch module or its weights, which only the program that made it can"
            " load: save it with torch.jit.save(torch.jit.script(model), …), or as ONNX"
        )
    return "is a zip archive and no TorchScript module: save it with torch.jit.save"


def _completes(path: str) -> bool:
    """Whether a program completes its configuration. It is parsed, never run."""
    with opened(path) as file:
        source = file.read()
    try:
        tree = ast.parse(source)
    except RecursionError:
        raise ArtifactError(f"{path} is nested too deeply to be read", step=STEP) from None
    except (SyntaxError, ValueError) as error:
        where = (
            f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        )
        raise ArtifactError(
            f"{path} is no Python program ({getattr(error, 'msg', error)}{where})", step=STEP
        ) from None
    found = [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == "TritonPythonModel"
    ]
    if not found:
        raise ArtifactError(
            f"{path} does not define the class TritonPythonModel, which Triton's Python backend"
            " asks for",
            step=STEP,
        )
    return any(
        isinstance(node, ast.FunctionDef) and node.name == "auto_complete_config"
        for node in found[0].body
    )


def _python(look: Look) -> ModelFile:
    return ModelFile(
        "model.py",
        bare_config("python"),
        missing=(
            None
            if look.completes
            else (
                "a Python model without auto_complete_config does not name its inputs and outputs:"
                " give them in config, as {max_batch_size: …, input: [{name, data_type, dims}],"
                " output: [{name, data_type, dims}]}"
            )
        ),
    )
