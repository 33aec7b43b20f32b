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
    _with_treelite,
    give_probabilities,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.local_model import (  # noqa: E501
    LocalModel,
    compared,
    read_local_model,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.upload import (
    UploadSource,
)
from differential.datasets import assert_same, both, softmax
from differential.serving import FIL, answers, publish

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


def of_classes(objective: str, **parameters: Any) -> tuple[Any, Any]:
    """A booster, and the probabilities that it knows."""
    given = {"objective": objective, "nthread": 1, "multi_strategy": "one_output_per_tree"}
    given |= {"num_class": 3} if objective.startswith("multi") else {}
    target = KINDS if objective.startswith("multi") else KINDS > 0
    model = xgboost.train(given | parameters, xgboost.DMatrix(ROWS, target), 4)
    margins = model.predict(xgboost.DMatrix(ROWS), output_margin=True)
    if margins.ndim > 1:
        return model, softmax(margins)
    return model, both(1 / (1 + numpy.exp(-margins)))


@pytest.mark.parametrize("ending", ["ubj", "json"])
@pytest.mark.parametrize("objective", ["multi:softmax", "multi:softprob", "binary:logistic"])
@pytest.mark.parametrize(
    "parameters",
    [
        {"multi_strategy": "multi_output_tree", "tree_method": "hist"},
        {"multi_strategy": "multi_output_tree", "num_parallel_tree": 3},
        {"multi_strategy": "one_output_per_tree"},
        {"booster": "dart", "rate_drop": 0.4},
    ],
)
def test_what_is_compared_is_what_is_served(
    objective: str, parameters: dict[str, Any], ending: str, tmp_path: Path
) -> None:
    """The library, the comparison and the backend answer with the same probabilities."""
    model, expected = of_classes(objective, **parameters)
    model.save_model(tmp_path / f"model.{ending}")
    assert_same(answers(publish(tmp_path / f"model.{ending}"), ROWS), expected)
    model_type = "xgboost_json" if ending == "json" else "xgboost_ubj"
    found = _with_treelite(str(tmp_path / f"model.{ending}"), model_type, ROWS)
    assert_same(found.reshape(len(ROWS), -1), expected[:, -found.size // len(ROWS) :])


def test_a_model_of_classes_that_stopped_early_answers_with_probabilities(tmp_path: Path) -> None:
    settings = {"multi_strategy": "multi_output_tree", "tree_method": "hist", "n_jobs": 1}
    model = xgboost.XGBClassifier(n_estimators=40, early_stopping_rounds=2, **settings)
    other = numpy.random.default_rng(4).permutation(KINDS)
    model.fit(ROWS, KINDS, eval_set=[(ROWS, other)], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    path = tmp_path / "model.ubj"
    model.save_model(path)
    assert_same(answers(publish(path), ROWS), model.predict_proba(ROWS))
    assert COMPARED_TAG in compared(read(path), str(path)).tags


class Header:
    """Stands for treelite's, which keeps no postprocessor of older releases."""

    def __init__(self, postprocessor: str, vector: int, average: bool) -> None:
        self.fields: dict[str, Any] = {
            "postprocessor": postprocessor,
            "leaf_vector_shape": [1, vector],
            "average_tree_output": [int(average)],
        }

    def get_field(self, name: str) -> Any:
        return self.fields[name]

    def set_field(self, name: str, value: Any) -> None:
        self.fields[name] = value


@pytest.mark.parametrize(
    ("postprocessor", "vector", "average", "becomes"),
    [
        ("softmax", 1, False, "softmax"),
        ("softmax", 1, True, "softmax"),
        ("softmax", 3, False, "softmax"),
        ("softmax", 3, True, "softmax"),
        ("multiclass_ova", 1, False, "multiclass_ova"),
        ("multiclass_ova", 3, False, "multiclass_ova"),
        ("identity_multiclass", 1, False, "softmax"),
        ("identity_multiclass", 3, False, "identity_multiclass"),
        ("identity_multiclass", 3, True, "identity_multiclass"),
        ("max_index", 1, False, "softmax"),
        ("max_index", 3, False, "softmax"),
        ("max_index", 3, True, "identity_multiclass"),
        ("identity", 1, False, "softmax"),
    ],
)
def test_comparison_and_backend_make_probabilities_by_one_rule(
    postprocessor: str, vector: int, average: bool, becomes: str
) -> None:
    for rule in (give_probabilities, FIL.give_probabilities):
        header = Header(postprocessor, vector, average)
        rule(header)
        assert header.fields["postprocessor"] == becomes
