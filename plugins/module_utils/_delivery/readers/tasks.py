# SPDX-License-Identifier: Apache-2.0
"""What a reader is asked to do. It imports what it needs before it gives up its rights: what is
imported later must not be needed.
"""

from __future__ import annotations

import codecs
from contextlib import suppress

from ..formats.given_file import GivenFile
from ..formats.model_file import look_into, why_no_torchscript
from ..formats.onnx import read_onnx
from ..formats.served import read_served
from ..formats.trees import UnusedTrees, refuse_other_answers
from ..outside import JsonDict
from . import answers

Found = tuple[JsonDict, "bytes | memoryview | None"]
"""The answer, and the bytes that belong in place of the file's."""

# What Python looks for when it is first used.
_ENCODINGS = ("ascii", "latin_1", "utf_8", "utf_32_le", "utf_32_be", "raw_unicode_escape", "cp437")


def prepare(task: str, arguments: JsonDict) -> None:
    """Import what ``task`` will ask for. A library that is not there is told of by the task."""
    for name in _ENCODINGS:
        codecs.lookup(name)
    flavor = arguments["flavor"] if task == "served" else None
    if flavor in ("sklearn", "lightgbm"):  # whose archives of skops hold arrays
        with suppress(ImportError):
            import numpy  # noqa: F401
    if flavor == "sklearn":
        with suppress(ImportError):
            import treelite.model_builder  # noqa: F401


def served(file: GivenFile, arguments: JsonDict) -> Found:
    found = read_served(file, arguments["flavor"], arguments["model_class"])
    return answers.served_to_dict(found), found.data


def onnx(file: GivenFile, _arguments: JsonDict) -> Found:
    return answers.onnx_to_dict(read_onnx(file)), None


def look(file: GivenFile, arguments: JsonDict) -> Found:
    found = look_into(file, arguments["kind"])
    return answers.look_to_dict(found), found.forest.instead if found.forest else None


def torchscript(file: GivenFile, _arguments: JsonDict) -> Found:
    return {"reason": why_no_torchscript(file)}, None


def forest(file: GivenFile, arguments: JsonDict) -> Found:
    """Whether a server would answer otherwise; ``unused_trees`` where it would count such."""
    try:
        refuse_other_answers(file, arguments["model_type"])
    except UnusedTrees as error:
        return {"unused_trees": error.message}, None
    return {"unused_trees": None}, None
