# SPDX-License-Identifier: Apache-2.0
"""What MLflow's own flavors store becomes what Triton loads, in the staging folder, before anything
is swapped.

The same artifact always becomes the same bytes: nothing here depends on time, place or the order of
a dictionary.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from .. import disk
from ..disk import hash_file
from ..domain import config_pbtxt
from ..domain.backends import FIL_FILES
from ..domain.layout import Layout
from ..domain.manifest import FileEntry, Manifest
from ..effects import effect
from ..errors import ArtifactError, DeliveryError, OtherAnswers
from ..formats.default_config import forest_config, onnx_config
from ..formats.model_file import refuse_what_is_no_file
from ..formats.served import Served
from ..readers import questions
from ..readers.questions import read_served

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
        served = read_served(path, layout.conversion, layout.model_class, os.path.basename(path))
    except DeliveryError as error:
        error.about(step=STEP)
        raise
    name, config = _put(path, served, layout.columns)
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
            questions.refuse_other_answers(path, model_type)
        except OtherAnswers as error:
            # The staging folder means nothing to a reader.
            error.message = error.message.replace(path, target)
            raise
        except ArtifactError:
            pass  # whatever is wrong with it, the server says when it loads it


def _put(path: str, served: Served, columns: tuple[str, ...]) -> Made:
    """Lay down what a server reads in place of the file, or under which name."""
    target = os.path.join(os.path.dirname(path), served.filename)
    if served.data is not None:
        disk.remove_file(path)
        disk.write_file(target, served.data)
    elif path != target:
        with effect("rename", path):
            os.rename(path, target)
    if served.onnx is not None:
        return served.filename, onnx_config(served.onnx, served.filename, columns)
    forest = served.forest
    if forest is None:
        return served.filename, None
    return served.filename, forest_config(
        forest, _in_order(columns, forest.names or served.names, forest.features)
    )


def _in_order(signature: tuple[str, ...], names: tuple[str, ...], features: int) -> tuple[str, ...]:
    """The names of a signature in the order of the features: it has that of the table which it was
    made of. LightGBM's file has underscores for spaces.
    """
    if len(signature) != features:
        return names
    known = {name.replace(" ", "_"): name for name in signature} | {one: one for one in signature}
    ordered = tuple(known.get(name, "") for name in names)
    return ordered if {*ordered} == {*signature} else signature


_ENDINGS: dict[str, tuple[str, ...]] = {
    "onnx": (".onnx",),
    "xgboost": ("",),
    "lightgbm": ("",),
    "sklearn": ("",),
    "pytorch": (".pt",),
}
