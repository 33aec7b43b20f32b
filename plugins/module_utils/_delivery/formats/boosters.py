# SPDX-License-Identifier: Apache-2.0
"""The scikit-learn classes of XGBoost and LightGBM, as pickles and skops archives keep them: the
library's own model lies in them as it is. Nothing is unpickled.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ..errors import ArtifactError
from .sklearn_archive import Bag, read_outline

_ORIGINS = {
    "xgboost": ("xgboost.sklearn.", "xgboost.dask."),
    "lightgbm": ("lightgbm.sklearn.", "lightgbm.basic.", "lightgbm.dask."),
}
_LIGHTGBM = "lightgbm.basic.Booster"
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


def booster_of(path: str, root: object = None, *, own: bool = False) -> Booster | None:
    """The library's own model in a pickle or skops archive; None where it is of another library.

    Args:
        root: what ``read_outline`` has read already.
        own: whoever logged it said that it is LightGBM's, whatever class of theirs holds it.

    Raises:
        ArtifactError: there is none in it, or it answers other numbers than its class does; with
            what would work.
        MissingLibrary: numpy.
    """
    root = read_outline(path) if root is None else root
    if not isinstance(root, Bag):
        return None
    inner = root if root.origin == _LIGHTGBM else root.values.get("_Booster")
    family = family_of(root)
    if family is None and own and isinstance(inner, Bag) and inner.origin == _LIGHTGBM:
        family = "lightgbm"
    if family is None:
        return None
    if not isinstance(inner, Bag):
        raise ArtifactError(f"its {root.kind} was not trained: call fit before it is logged")
    if family == "lightgbm":
        return Booster(family, _lightgbm(inner))
    _refuse_own_meanings(root)
    return Booster(family, _xgboost(inner, root.kind))


def _refuse_own_meanings(root: Bag) -> None:
    """What the class does around its booster is not in the booster."""
    missing = root.values.get("missing")
    if isinstance(missing, (int, float)) and not math.isnan(missing):
        raise ArtifactError(
            f"its {root.kind} takes {missing:g} for a missing value, which a server would take for"
            " a number: train it with NaN for what is missing (missing=float('nan'), the default)"
        )
    if isinstance(root.values.get("objective"), Bag):
        raise ArtifactError(
            f"its {root.kind} has an objective of its own, which is Python code: log its booster,"
            " mlflow.xgboost.log_model(model.get_booster())"
        )


def _xgboost(inner: Bag, kind: str) -> bytes:
    handle = inner.values.get("handle")
    data = bytes(handle) if isinstance(handle, (bytes, bytearray)) else b""
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
    best = inner.values.get("best_iteration")
    return _cut(text, best if isinstance(best, int) else 0).encode()


def _cut(text: str, iterations: int) -> str:
    """The text with the trees of the first ``iterations`` alone, 0 for all: LightGBM keeps those
    after the best iteration in a pickle, and does not use them.
    """
    head, *trees = re.split(r"(?m)^(?=Tree=[0-9]+\r?$)", text)
    per_iteration = re.search(r"(?m)^num_tree_per_iteration=([0-9]+)", head)
    wanted = iterations * int(per_iteration[1]) if per_iteration else 0
    if not 0 < wanted < len(trees):
        return text
    _last, end, rest = trees[-1].partition("end of trees")
    sizes = re.search(r"(?m)^tree_sizes=(.*)$", head)
    if sizes:
        kept = " ".join(sizes[1].split()[:wanted])
        head = f"{head[: sizes.start(1)]}{kept}{head[sizes.end(1) :]}"
    return "".join([head, *trees[:wanted], end, rest])
