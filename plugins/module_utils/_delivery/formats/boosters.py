# SPDX-License-Identifier: Apache-2.0
"""The scikit-learn classes of XGBoost and LightGBM, as pickles and skops archives keep them: the
library's own model lies in them as it is. Nothing is unpickled.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ArtifactError
from .pickle_program import Bag
from .pickled_arrays import Array
from .sklearn_archive import Outline, read_outline

_ORIGINS = {
    "xgboost": ("xgboost.sklearn.", "xgboost.dask."),
    "lightgbm": ("lightgbm.sklearn.", "lightgbm.basic.", "lightgbm.dask."),
}
_LIGHTGBM = "lightgbm.basic.Booster"
_NAMES = {"xgboost": "XGBoost", "lightgbm": "LightGBM"}
_LOG_BOOSTER = {
    "xgboost": "mlflow.xgboost.log_model(model.get_booster())",
    "lightgbm": "mlflow.lightgbm.log_model(model.booster_)",
}
_LOG = {
    "xgboost": "log it with mlflow.xgboost.log_model",
    "lightgbm": "log it with mlflow.lightgbm.log_model",
}
# XGBoost's own pickles hold {"Config": …, "Model": …} in UBJSON; the second is what it saves.
_MODEL = b"L\x00\x00\x00\x00\x00\x00\x00\x05Model{"


@dataclass(frozen=True)
class Booster:
    """A model of the library ``family`` ("xgboost", "lightgbm"), as it writes its own files."""

    family: str
    data: bytes

    @property
    def filename(self) -> str:
        return {"xgboost": "model.ubj", "lightgbm": "model.lgb"}[self.family]


def family_of(root: object) -> str | None:
    """The library whose model this is; None for any other."""
    origin = root.origin if isinstance(root, Bag) else ""
    return next(
        (family for family, heads in _ORIGINS.items() if origin.startswith(heads)),
        None,
    )


def refuse_other_class(family: str, model_class: str) -> None:
    """Refuse a class that derives from one of the library's: its ``predict`` may be another.

    Args:
        model_class: module and name, as MLmodel and pickles have it.

    Raises:
        ArtifactError: with what would work.
    """
    if not model_class.startswith(f"{family}."):
        raise ArtifactError(
            f"its class {model_class} is not {_NAMES[family]}'s own, and a server runs none of its"
            f" Python code: log the booster in it, {_LOG_BOOSTER[family]}"
        )


def booster_of(path: str, outline: Outline | None = None) -> Booster | None:
    """The library's own model in a pickle or skops archive; None where it is of another library.

    Args:
        outline: what ``read_outline`` has read already.

    Raises:
        ArtifactError: there is none in it, or it answers other numbers than its class does; with
            what would work.
    """
    root = (read_outline(path) if outline is None else outline).root
    if not isinstance(root, Bag):
        return None
    inner = root if root.origin == _LIGHTGBM else root.values.get("_Booster")
    family = family_of(root)
    if family is None:
        held = isinstance(inner, Bag) and inner.origin == _LIGHTGBM
        if held:
            refuse_other_class("lightgbm", root.origin)
        return None
    if not isinstance(inner, Bag):
        raise ArtifactError(f"its {root.kind} was not trained: call fit before it is logged")
    _REFUSE_OWN_MEANINGS[family](root)
    if family == "lightgbm":
        return Booster(family, _lightgbm(inner))
    return Booster(family, _xgboost(inner, root.kind))


# What a class does around its booster is not in the booster.


def _refuse_meanings_of_xgboost(root: Bag) -> None:
    missing = root.values.get("missing")
    if isinstance(missing, Array) and not missing.shape:
        missing = missing.tolist()
    if missing is not None and not _is_nan(missing):
        shown = f"{missing:g}" if _is_short(missing) else "something"
        raise ArtifactError(
            f"its {root.kind} takes {shown} for a missing value, which a server would take for"
            " a number: train it with NaN for what is missing (missing=float('nan'), the default)"
        )
    if isinstance(root.values.get("objective"), Bag):
        raise ArtifactError(
            f"its {root.kind} has an objective of its own, which is Python code: log its booster,"
            f" {_LOG_BOOSTER['xgboost']}"
        )


def _is_short(value: object) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 64)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _refuse_meanings_of_lightgbm(root: Bag) -> None:
    """Its classes predict with what they were trained with, as far as it has a meaning then."""
    others = root.values.get("_other_params")
    for values in (root.values, others if isinstance(others, Mapping) else {}):
        if values.get("pred_early_stop"):
            raise ArtifactError(
                f"its {root.kind} leaves out trees while it predicts (pred_early_stop), which no"
                f" server does: log the booster in it, {_LOG_BOOSTER['lightgbm']}, which uses all"
            )


_REFUSE_OWN_MEANINGS = {
    "xgboost": _refuse_meanings_of_xgboost,
    "lightgbm": _refuse_meanings_of_lightgbm,
}


def _xgboost(inner: Bag, kind: str) -> bytes:
    handle = inner.values.get("handle")
    data = bytes(handle) if isinstance(handle, (bytes, memoryview)) else b""
    start = data.find(_MODEL)
    if start < 0 or not data.endswith(b"}}"):
        raise ArtifactError(
            f"its {kind} was pickled by a version of XGBoost that kept models in another form:"
            f" {_LOG['xgboost']}"
        )
    return data[start + len(_MODEL) - 1 : -1]


def _lightgbm(inner: Bag) -> bytes:
    text = inner.values.get("_handle", inner.values.get("handle"))
    if not isinstance(text, str) or not re.match(r"tree\r?\nversion=", text):
        raise ArtifactError(f"its Booster holds no text of a LightGBM model: {_LOG['lightgbm']}")
    return _cut(text, _iterations(inner.values.get("best_iteration"))).encode()


def _iterations(best: object) -> int:
    """How many LightGBM predicts with; 0 for all. It may be a number of numpy."""
    if best is None:
        return 0
    if isinstance(best, Array) and not best.shape:
        best = best.tolist()
    if not isinstance(best, int):
        raise ArtifactError(
            f"its best_iteration is {type(best).__name__} and no whole number: {_LOG['lightgbm']}"
        )
    return best


def _cut(text: str, iterations: int) -> str:
    """The text with the trees of the first ``iterations`` alone, 0 for all: LightGBM keeps those
    after the best iteration in a pickle, and does not use them.
    """
    head, *trees = re.split(r"(?m)^(?=Tree=[0-9]+\r?$)", text)
    per_iteration = re.search(r"(?m)^num_tree_per_iteration=([0-9]{1,9})(?![0-9])", head)
    wanted = iterations * int(per_iteration[1]) if per_iteration else 0
    if not 0 < wanted < len(trees):
        return text
    _last, end, rest = trees[-1].partition("end of trees")
    sizes = re.search(r"(?m)^tree_sizes=(.*)$", head)
    if sizes:
        kept = " ".join(sizes[1].split()[:wanted])
        head = f"{head[: sizes.start(1)]}{kept}{head[sizes.end(1) :]}"
    return "".join([head, *trees[:wanted], end, rest])
