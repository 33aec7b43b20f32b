# SPDX-License-Identifier: Apache-2.0
"""What a file of decision trees says of itself: format, features, classes. Read without the library
that made it; stdlib only.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from dataclasses import dataclass, field
from typing import BinaryIO

from ..domain.backends import FIL_FILES
from ..errors import ArtifactError, OtherAnswers
from .given_file import opened
from .lightgbm_text import refuse_what_fil_computes_otherwise
from .xgboost_document import (
    CUT,
    read_document,
    refuse_named_categories,
    without_unused_trees,
)

_HEADER = 1 << 16
_TREELITE_TASKS = ("binary", "regression", "classes", "regression", "regression")
_TREELITE_LEAST, _TREELITE_MOST = 3, 9
_MOST = 1 << 24
_LONGEST_REASON = 300
_OLD_BEST_ITERATION = struct.pack("<Q", 14) + b"best_iteration"
_OLD_SCIKIT_LEARN = struct.pack("<Q", 12) + b"scikit_learn"


@dataclass(frozen=True)
class ForestFile:
    """``task`` is "binary" (one probability), "classes" (one for each) or "regression" (plain
    numbers). ``instead`` is what a server has to read in place of the file, to answer as the
    library does that trained the model; None where the file is right. ``averages`` is true where
    the answer is the mean over the trees, as random forests have it, and known of treelite alone.
    ``names`` are those of the features, where the data had such.
    """

    model_type: str
    features: int
    task: str
    columns: int = 1
    instead: bytes | None = field(default=None, repr=False)
    averages: bool = False
    names: tuple[str, ...] = ()

    @property
    def filename(self) -> str:
        return FIL_FILES[self.model_type]


def read_forest(path: str, family: str, scikit_learn: bool | None = None) -> ForestFile:
    """Read a model's interface.

    Args:
        family: "xgboost", "lightgbm" or "treelite"; which of its formats it is, the content tells.
        scikit_learn: whether one of XGBoost's scikit-learn classes answers for the file; None where
            only the file tells.

    Raises:
        OtherAnswers: the FIL backend would answer other numbers than the library that trained it.
        ArtifactError: no such model, a damaged one, or one that the FIL backend cannot serve.
    """
    try:
        with opened(path) as file:
            if family == "xgboost":
                found = _xgboost(file, scikit_learn)
            else:
                found = {"lightgbm": _lightgbm, "treelite": _treelite}[family](file)
    except OtherAnswers as error:
        error.message = f"{path} cannot be served as it is: {error.message}"
        raise error.about(step="read the model") from None
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
        struct.error,
    ) as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        reason = reason[:_LONGEST_REASON]
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


def refuse_other_answers(path: str, model_type: str) -> None:
    """Judge a file of a folder in Triton's layout, which is deployed as its author made it.

    Args:
        model_type: what its configuration calls it.

    Raises:
        OtherAnswers: a server would not answer as the class that saved the file, with what would
            work.
        ArtifactError: no such model, a damaged one, or one that the FIL backend cannot serve.
    """
    if model_type not in FIL_FILES or model_type == "treelite_checkpoint":
        return
    if read_forest(path, model_type.partition("_")[0]).instead is not None:
        raise UnusedTrees(
            f"{path} was saved by a scikit-learn class of XGBoost that stopped early, and a server"
            f" would answer with trees that the class leaves out: {CUT}",
            step="read the model",
        )


class UnusedTrees(OtherAnswers):
    """The file's class leaves out trees that a server would count; what is made of it does not."""


NAMES = {"xgboost": "XGBoost", "lightgbm": "LightGBM", "treelite": "treelite"}


def _xgboost(file: BinaryIO, scikit_learn: bool | None) -> ForestFile:
    if not file.read(64).lstrip().startswith(b"{"):
        return _xgboost_legacy(file, scikit_learn)
    file.seek(0)
    document = read_document(file.read())
    learner = document.learner
    booster = _text(learner["gradient_booster"]["name"])
    if booster == "gblinear":
        raise ValueError(
            "its booster is gblinear, which has no trees and which FIL cannot serve; publish a"
            " Triton model folder with a model.py that computes it"
        )
    sizes = learner["learner_model_param"]
    refuse_named_categories(document)
    found = _xgboost_forest(
        "xgboost_json" if document.is_json else "xgboost_ubj",
        int(sizes["num_feature"]),
        int(sizes["num_class"]),
        int(sizes.get("num_target", 1)),
        _text(learner["objective"]["name"]),
    )
    return dataclasses.replace(
        found,
        instead=without_unused_trees(document, scikit_learn),
        names=_names(learner.get("feature_names"), found.features),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("it has something else in place of a name")
    return value


def _xgboost_forest(
    model_type: str, features: int, classes: int, targets: int, objective: str
) -> ForestFile:
    if objective == "binary:logistic" and targets == 1:
        return ForestFile(model_type, features, "binary", 2)
    if objective.startswith("multi:"):
        return ForestFile(model_type, features, "classes", classes)
    return ForestFile(model_type, features, "regression", max(targets, classes, 1))


def _xgboost_legacy(file: BinaryIO, scikit_learn: bool | None) -> ForestFile:
    """XGBoost's own binary format, which it could write up to version 2."""
    file.seek(0)
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
    _refuse_early_stopping(file, scikit_learn)
    return _xgboost_forest("xgboost", features, classes, 1, names[0])


def _refuse_early_stopping(file: BinaryIO, scikit_learn: bool | None) -> None:
    """The attributes, lengths before texts, are the end of the old binary format."""
    file.seek(-min(_HEADER << 4, file.seek(0, 2)), 2)
    tail = file.read()
    if scikit_learn is None:
        scikit_learn = _OLD_SCIKIT_LEARN in tail
    if scikit_learn and _OLD_BEST_ITERATION in tail:
        raise OtherAnswers(
            "it stopped early, and its old binary format does not tell where the trees end that"
            f" count: save it with model.save_model('model.ubj'), or {CUT}"
        )


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
    refuse_what_fil_computes_otherwise(file)
    classes, objective = int(head["num_class"]), head.get("objective", "").split(" ")[0]
    features = int(head["max_feature_idx"]) + 1
    names = _names(head.get("feature_names", "").split(" "), features)
    if all(name == f"Column_{number}" for number, name in enumerate(names)):
        names = ()  # LightGBM's own, for data without names
    if objective == "binary":
        return ForestFile("lightgbm", features, "binary", 2, names=names)
    if objective == "multiclass":
        return ForestFile("lightgbm", features, "classes", classes, names=names)
    return ForestFile("lightgbm", features, "regression", classes, names=names)


def _names(found: object, features: int) -> tuple[str, ...]:
    """One for each feature, or none."""
    names = tuple(found) if isinstance(found, list) and len(found) == features else ()
    named = all(isinstance(name, str) for name in names) and len({*names}) == features
    return names if named and len(names) == features else ()


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
    trees, features, task, average, targets = struct.unpack_from("<QiBBi", data, 14)
    if not trees or task >= len(_TREELITE_TASKS) or targets < 1:
        raise ValueError("its header makes no sense")
    (count,) = struct.unpack_from("<Q", data, 32)
    if count != targets:
        raise ValueError("its header makes no sense")
    classes = max(struct.unpack_from(f"<{count}i", data, 40))
    kind = _TREELITE_TASKS[task]
    if kind == "binary" and targets == 1 and classes == 1:
        kind, classes = "binary", 2
    return ForestFile(
        "treelite_checkpoint", features, kind, targets * classes, averages=bool(average)
    )
