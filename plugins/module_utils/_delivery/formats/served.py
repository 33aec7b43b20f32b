# SPDX-License-Identifier: Apache-2.0
"""What a server is to read of a file that MLflow's own flavors store: what is in it, and the bytes
that belong in its place.
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import ArtifactError
from .boosters import Booster, booster_of, refuse_other_class
from .given_file import GivenFile, opened
from .model_file import why_no_torchscript
from .onnx import OnnxFile, read_onnx, refuse_what_triton_cannot_carry
from .sklearn_archive import feature_names, read_outline
from .sklearn_to_treelite import treelite_bytes
from .trees import ForestFile, read_forest


@dataclass(frozen=True)
class Served:
    """A file of a version folder.

    Attributes:
        filename: its name there.
        onnx, forest: what is known of it, by its kind.
        names: of the features, where only the file that it was made of has them.
        data: what has to lie there in place of the file's bytes; None for those.
    """

    filename: str
    onnx: OnnxFile | None = None
    forest: ForestFile | None = None
    names: tuple[str, ...] = ()
    data: bytes | memoryview | None = field(default=None, repr=False)


def read_served(path: str, flavor: str, model_class: str | None) -> Served:
    """Read a file of one of MLflow's flavors.

    Args:
        model_class: the class that answers for the model, as MLmodel names it.

    Raises:
        ArtifactError: it is not what the flavor says, or nothing that Triton serves; with what
            would work.
        MissingLibrary: treelite or numpy, for forests of scikit-learn.
    """
    return _BY_FLAVOR[flavor](path, model_class)


def _onnx(path: str, _model_class: str | None) -> Served:
    described = read_onnx(path)
    refuse_what_triton_cannot_carry(described, path)
    return Served(os.path.basename(path), onnx=described)


def _xgboost(path: str, model_class: str | None) -> Served:
    # MLflow writes the class down since 1.22; before, it took Boosters alone.
    if model_class is not None:
        refuse_other_class("xgboost", model_class)
    scikit_learn = None if model_class is None else not model_class.endswith(".Booster")
    return _forest(path, "xgboost", None, scikit_learn)


def _lightgbm(path: str, _model_class: str | None) -> Served:
    with opened(path) as file:
        archived = path.endswith(".pkl") or zipfile.is_zipfile(file)
    if not archived:
        return _forest(path, "lightgbm", None)
    booster = booster_of(path)
    if booster is None or booster.family != "lightgbm":
        raise ArtifactError(
            f"{path} holds no LightGBM model: log the Booster itself (model.booster_)"
        )
    return _of_booster(booster)


def _of_booster(booster: Booster) -> Served:
    given = GivenFile.of_bytes(booster.filename, booster.data)
    return _forest(given, booster.family, booster.data, scikit_learn=True)


def _sklearn(path: str, _model_class: str | None) -> Served:
    outline = read_outline(path)
    booster = booster_of(path, outline)
    if booster is not None:
        return _of_booster(booster)
    data = treelite_bytes(path, outline)
    made = _forest(GivenFile.of_bytes("checkpoint.tl", data), "treelite", data)
    return dataclasses.replace(made, names=feature_names(outline.root))


def _pytorch(path: str, _model_class: str | None) -> Served:
    reason = why_no_torchscript(path)
    if reason:
        raise ArtifactError(f"{path} {reason}")
    return Served(os.path.basename(path))


def _forest(path: str, family: str, data: bytes | None, scikit_learn: bool | None = None) -> Served:
    forest = read_forest(path, family, scikit_learn)
    instead = data if forest.instead is None else forest.instead
    return Served(forest.filename, forest=forest, data=instead)


_BY_FLAVOR: dict[str, Callable[[str, str | None], Served]] = {
    "onnx": _onnx,
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
    "sklearn": _sklearn,
    "pytorch": _pytorch,
}
