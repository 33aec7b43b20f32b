# SPDX-License-Identifier: Apache-2.0
"""Before anything is registered, a publication compares what will be served with the library that
trained the model.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import lightgbm
import numpy
import pytest
import xgboost
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import OtherAnswers
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.comparison import (
    COMPARED_TAG,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.local_model import (  # noqa: E501
    LocalModel,
    compared,
    read_local_model,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.upload import (
    UploadSource,
)

ROWS = numpy.random.default_rng(3).normal(size=(60, 4)).astype("float32")
VALUES = ROWS[:, 0] * 2 - ROWS[:, 1]
KINDS = numpy.digitize(VALUES, [-1, 1])
EXAMPLE = {"input__0": ROWS[:3].tolist()}


def train(kind: str, folder: Path) -> Path:
    few: dict[str, Any] = {"n_estimators": 8, "max_depth": 3}
    stops = {"early_stopping_rounds": 2, "learning_rate": 1.0}
    path = folder / ("model.txt" if kind.startswith("lightgbm") else "model.ubj")
    made: Any
    if kind == "xgboost regressor":
        made = xgboost.XGBRegressor(**few).fit(ROWS, VALUES)
    elif kind == "xgboost stopped early":
        other = numpy.random.default_rng(4).permutation(KINDS)
        made = xgboost.XGBClassifier(**{**few, "n_estimators": 40}, **stops)
        made.fit(ROWS, KINDS, eval_set=[(ROWS, other)], verbose=False)
        assert made.best_iteration + 1 < made.get_booster().num_boosted_rounds()
    elif kind == "xgboost binary":
        made = xgboost.XGBClassifier(**few).fit(ROWS, VALUES > 0)
    elif kind == "xgboost ranker":
        made = xgboost.XGBRanker(**few).fit(ROWS, KINDS, group=[30, 30])
    elif kind == "xgboost softmax booster":
        given = {"objective": "multi:softmax", "num_class": 3}
        made = xgboost.train(given, xgboost.DMatrix(ROWS, KINDS), 4)
    else:
        objective = {"lightgbm binary": VALUES > 0, "lightgbm classes": KINDS}
        given = {"verbose": -1, "min_data_in_leaf": 2}
        if kind == "lightgbm classes":
            given = {**given, "objective": "multiclass", "num_class": 3}
        elif kind == "lightgbm binary":
            given = {**given, "objective": "binary"}
        data = lightgbm.Dataset(ROWS, objective.get(kind, VALUES))
        made = lightgbm.train(given, data, 4)
    made.save_model(str(path))
    return path


TRAINED = (
    "xgboost regressor",
    "xgboost stopped early",
    "xgboost binary",
    "xgboost ranker",
    "xgboost softmax booster",
    "lightgbm binary",
    "lightgbm classes",
    "lightgbm values",
)


def read(path: Path) -> LocalModel:
    return read_local_model(str(path), "net", example=EXAMPLE)


@pytest.mark.parametrize("has_treelite", [True, False])
@pytest.mark.parametrize("kind", TRAINED)
def test_a_published_version_says_that_its_library_agrees(
    kind: str, has_treelite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = train(kind, tmp_path)
    if not has_treelite:
        monkeypatch.setitem(sys.modules, "treelite", None)
    made = compared(read(path), str(path))
    assert made.warning is None
    library = xgboost if kind.startswith("xgboost") else lightgbm
    if library is lightgbm and not has_treelite:  # nothing else on this host could be asked
        assert COMPARED_TAG not in made.tags
        return
    said = made.tags[COMPARED_TAG]
    assert said.startswith(f"as {library.__name__} {library.__version__} answers: 3 rows")


@pytest.mark.parametrize("has_treelite", [True, False])
def test_other_answers_are_refused(
    has_treelite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here with all trees of a model that stopped early, as if nobody had left any out."""
    path = train("xgboost stopped early", tmp_path)
    if not has_treelite:
        monkeypatch.setitem(sys.modules, "treelite", None)
    model = read(path)
    assert model.pieces["1/xgboost.ubj"].data, "nothing was left out"
    whole = UploadSource(path.stat().st_size, str(path))
    wrong = dataclasses.replace(model, pieces={**model.pieces, "1/xgboost.ubj": whole})
    with pytest.raises(OtherAnswers, match=r"model\.ubj would not be served as xgboost .* row 0"):
        compared(wrong, str(path))


def test_a_host_without_the_library_publishes_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = train("xgboost regressor", tmp_path)
    monkeypatch.setitem(sys.modules, "xgboost", None)
    model = read(path)
    assert compared(model, str(path)) == model


def test_a_library_that_cannot_answer_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = train("xgboost regressor", tmp_path)

    def fail(*_args: Any, **_options: Any) -> None:
        raise xgboost.core.XGBoostError("too new a file\nfor this release")

    monkeypatch.setattr(xgboost, "Booster", fail)
    made = compared(read(path), str(path))
    assert made.warning and made.warning.endswith(
        "was not compared with xgboost on this host: too new a file for this release"
    )
    assert COMPARED_TAG not in made.tags
