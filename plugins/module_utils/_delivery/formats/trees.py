# SPDX-License-Identifier: Apache-2.0
"""What a file of decision trees says of itself: format, features, classes. Read without the library
that made it; stdlib only.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from ..domain.backends import FIL_FILES
from ..errors import ArtifactError

_HEADER = 1 << 16
_TREELITE_TASKS = ("binary", "regression", "classes", "regression", "regression")
_TREELITE_LEAST, _TREELITE_MOST = 3, 9
_MOST = 1 << 24


@dataclass(frozen=True)
class ForestFile:
    """``task`` is "binary" (one probability), "classes" (one for each) or "regression" (plain
    numbers).
    """

    model_type: str
    features: int
    task: str
    columns: int = 1

    @property
    def filename(self) -> str:
        return FIL_FILES[self.model_type]


def read_forest(path: str, family: str) -> ForestFile:
    """Read a model's interface.

    Args:
        family: "xgboost", "lightgbm" or "treelite"; which of its formats it is, the content tells.

    Raises:
        ArtifactError: no such model, a damaged one, or one that the FIL backend cannot serve.
    """
    try:
        with open(path, "rb") as file:
            found = {"xgboost": _xgboost, "lightgbm": _lightgbm, "treelite": _treelite}[family](
                file
            )
    except (
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        RecursionError,
        struct.error,
    ) as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        reason = "it ends too early" if isinstance(error, struct.error) else reason
        raise ArtifactError(
            f"{path} is not a whole {NAMES[family]} model ({reason})", step="read the model"
        ) from None
    if not (0 < found.features < _MOST and 0 < found.columns < _MOST):
        raise ArtifactError(
            f"{path} is not a whole {NAMES[family]} model ({found.features} features,"
            f" {found.columns} outputs)",
            step="read the model",
        )
    return found


NAMES = {"xgboost": "XGBoost", "lightgbm": "LightGBM", "treelite": "treelite"}


def _xgboost(file: BinaryIO) -> ForestFile:
    head = file.read(64).lstrip()
    file.seek(0)
    if not head.startswith(b"{"):
        return _xgboost_legacy(file)
    is_json = head[1:].lstrip()[:1] == b'"'
    document = json.load(file) if is_json else read_ubjson(file.read())
    learner = document.get("learner") if isinstance(document, Mapping) else None
    if not isinstance(learner, Mapping):
        raise ValueError("it has no key 'learner'")
    booster = learner["gradient_booster"]["name"]
    if booster == "gblinear":
        raise ValueError(
            "its booster is gblinear, which has no trees and which FIL cannot serve; publish it as"
            " ONNX"
        )
    sizes = learner["learner_model_param"]
    return _xgboost_forest(
        "xgboost_json" if is_json else "xgboost_ubj",
        int(sizes["num_feature"]),
        int(sizes["num_class"]),
        int(sizes.get("num_target", 1)),
        str(learner["objective"]["name"]),
    )


def _xgboost_forest(
    model_type: str, features: int, classes: int, targets: int, objective: str
) -> ForestFile:
    if objective == "binary:logistic" and targets == 1:
        return ForestFile(model_type, features, "binary", 2)
    if objective.startswith("multi:"):
        return ForestFile(model_type, features, "classes", classes)
    return ForestFile(model_type, features, "regression", max(targets, classes, 1))


def _xgboost_legacy(file: BinaryIO) -> ForestFile:
    """XGBoost's own binary format, which it could write up to version 2."""
    data = file.read(_HEADER)
    start = 4 if data.startswith(b"binf") else 0
    _base, features, classes = struct.unpack_from("<fIi", data, start)
    position = start + 136
    names = []
    for _name in range(2):
        (length,) = struct.unpack_from("<Q", data, position)
        if length > 64:
            raise ValueError("it is neither JSON nor UBJSON, and not XGBoost's old binary format")
        names.append(data[position + 8 : position + 8 + length].decode("ascii"))
        position += 8 + length
    if names[1] not in ("gbtree", "dart"):
        raise ValueError(f"its booster is {names[1]!r}, which FIL cannot serve")
    return _xgboost_forest("xgboost", features, classes, 1, names[0])


def _lightgbm(file: BinaryIO) -> ForestFile:
    text = file.read(_HEADER << 10).decode("utf-8", "replace")
    if not re.match(r"tree\r?\n", text):
        raise ValueError("it does not begin as LightGBM's text does")
    if "\nTree=0" not in text:
        raise ValueError("it holds no tree")
    file.seek(-min(_HEADER << 4, file.seek(0, 2)), 2)
    if b"end of trees" not in file.read() and "end of trees" not in text:
        raise ValueError("it ends before its last tree")
    head = dict(
        line.split("=", 1) for line in text.split("\nTree=0")[0].splitlines() if "=" in line
    )
    classes, objective = int(head["num_class"]), head.get("objective", "").split(" ")[0]
    features = int(head["max_feature_idx"]) + 1
    if objective == "binary":
        return ForestFile("lightgbm", features, "binary", 2)
    if objective == "multiclass":
        return ForestFile("lightgbm", features, "classes", classes)
    return ForestFile("lightgbm", features, "regression", classes)


def _treelite(file: BinaryIO) -> ForestFile:
    data = file.read(_HEADER)
    major, minor, _patch = struct.unpack_from("<3i", data)
    if not _TREELITE_LEAST <= major <= _TREELITE_MOST or not 0 <= minor < 1000:
        raise ValueError("it does not begin with a version of treelite")
    if major < 4:
        raise ValueError(
            f"it is a checkpoint of treelite {major}.{minor}, and only those of treelite 4 and"
            " later say what is in them; publish it as a folder with a config.pbtxt"
        )
    trees, features, task, _average, targets = struct.unpack_from("<QiBBi", data, 14)
    if not trees or task >= len(_TREELITE_TASKS) or targets < 1:
        raise ValueError("its header makes no sense")
    (count,) = struct.unpack_from("<Q", data, 32)
    if count != targets:
        raise ValueError("its header makes no sense")
    classes = max(struct.unpack_from(f"<{count}i", data, 40))
    kind = _TREELITE_TASKS[task]
    if kind == "binary" and targets == 1 and classes == 1:
        return ForestFile("treelite_checkpoint", features, "binary", 2)
    return ForestFile("treelite_checkpoint", features, kind, targets * classes)


_NUMBERS = {b"i": "b", b"U": "B", b"I": "h", b"l": "i", b"L": "q", b"d": "f", b"D": "d"}
_CONSTANTS = {b"T": True, b"F": False, b"Z": None, b"N": None}
_DEEPEST = 64


def read_ubjson(data: bytes) -> Any:
    """Parse a document; arrays of one number type come back as their length.

    Raises:
        ValueError: no UBJSON, or not all of it.
    """
    reader = _Reader(data)
    value = reader.value(reader.take(1), 0)
    if reader.position != len(data):
        raise ValueError("it goes on after its end")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def take(self, count: int) -> bytes:
        piece = self._data[self.position : self.position + count]
        if count < 0 or len(piece) < count:
            raise ValueError("it ends too early")
        self.position += count
        return piece

    def value(self, kind: bytes, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("it is nested too deeply")
        if kind in _NUMBERS:
            return self._number(kind)
        if kind in _CONSTANTS:
            return _CONSTANTS[kind]
        if kind in (b"S", b"H"):
            return self.take(self._length()).decode()
        if kind == b"C":
            return self.take(1).decode("ascii")
        if kind == b"[":
            return self._array(depth)
        if kind == b"{":
            return self._object(depth)
        raise ValueError(f"byte {self.position - 1} is no UBJSON")

    def _number(self, kind: bytes) -> Any:
        code = f">{_NUMBERS[kind]}"
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def _length(self) -> int:
        kind = self.take(1)
        if kind not in (b"i", b"U", b"I", b"l", b"L"):
            raise ValueError(f"byte {self.position - 1} is no length")
        return int(self._number(kind))

    def _array(self, depth: int) -> Any:
        if self._next() == b"$":
            self.take(1)
            kind = self.take(1)
            if kind not in _NUMBERS or self.take(1) != b"#":
                raise ValueError(f"byte {self.position - 1} is no array")
            count = self._length()
            self.take(count * struct.calcsize(_NUMBERS[kind]))
            return count
        if self._next() == b"#":
            self.take(1)
            return [self.value(self.take(1), depth + 1) for _item in range(self._length())]
        items = []
        while self._next() != b"]":
            items.append(self.value(self.take(1), depth + 1))
        self.take(1)
        return items

    def _object(self, depth: int) -> dict[str, Any]:
        found = {}
        while self._next() != b"}":
            key = self.take(self._length()).decode()
            found[key] = self.value(self.take(1), depth + 1)
        self.take(1)
        return found

    def _next(self) -> bytes:
        piece = self._data[self.position : self.position + 1]
        if not piece:
            raise ValueError("it ends too early")
        return piece
