# SPDX-License-Identifier: Apache-2.0
"""What MLflow's own flavors store becomes what Triton loads, in the staging folder, before anything
is swapped.

The same artifact always becomes the same bytes: nothing here depends on time, place or the order of
a dictionary.
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Callable
from typing import Any

from .. import disk
from ..disk import hash_file
from ..domain import config_pbtxt
from ..domain.backends import FIL_FILES
from ..domain.layout import Layout
from ..domain.manifest import FileEntry, Manifest
from ..effects import effect
from ..errors import ArtifactError, OtherAnswers
from ..formats import trees
from ..formats.boosters import Booster, booster_of, refuse_other_class
from ..formats.default_config import forest_config, onnx_config
from ..formats.model_file import refuse_what_is_no_file, why_no_torchscript
from ..formats.onnx import read_onnx, refuse_what_triton_cannot_carry
from ..formats.sklearn_archive import feature_names, read_outline
from ..formats.sklearn_to_treelite import treelite_bytes

STEP = "convert the model"
Made = tuple[str, Any]
"""The file's name in the version folder now, and the configuration (None: as it is)."""


def convert(layout: Layout, staged: str, manifest: Manifest) -> tuple[Layout, Manifest]:
    """Convert what lies in the staging folder.

    Returns:
        The layout with a whole configuration, and the manifest of what lies there now.

    Raises:
        ArtifactError: the files are not what their flavor says, or nothing that Triton serves; with
            what would work.
        MissingLibrary: treelite, for forests of scikit-learn.
    """
    if layout.conversion is None:
        return layout, manifest
    main = next(
        target
        for _source, target, _size in layout.files
        if target.endswith(_ENDINGS[layout.conversion])
    )
    path = os.path.join(staged, main)
    refuse_what_is_no_file(path, os.path.basename(path))
    if not os.path.getsize(path):
        raise ArtifactError(f"{os.path.basename(path)} is empty", step=STEP)
    try:
        name, config = _CONVERTERS[layout.conversion](path, layout)
    except ArtifactError as error:
        # The staging folder means nothing to a reader.
        error.message = error.message.replace(path, os.path.basename(path))
        error.about(step=STEP)
        raise
    target = os.path.join(os.path.dirname(main), name)
    entries = {entry.path: entry for entry in manifest.files if entry.path != main}
    whole = os.path.join(staged, target)
    entries[target] = FileEntry(target, os.path.getsize(whole), hash_file(whole))
    if config is not None:
        layout = dataclasses.replace(layout, author_config=config_pbtxt.render(config))
    return layout, Manifest.of(entries.values(), manifest.folders)


def refuse_other_answers(layout: Layout, staged: str) -> None:
    """Judge the forests of a folder in Triton's layout, in staging.

    Raises:
        OtherAnswers: a server would answer other numbers than the library that trained the model.
    """
    config = config_pbtxt.parse(layout.author_config)
    if config.backend != "fil":
        return
    model_type = "xgboost"
    if "model_type" in config.parameters:
        model_type = config.parameters["model_type"].string_value or model_type
    wanted = config.default_model_filename or FIL_FILES.get(model_type)
    for _source, target, _size in layout.files:
        path = os.path.join(staged, target)
        if target.count("/") != 1 or os.path.basename(target) != wanted:
            continue
        try:
            trees.refuse_other_answers(path, model_type)
        except OtherAnswers as error:
            # The staging folder means nothing to a reader.
            error.message = error.message.replace(path, target)
            raise
        except ArtifactError:
            pass  # whatever is wrong with it, the server says when it loads it


def _onnx(path: str, layout: Layout) -> Made:
    described, name = read_onnx(path), os.path.basename(path)
    refuse_what_triton_cannot_carry(described, path)
    return name, onnx_config(described, name, layout.columns)


def _xgboost(path: str, layout: Layout) -> Made:
    # MLflow writes the class down since 1.22; before, it took Boosters alone.
    model_class = layout.model_class
    if model_class is not None:
        refuse_other_class("xgboost", model_class)
    scikit_learn = None if model_class is None else not model_class.endswith(".Booster")
    return _forest(path, "xgboost", layout.columns, scikit_learn)


def _lightgbm(path: str, layout: Layout) -> Made:
    if zipfile.is_zipfile(path) or path.endswith(".pkl"):
        booster = booster_of(path)
        if booster is None or booster.family != "lightgbm":
            raise ArtifactError(
                f"{path} holds no LightGBM model: log the Booster itself (model.booster_)"
            )
        return _of_booster(path, booster, layout.columns)
    return _forest(path, "lightgbm", layout.columns)


def _of_booster(path: str, booster: Booster, columns: tuple[str, ...]) -> Made:
    _write_instead(path, booster.filename, booster.data)
    target = os.path.join(os.path.dirname(path), booster.filename)
    return _forest(target, booster.family, columns, scikit_learn=True)


def _sklearn(path: str, layout: Layout) -> Made:
    booster, names = _outlined(path)
    if booster is not None:
        return _of_booster(path, booster, layout.columns)
    _write_instead(path, "checkpoint.tl", treelite_bytes(path))
    return _forest(
        os.path.join(os.path.dirname(path), "checkpoint.tl"),
        "treelite",
        layout.columns,
        names=names,
    )


def _outlined(path: str) -> tuple[Booster | None, tuple[str, ...]]:
    """Both of one reading, which is let go of before a forest is read."""
    outline = read_outline(path)
    return booster_of(path, outline), feature_names(outline.root)


def _pytorch(path: str, _layout: Layout) -> Made:
    reason = why_no_torchscript(path)
    if reason:
        raise ArtifactError(f"{path} {reason}")
    return os.path.basename(path), None


def _forest(
    path: str,
    family: str,
    columns: tuple[str, ...],
    scikit_learn: bool | None = None,
    names: tuple[str, ...] = (),
) -> Made:
    forest = trees.read_forest(path, family, scikit_learn)
    if forest.instead is not None:
        _write_instead(path, os.path.basename(path), forest.instead)
    if os.path.basename(path) != forest.filename:
        with effect("rename", path):
            os.rename(path, os.path.join(os.path.dirname(path), forest.filename))
    columns = _in_order(columns, forest.names or names, forest.features)
    return forest.filename, forest_config(forest, columns)


def _in_order(signature: tuple[str, ...], names: tuple[str, ...], features: int) -> tuple[str, ...]:
    """The names of a signature in the order of the features: it has that of the table which it was
    made of. LightGBM's file has underscores for spaces.
    """
    if len(signature) != features:
        return names
    known = {name.replace(" ", "_"): name for name in signature} | {one: one for one in signature}
    ordered = tuple(known.get(name, "") for name in names)
    return ordered if {*ordered} == {*signature} else signature


def _write_instead(path: str, name: str, data: bytes) -> None:
    disk.remove_file(path)
    disk.write_file(os.path.join(os.path.dirname(path), name), data)


_CONVERTERS: dict[str, Callable[[str, Layout], Made]] = {
    "onnx": _onnx,
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
    "sklearn": _sklearn,
    "pytorch": _pytorch,
}
_ENDINGS: dict[str, tuple[str, ...]] = {
    "onnx": (".onnx",),
    "xgboost": ("",),
    "lightgbm": ("",),
    "sklearn": ("",),
    "pytorch": (".pt",),
}
