# SPDX-License-Identifier: Apache-2.0
"""LightGBM's answers and those of the folders that its files become."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import lightgbm
import numpy
import pandas
import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import OtherAnswers
from differential.datasets import Table, assert_same, both, tables
from differential.serving import answers, convert_logged, publish
from hypothesis import assume, given
from hypothesis import strategies as st

TARGETS = {
    "regression": "value",
    "regression sqrt": "positive",
    "regression_l1": "value",
    "huber": "value",
    "fair": "value",
    "poisson": "positive",
    "quantile": "value",
    "mape": "positive",
    "gamma": "positive",
    "tweedie": "positive",
    "binary": "binary",
    "multiclass": "classes",
    "multiclassova": "classes",
    "cross_entropy": "share",
    "cross_entropy_lambda": "share",
    "lambdarank": "classes",
    "rank_xendcg": "classes",
}
QUIET = {"verbosity": -1, "num_threads": 1, "min_data_in_leaf": 3, "min_data_per_group": 1}


def target_of(table: Table, kind: str) -> Any:
    value = table.value
    return {
        "value": value,
        "positive": numpy.abs(value) + 0.1,
        "share": 1 / (1 + numpy.exp(-value)),
        "binary": table.classes(2),
        "classes": table.classes(3),
    }[kind]


@st.composite
def parameters(draw: st.DrawFn) -> dict[str, Any]:
    objective = draw(st.sampled_from([*TARGETS]))
    found: dict[str, Any] = QUIET | {
        "objective": objective.split()[0],
        "reg_sqrt": objective.endswith("sqrt"),
        "num_leaves": draw(st.integers(2, 20)),
        "learning_rate": draw(st.sampled_from([0.1, 1.0])),
        "cat_smooth": 1,
        "max_cat_to_onehot": draw(st.sampled_from([1, 20])),
        "use_missing": draw(st.sampled_from([True, True, False])),
        "zero_as_missing": draw(st.sampled_from([False, False, True])),
    }
    if TARGETS[objective] == "classes" and objective.startswith("multi"):
        found["num_class"] = 3
    if objective in ("binary", "multiclassova", "lambdarank"):
        found["sigmoid"] = draw(st.sampled_from([1.0, 2.5]))
    boosting = draw(st.sampled_from(["gbdt", "gbdt", "dart", "rf"]))
    found["boosting"] = boosting
    if boosting == "rf":
        found |= {"bagging_freq": 1, "bagging_fraction": 0.6}
    return found


@given(
    table=tables(),
    settings=parameters(),
    rounds=st.integers(1, 9),
    codes=st.sampled_from([0, 0, 5, 40]),
    bare=st.booleans(),
)
def test_a_booster_answers_as_lightgbm(
    tmp_path_factory: pytest.TempPathFactory,
    table: Table,
    settings: dict[str, Any],
    rounds: int,
    codes: int,
    bare: bool,
) -> None:
    """Only zero_as_missing may be refused. Categories are whole numbers or missing, as they are by
    LightGBM's own words.
    """
    random, x = numpy.random.default_rng(table.seed), table.x
    objective = settings["objective"] + (" sqrt" if settings["reg_sqrt"] else "")
    target = target_of(table, TARGETS[objective])
    if codes:
        x[:, 0] = random.integers(0, codes, table.rows)
    data = lightgbm.Dataset(x, target, categorical_feature=[0] if codes else "auto")
    if objective in ("lambdarank", "rank_xendcg"):
        data.set_group(table.groups(20))
    model = lightgbm.train(settings, data, rounds)
    rows = table.questions(infinities=True)
    if codes:
        rows[:, 0] = random.choice([-1, *range(codes + 3), 64, 1e9, numpy.nan], len(rows))
    expected = model.predict(rows)
    folder = tmp_path_factory.mktemp("made")
    model.save_model(folder / "model.txt")
    try:
        if bare:
            made = publish(folder / "model.txt")
        else:
            made = convert_logged(folder, "lightgbm", {"data": "model.txt"}, "model.txt")
    except OtherAnswers:
        assert settings["zero_as_missing"] and settings["use_missing"]
        return
    assert_same(answers(made, rows), both(expected) if objective == "binary" else expected)


@given(table=tables(), kind=st.sampled_from(["binary", "classes", "value"]), stop=st.booleans())
def test_a_pickled_model_answers_as_lightgbm(
    tmp_path_factory: pytest.TempPathFactory, table: Table, kind: str, stop: bool
) -> None:
    makers = {"binary": lightgbm.LGBMClassifier, "classes": lightgbm.LGBMClassifier}
    model = makers.get(kind, lightgbm.LGBMRegressor)(n_estimators=12, **QUIET)
    x, y, half = table.x, target_of(table, kind), table.rows // 2
    assume(kind == "value" or {*y[:half]} == {*y[half:]})
    callbacks = [lightgbm.early_stopping(2, verbose=False)] if stop else []
    model.fit(x[:half], y[:half], eval_set=[(x[half:], y[half:])], callbacks=callbacks)
    folder, rows = tmp_path_factory.mktemp("made"), table.questions()
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    expected = model.predict(rows) if kind == "value" else model.predict_proba(rows)
    made = convert_logged(folder, "lightgbm", {"data": "model.pkl"}, "model.pkl")
    assert_same(answers(made, rows), expected)


def convert(folder: Path, model: Any) -> Path:
    model.save_model(folder / "model.txt")
    return convert_logged(folder, "lightgbm", {"data": "model.txt"}, "model.txt")


def table_with_zeros() -> tuple[Any, Any]:
    random = numpy.random.default_rng(0)
    x = random.normal(size=(600, 6)).astype(numpy.float32)
    x[random.random(x.shape) < 0.3] = 0
    return x, x[:, 0] + (x[:, 1] == 0) * 5


def test_what_is_advised_for_zero_as_missing_is_served(tmp_path: Path) -> None:
    x, y = table_with_zeros()
    refused = lightgbm.train(QUIET | {"zero_as_missing": True}, lightgbm.Dataset(x, y), 20)
    with pytest.raises(OtherAnswers, match="NaN in place of each zero, and send NaN"):
        convert(tmp_path, refused)
    instead = numpy.where(x == 0, numpy.nan, x)
    model = lightgbm.train(QUIET, lightgbm.Dataset(instead, y), 20)
    found = answers(convert(tmp_path, model), instead)
    assert_same(found, model.predict(instead))
    # It is no worse a model.
    assert numpy.abs(found[:, 0] - y).mean() < 1.5 * numpy.abs(refused.predict(x) - y).mean()


def test_what_is_advised_for_linear_trees_is_served(tmp_path: Path) -> None:
    x, y = table_with_zeros()
    linear = QUIET | {"linear_tree": True}
    with pytest.raises(OtherAnswers, match="linear_tree=False"):
        convert(tmp_path, lightgbm.train(linear, lightgbm.Dataset(x, y), 9))
    model = lightgbm.train(linear | {"linear_tree": False}, lightgbm.Dataset(x, y), 9)
    assert_same(answers(convert(tmp_path, model), x), model.predict(x))


def test_numbered_categories_are_refused_and_their_codes_are_served(tmp_path: Path) -> None:
    random = numpy.random.default_rng(1)
    column = random.integers(0, 3, 300)
    frame = pandas.DataFrame({"a": random.normal(size=300)})
    frame["c"] = pandas.Categorical.from_codes(column, [10, 20, 30])
    value = numpy.sin(column * 7)
    with pytest.raises(OtherAnswers, match=r"frame\[column\]\.cat\.codes\.astype\('category'\)"):
        convert(tmp_path, lightgbm.train(QUIET, lightgbm.Dataset(frame, value), 5))
    frame["c"] = frame["c"].cat.codes.astype("category")
    model = lightgbm.train(QUIET, lightgbm.Dataset(frame, value), 5)
    rows = frame.astype(numpy.float32).to_numpy()
    assert_same(answers(convert(tmp_path, model), rows), model.predict(frame))


def seconds() -> tuple[Any, Any]:
    """Times since 1970 and within an hour, in double precision, and what depends on them."""
    random = numpy.random.default_rng(2)
    x = numpy.stack([random.normal(size=3000), 1.7e9 + random.integers(0, 3600, 3000)], axis=1)
    return x, numpy.sin(x[:, 1] / 300) + x[:, 0]


def test_what_is_advised_for_times_in_seconds_is_served(tmp_path: Path) -> None:
    x, y = seconds()
    with pytest.raises(OtherAnswers, match=r"of column 'Column_1' apart.*X - X\.min\(axis=0\)"):
        convert(tmp_path, lightgbm.train(QUIET, lightgbm.Dataset(x, y), 20))
    for data in (x - x.min(axis=0), x.astype("float32")):
        model = lightgbm.train(QUIET, lightgbm.Dataset(data, y), 20)
        assert_same(answers(convert(tmp_path, model), data.tolist()), model.predict(data))


@pytest.mark.parametrize(
    "column",
    [
        lambda random: random.normal(size=20_000),
        lambda random: random.normal(size=20_000) * 1e-12,
        lambda random: numpy.where(random.random(20_000) < 0.5, 0, random.normal(size=20_000)),
        lambda random: random.lognormal(3, 1, 20_000).round(2),
        lambda random: 100_000 + random.integers(-100, 100, 20_000) / 100,
        lambda random: random.integers(2**24 - 300, 2**24, 20_000).astype(float),
        lambda random: (1.7e9 + random.normal(size=20_000) * 1e5).astype(numpy.float32),
    ],
    ids=["normal", "tiny", "zeros", "decimals", "prices", "whole", "float32"],
)
def test_what_single_precision_keeps_apart_is_served(tmp_path: Path, column: Any) -> None:
    x = column(numpy.random.default_rng(3)).reshape(-1, 1)
    value = numpy.sin(x[:, 0].argsort().argsort() / 50)
    model = lightgbm.train(QUIET | {"num_leaves": 200}, lightgbm.Dataset(x, value), 20)
    assert_same(answers(convert(tmp_path, model), x.tolist()), model.predict(x))
