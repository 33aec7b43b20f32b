# SPDX-License-Identifier: Apache-2.0
"""What will be served of a file of decision trees, compared with the library that trained it, on
the input example and before anything is registered.

It needs that library, and treelite, which is what serves such files: both are imported where this
host has them, and nothing is asked of a host that has not.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..errors import OtherAnswers
from ..formats.model_file import STEP
from ..outside import JsonObject
from .upload import UploadSource

COMPARED_TAG = "triton.compared"
_INPUT = "input__0"
_RELATIVE, _ABSOLUTE = 1e-4, 1e-5
"""What a sum of single precision numbers may differ by; the latter counts times the largest
answer."""
_MULTICLASS = 2
"""treelite's number for the task."""
_PROBABILITIES = ("softmax", "multiclass_ova")
_FORMATS = {"xgboost_json": "json", "xgboost_ubj": "ubjson"}

Array = Any
"""Of numpy, of the form (rows, values): a probability counts once where there are two classes."""


@dataclass(frozen=True)
class Comparison:
    """What came of asking.

    Attributes:
        said: which library agrees, on how much, and how far they are apart; "" without an answer.
        warning: why a library that is there could not answer; None where it could, or is not there.
    """

    said: str = ""
    warning: str | None = None


def compare(
    model_type: str, original: str, served: UploadSource, example: JsonObject
) -> Comparison:
    """Compare the answers to an input example.

    Args:
        model_type: as backend fil calls the format of ``served``.
        original: path of the file as it was trained.
        served: what becomes of it.

    Raises:
        OtherAnswers: they differ.
    """
    family = model_type.partition("_")[0]
    if family not in _LIBRARIES or set(example) != {_INPUT}:
        return Comparison()
    try:
        import numpy

        library = _library(family)
        by = _with_treelite if _has_treelite() else _WITHOUT_TREELITE.get(family)
    except (ImportError, OSError):  # the latter, where a library's own library is not there
        return Comparison()
    if by is None:
        return Comparison()
    try:
        rows = numpy.asarray(example[_INPUT], dtype=numpy.float32)
        wanted = _two_dimensional(_LIBRARIES[family](library, original, rows), rows)
        found = _two_dimensional(_served(by, model_type, served, rows), rows)
    except Exception as error:  # whatever a library says of a file that it did not like
        text = " ".join(str(error).split())[:200]
        return Comparison(
            warning=f"what will be served was not compared with {family} on this host: {text}"
        )
    names = f"{family} {library.__version__}"
    if wanted.shape == found.shape:
        size = float(numpy.abs(wanted).max(initial=0.0))
        apart = float(numpy.abs(wanted - found).max(initial=0.0))
        if numpy.allclose(
            found, wanted, rtol=_RELATIVE, atol=_ABSOLUTE * max(size, 1.0), equal_nan=True
        ):
            said = f"{len(rows)} row{'s' * (len(rows) != 1)} of the input example"
            return Comparison(f"as {names} answers: {said}, at most {apart:.1g} apart")
    row = next(n for n in range(len(rows)) if not _same(numpy, wanted[n], found[n]))
    raise OtherAnswers(
        f"{os.path.basename(original)} would not be served as {names} answers: row {row} of"
        f" input_example is {_in_words(wanted[row])} there and would be {_in_words(found[row])};"
        " please report this, with the file",
        step=STEP,
    )


def _same(numpy: Any, one: Array, other: Array) -> bool:
    return one.shape == other.shape and bool(
        numpy.allclose(other, one, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True)
    )


def _in_words(row: Array) -> str:
    values = [f"{float(value):.6g}" for value in row[:8]]
    return ", ".join(values) + (", …" if len(row) > len(values) else "")


def _two_dimensional(answers: Array, rows: Array) -> Array:
    return answers.reshape(len(rows), -1).astype("float64")


def _library(family: str) -> Any:
    if family == "lightgbm":
        import lightgbm

        return lightgbm
    import xgboost

    return xgboost


def _has_treelite() -> bool:
    try:
        import treelite
    except (ImportError, OSError):
        return False
    return int(treelite.__version__.partition(".")[0]) >= 4


def _served(
    by: Callable[[str, str, Array], Array], model_type: str, served: UploadSource, rows: Array
) -> Array:
    if served.file:
        return by(served.file, model_type, rows)
    with tempfile.NamedTemporaryFile(suffix=".model") as file:
        file.write(served.data)
        file.flush()
        return by(file.name, model_type, rows)


def _with_treelite(path: str, model_type: str, rows: Array) -> Array:
    """As backend fil, the embedded one and NVIDIA's, reads and computes it."""
    import treelite
    from treelite import gtil

    frontend = treelite.frontend
    if model_type == "lightgbm":
        model = frontend.load_lightgbm_model(path)
    elif model_type == "xgboost":
        model = frontend.load_xgboost_model_legacy_binary(path)
    else:
        model = frontend.load_xgboost_model(path, format_choice=_FORMATS[model_type])
    header = model.get_header_accessor()
    if int(header.get_field("task_type")[0]) == _MULTICLASS:
        give_probabilities(header)
    return gtil.predict(model, rows, nthread=1)


def give_probabilities(header: Any) -> None:
    """Replace what names a class, or leaves margins as they are: the rule of backend fil, which
    runs where this package is not. A test holds the two together.
    """
    name = header.get_field("postprocessor")
    vector = int(header.get_field("leaf_vector_shape")[1]) > 1
    if name in _PROBABILITIES or (name == "identity_multiclass" and vector):
        return
    shares = vector and bool(header.get_field("average_tree_output")[0])
    header.set_field("postprocessor", "identity_multiclass" if shares else "softmax")


def _all_trees(path: str, _model_type: str, rows: Array) -> Array:
    import xgboost

    return _booster_answers(xgboost, path, rows)


_WITHOUT_TREELITE = {"xgboost": _all_trees}


def _xgboost_answers(xgboost: Any, path: str, rows: Array) -> Array:
    """As the class that saved the file answers, which counts the trees until it stopped early."""
    kind = None
    with suppress(ValueError, AttributeError):
        said = xgboost.Booster(model_file=path).attr("scikit_learn")
        kind = json.loads(said or "{}").get("_estimator_type")
    if kind is None:
        return _booster_answers(xgboost, path, rows)
    names = {"classifier": "XGBClassifier", "ranker": "XGBRanker"}
    model = getattr(xgboost, names.get(kind, "XGBRegressor"))()
    model.load_model(path)
    if kind != "classifier":
        return model.predict(rows)
    answers = model.predict_proba(rows)
    return answers[:, 1:] if answers.shape[1] == 2 and model.n_classes_ == 2 else answers


def _booster_answers(xgboost: Any, path: str, rows: Array) -> Array:
    booster = xgboost.Booster(model_file=path)
    learner = json.loads(booster.save_config())["learner"]
    if learner["objective"]["name"] == "multi:softmax":  # it would answer with classes
        booster.set_param({"objective": "multi:softprob"})
    return booster.predict(xgboost.DMatrix(rows), validate_features=False)


def _lightgbm_answers(lightgbm: Any, path: str, rows: Array) -> Array:
    return lightgbm.Booster(model_file=path).predict(rows.astype("float64"))


_LIBRARIES = {"xgboost": _xgboost_answers, "lightgbm": _lightgbm_answers}
