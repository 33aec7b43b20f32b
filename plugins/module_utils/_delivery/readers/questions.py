# SPDX-License-Identifier: Apache-2.0
"""What is asked of model files; a process without rights answers, see ``runner``."""

from __future__ import annotations

import dataclasses
import functools
import os

from ..domain.fields import WrongShape
from ..errors import ArtifactError
from ..formats.model_file import ModelFile, kind_of_model, model_file_of
from ..formats.onnx import OnnxFile
from ..formats.served import Served
from ..formats.trees import UnusedTrees
from . import answers, tasks
from .runner import Answer, Task, ask, nonsense

_CACHED = 64


def _asked(task: str, path: str, shown: str | None = None, **arguments: object) -> Answer:
    function = getattr(tasks, task)
    return ask(Task("", function.__name__), path, shown or path, arguments)


def read_served(path: str, flavor: str, model_class: str | None, shown: str) -> Served:
    """As ``formats.served.read_served``."""
    answer = _asked("served", path, shown, flavor=flavor, model_class=model_class)
    try:
        found = answers.served(answer.found.data)
        if (found.onnx is None) is (flavor == "onnx"):
            raise answer.found.wrong("onnx", "what such a file has")
        if (found.forest is None) is not (flavor in ("onnx", "pytorch")):
            raise answer.found.wrong("forest", "what such a file has")
    except WrongShape as error:
        raise nonsense(shown, error) from None
    return dataclasses.replace(found, data=answer.data)


def read_onnx(path: str) -> OnnxFile:
    """As ``formats.onnx.read_onnx``; a file that has not changed is read once."""
    info = os.stat(path)
    return _onnx(path, info.st_ino, info.st_size, info.st_mtime_ns)


@functools.lru_cache(maxsize=_CACHED)
def _onnx(path: str, *_identity: int) -> OnnxFile:
    answer = _asked("onnx", path)
    try:
        return answers.onnx(answer.found.data)
    except WrongShape as error:
        raise nonsense(path, error) from None


def why_no_torchscript(path: str) -> str | None:
    """As ``formats.model_file.why_no_torchscript``."""
    answer = _asked("torchscript", path)
    try:
        return answer.found.text_or_none("reason")
    except WrongShape as error:
        raise nonsense(path, error) from None


def refuse_other_answers(path: str, model_type: str) -> None:
    """As ``formats.trees.refuse_other_answers``."""
    answer = _asked("forest", path, model_type=model_type)
    try:
        unused = answer.found.text_or_none("unused_trees")
    except WrongShape as error:
        raise nonsense(path, error) from None
    if unused is not None:
        raise UnusedTrees(unused, step="read the model")


def read_model_file(path: str) -> ModelFile:
    """As ``formats.model_file.read_model_file``."""
    kind = kind_of_model(path)
    try:
        answer = _asked("look", path, kind=kind)
    except ArtifactError as error:
        raise error.about(step="read the model") from None
    try:
        look = answers.look(answer.found.data, kind)
    except WrongShape as error:
        raise nonsense(path, error) from None
    instead = None if answer.data is None else bytes(answer.data)
    if look.forest is not None:
        look = dataclasses.replace(look, forest=dataclasses.replace(look.forest, instead=instead))
    return model_file_of(path, look)
