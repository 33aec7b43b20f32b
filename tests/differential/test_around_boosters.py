# SPDX-License-Identifier: Apache-2.0
"""What the scikit-learn classes of XGBoost and LightGBM do around their boosters is served or
refused, and what a refusal advises is served.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy
import pytest
import xgboost
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import ArtifactError
from differential.datasets import assert_same, both
from differential.serving import answers, convert_logged

QUIET: dict[str, Any] = {"verbosity": -1, "n_jobs": 1}


class SharpXgboost(xgboost.XGBClassifier):  # type: ignore[misc]
    def predict_proba(self, *args: Any, **named: Any) -> Any:
        return super().predict_proba(*args, **named) ** 2


class SharpLightgbm(lightgbm.LGBMClassifier):  # type: ignore[misc]
    def predict_proba(self, *args: Any, **named: Any) -> Any:
        return super().predict_proba(*args, **named) ** 2


def table() -> tuple[Any, Any]:
    random = numpy.random.default_rng(0)
    x = random.normal(size=(400, 5)).astype(numpy.float32)
    return x, (x[:, 0] + random.normal(size=400) > 0).astype(int)


def pickled(folder: Path, flavor: str, model: Any) -> Path:
    key = "pickled_model" if flavor == "sklearn" else "data"
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    return convert_logged(folder, flavor, {key: "model.pkl"}, "model.pkl")


def saved(folder: Path, model: Any) -> Path:
    """As MLflow's flavor of XGBoost does it."""
    model.save_model(folder / "model.ubj")
    kind = f"{type(model).__module__}.{type(model).__name__}"
    entry = {"data": "model.ubj", "model_class": kind}
    return convert_logged(folder, "xgboost", entry, "model.ubj")


def of_lightgbm(folder: Path, booster: Any) -> Path:
    booster.save_model(folder / "model.lgb")
    return convert_logged(folder, "lightgbm", {"data": "model.lgb"}, "model.lgb")


def test_a_class_that_derives_from_xgboost_s_is_refused_and_its_booster_served(
    tmp_path: Path,
) -> None:
    x, y = table()
    model = SharpXgboost(n_estimators=5).fit(x, y)
    with pytest.raises(ArtifactError, match=r"SharpXgboost is not .*model\.get_booster\(\)\)"):
        saved(tmp_path, model)
    booster = model.get_booster()
    assert_same(answers(saved(tmp_path, booster), x), both(booster.predict(xgboost.DMatrix(x))))


def test_a_class_that_derives_from_lightgbm_s_is_refused_and_its_booster_served(
    tmp_path: Path,
) -> None:
    x, y = table()
    model = SharpLightgbm(n_estimators=5, **QUIET).fit(x, y)
    with pytest.raises(ArtifactError, match=r"SharpLightgbm is not .*model\.booster_\)"):
        pickled(tmp_path, "lightgbm", model)
    booster = model.booster_
    assert_same(answers(of_lightgbm(tmp_path, booster), x), both(booster.predict(x)))


@pytest.mark.parametrize("kind", [int, float, numpy.int64, numpy.float32])
def test_a_number_that_means_missing_is_refused(tmp_path: Path, kind: Callable[[int], Any]) -> None:
    x, y = table()
    x[x < -1] = -999
    model = xgboost.XGBClassifier(n_estimators=5, missing=kind(-999)).fit(x, y)
    with pytest.raises(ArtifactError, match=r"takes -999(\.0)? for a missing value.*float\('nan'"):
        pickled(tmp_path, "sklearn", model)
    instead = numpy.where(x == -999, numpy.nan, x)
    model = xgboost.XGBClassifier(n_estimators=5, missing=float("nan")).fit(instead, y)
    assert_same(answers(pickled(tmp_path, "sklearn", model), instead), model.predict_proba(instead))


@pytest.mark.parametrize("flavor", ["lightgbm", "sklearn"])
@pytest.mark.parametrize("classes", [2, 3])
def test_trees_left_out_while_it_predicts_are_refused(
    tmp_path: Path, flavor: str, classes: int
) -> None:
    x, y = table()
    y = y + (classes == 3) * (x[:, 1] > 1)
    stop = {"pred_early_stop": True, "pred_early_stop_freq": 2, "pred_early_stop_margin": 0.5}
    model = lightgbm.LGBMClassifier(n_estimators=40, **QUIET, **stop).fit(x, y)
    with pytest.raises(ArtifactError, match=r"pred_early_stop.*model\.booster_\)"):
        pickled(tmp_path, flavor, model)
    expected = model.booster_.predict(x)
    served = answers(of_lightgbm(tmp_path, model.booster_), x)
    assert_same(served, both(expected) if classes == 2 else expected)


@pytest.mark.parametrize("flavor", ["lightgbm", "sklearn"])
def test_a_best_iteration_of_numpy_counts(tmp_path: Path, flavor: str) -> None:
    x, y = table()
    model = lightgbm.LGBMClassifier(n_estimators=40, **QUIET).fit(x, y)
    model.booster_.best_iteration = numpy.argmin([3, 2, 1, 0, 1]) + 1
    assert_same(answers(pickled(tmp_path, flavor, model), x), model.predict_proba(x))
