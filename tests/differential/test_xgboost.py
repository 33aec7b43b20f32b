# SPDX-License-Identifier: Apache-2.0
"""XGBoost's answers and those of the folders that its files become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
import xgboost
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import OtherAnswers
from differential.datasets import Table, assert_same, both, softmax, tables
from differential.serving import answers, convert_logged, publish
from hypothesis import assume, given
from hypothesis import strategies as st

BOOSTER = "xgboost.core.Booster"
FORMATS = st.sampled_from(["ubj", "json"])
TARGETS = {
    "reg:squarederror": "value",
    "reg:squaredlogerror": "positive",
    "reg:logistic": "share",
    "reg:pseudohubererror": "value",
    "reg:absoluteerror": "value",
    "reg:quantileerror": "value",
    "binary:logistic": "binary",
    "binary:logitraw": "binary",
    "binary:hinge": "binary",
    "count:poisson": "positive",
    "survival:cox": "positive",
    "survival:aft": "survival",
    "multi:softmax": "classes",
    "multi:softprob": "classes",
    "rank:pairwise": "ranks",
    "rank:ndcg": "ranks",
    "rank:map": "relevant",
    "reg:gamma": "positive",
    "reg:tweedie": "positive",
}
PARAMETERS: dict[str, st.SearchStrategy[Any]] = {
    "max_depth": st.integers(1, 8),
    "eta": st.sampled_from([0.1, 0.5, 1.0]),
    "num_parallel_tree": st.sampled_from([1, 1, 3]),
    "subsample": st.sampled_from([1.0, 0.6]),
    "seed": st.integers(0, 9),
}


def target_of(table: Table, kind: str) -> Any:
    value = table.value
    if kind == "classes":
        return table.classes(3)
    return {
        "value": value,
        "positive": numpy.abs(value) + 0.1,
        "share": 1 / (1 + numpy.exp(-value)),
        "binary": table.classes(2),
        "ranks": table.classes(3),
        "relevant": table.classes(2),
        "survival": numpy.abs(value) + 0.1,
    }[kind]


def matrix_of(table: Table, kind: str, target: Any) -> Any:
    matrix = xgboost.DMatrix(table.x, None if kind == "survival" else target)
    if kind == "survival":
        matrix.set_float_info("label_lower_bound", target)
        matrix.set_float_info("label_upper_bound", target * 2)
    if kind in ("ranks", "relevant"):
        matrix.set_group(table.groups(20))
    return matrix


def served(folder: Path, model: Any, ending: str, model_class: str) -> Path:
    model.save_model(folder / f"model.{ending}")
    entry = {"data": f"model.{ending}", "model_class": model_class}
    return convert_logged(folder, "xgboost", entry, f"model.{ending}")


@st.composite
def boosters(draw: st.DrawFn) -> tuple[Table, dict[str, Any], int]:
    objective = draw(st.sampled_from([*TARGETS]))
    parameters = draw(st.fixed_dictionaries(PARAMETERS)) | {"objective": objective, "nthread": 1}
    if draw(st.sampled_from([False, False, True])):
        parameters |= {"booster": "dart", "rate_drop": 0.4}
    if draw(st.booleans()):
        parameters["base_score"] = 0.3
    if TARGETS[objective] == "classes":
        parameters["num_class"] = 3
    if objective == "reg:quantileerror":
        parameters["quantile_alpha"] = draw(st.sampled_from([0.3, [0.2, 0.5, 0.8]]))
    strategies = [None, "one_output_per_tree", "multi_output_tree"]
    # XGBoost has no leaves of several values in dart.
    strategy = draw(st.sampled_from(strategies[: 2 if "booster" in parameters else 3]))
    if strategy:
        parameters["multi_strategy"] = strategy
    return draw(tables()), parameters, draw(st.integers(1, 9))


@given(drawn=boosters(), ending=FORMATS)
def test_a_booster_answers_as_xgboost(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: tuple[Table, dict[str, Any], int],
    ending: str,
) -> None:
    table, parameters, rounds = drawn
    objective = parameters["objective"]
    kind = TARGETS[objective]
    target = target_of(table, kind)
    several = kind in ("value", "share", "binary") and objective != "reg:quantileerror"
    if "multi_strategy" in parameters and several:
        target = numpy.stack([target, target[::-1]], axis=1)
    model = xgboost.train(parameters, matrix_of(table, kind, target), rounds)
    # All trees count for a Booster, whatever the file says of early stopping.
    model.set_attr(best_iteration="0")
    rows = xgboost.DMatrix(table.questions())
    margins = model.predict(rows, output_margin=True)
    expected = softmax(margins) if objective == "multi:softmax" else model.predict(rows)
    if objective == "binary:logistic" and expected.ndim == 1:
        expected = both(expected)
    made = served(tmp_path_factory.mktemp("made"), model, ending, BOOSTER)
    found = answers(made, table.questions())
    if objective == "binary:hinge":
        # Its answer is a step at 0, where the order of additions decides.
        steps = numpy.abs(margins.reshape(found.shape)) > 1e-5
        found, expected = (
            numpy.where(steps, found, 0),
            numpy.where(steps, expected.reshape(found.shape), 0),
        )
    assert_same(found, expected)


@st.composite
def early_stopping(draw: st.DrawFn) -> dict[str, Any]:
    parameters = draw(st.fixed_dictionaries(PARAMETERS)) | {"n_jobs": 1, "n_estimators": 12}
    parameters["early_stopping_rounds"] = draw(st.sampled_from([1, 3, None]))
    if draw(st.sampled_from([False, False, True])):
        parameters |= {"booster": "dart", "rate_drop": 0.4}
    if parameters["early_stopping_rounds"] and draw(st.sampled_from([False, False, True])):
        stop = xgboost.callback.EarlyStopping(
            parameters.pop("early_stopping_rounds"), save_best="booster" not in parameters
        )
        parameters["callbacks"] = [stop]
    return parameters


@given(
    table=tables(),
    parameters=early_stopping(),
    kind=st.sampled_from(["binary", "classes", "value", "outputs", "ranks"]),
    vectors=st.booleans(),
    ending=FORMATS,
    bare=st.booleans(),
)
def test_a_scikit_learn_model_answers_with_the_trees_that_it_uses(
    tmp_path_factory: pytest.TempPathFactory,
    table: Table,
    parameters: dict[str, Any],
    kind: str,
    vectors: bool,
    ending: str,
    bare: bool,
) -> None:
    x, half, more = table.x, table.rows // 2, {}
    if vectors and "booster" not in parameters:
        parameters = parameters | {"multi_strategy": "multi_output_tree"}
    if kind == "outputs":
        target: Any = numpy.stack([table.value, table.value[::-1]], axis=1)
    else:
        target = target_of(table, kind)
    if kind == "ranks":
        groups = numpy.repeat(numpy.arange(half // 10), 10)
        more = {"qid": groups, "eval_qid": [groups]}
    makers = {
        "binary": xgboost.XGBClassifier,
        "classes": xgboost.XGBClassifier,
        "ranks": xgboost.XGBRanker,
    }
    model = makers.get(kind, xgboost.XGBRegressor)(**parameters)
    assume(set(target[:half].ravel()) == set(target.ravel()) or kind not in ("binary", "classes"))
    evaluated = [(x[half:], target[half:])]
    model.fit(x[:half], target[:half], eval_set=evaluated, verbose=False, **more)
    rows, folder = table.questions(), tmp_path_factory.mktemp("made")
    classifies = kind in ("binary", "classes")
    expected = model.predict_proba(rows) if classifies else model.predict(rows)
    if bare:
        model.save_model(folder / f"model.{ending}")
        made = publish(folder / f"model.{ending}")
    else:
        name = f"xgboost.sklearn.{type(model).__name__}"
        made = served(folder, model, ending, name)
    assert_same(answers(made, rows), expected)


@given(table=tables(), codes=st.integers(2, 40), onehot=st.sampled_from([1, 50]), ending=FORMATS)
def test_categories_answer_as_xgboost(
    tmp_path_factory: pytest.TempPathFactory, table: Table, codes: int, onehot: int, ending: str
) -> None:
    """With whole numbers and missing values, which is all that a category can be."""
    random, x, rows = numpy.random.default_rng(table.seed), table.x, table.questions()
    x[:, 0] = random.integers(0, codes, table.rows)
    rows[:, 0] = random.choice([*range(codes + 3), 64, numpy.nan], len(rows))
    types = {"feature_types": ["c", *["q"] * (x.shape[1] - 1)], "enable_categorical": True}
    value = table.value + numpy.sin(x[:, 0] * 7)
    parameters = {"max_cat_to_onehot": onehot, "nthread": 1, "max_depth": 4}
    model = xgboost.train(parameters, xgboost.DMatrix(x, value, **types), 4)
    made = served(tmp_path_factory.mktemp("made"), model, ending, BOOSTER)
    assert_same(answers(made, rows), model.predict(xgboost.DMatrix(rows, **types)))


@pytest.mark.parametrize("names", [[10, 20, 30], ["a", "b", "c"]])
def test_what_is_advised_for_categories_of_a_table_is_served(
    tmp_path: Path, names: list[Any]
) -> None:
    random = numpy.random.default_rng(1)
    column = random.integers(0, 3, 300)
    frame = pandas.DataFrame({"a": random.normal(size=300)})
    frame["c"] = pandas.Categorical.from_codes(column, names)
    value, name = numpy.sin(column * 7), "xgboost.sklearn.XGBRegressor"
    refused = xgboost.XGBRegressor(n_estimators=3, enable_categorical=True).fit(frame, value)
    with pytest.raises(OtherAnswers, match=r"frame\[column\]\.cat\.codes in an array \(to_numpy\)"):
        served(tmp_path, refused, "ubj", name)
    frame["c"] = frame["c"].cat.codes
    rows = frame.to_numpy()
    model = xgboost.XGBRegressor(
        n_estimators=3, enable_categorical=True, feature_types=["q", "c"]
    ).fit(rows, value)
    made = served(tmp_path, model, "ubj", name)
    assert_same(answers(made, rows), model.predict(rows))


def stopped_early() -> tuple[Any, Any]:
    random = numpy.random.default_rng(0)
    x = random.normal(size=(400, 5)).astype(numpy.float32)
    y = (x[:, 0] + 2 * random.normal(size=400) > 0).astype(int)
    model = xgboost.XGBClassifier(n_estimators=60, learning_rate=0.5, early_stopping_rounds=10)
    model.fit(x[:200], y[:200], eval_set=[(x[200:], y[200:])], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    return model, x[:30]


def test_what_is_advised_for_early_stopping_is_served(tmp_path: Path) -> None:
    model, rows = stopped_early()
    config = (
        'backend: "fil" max_batch_size: 8 parameters { key: "model_type" value { string_value:'
        ' "xgboost_json" } } parameters { key: "output_class" value { string_value: "true" } }'
        ' parameters { key: "predict_proba" value { string_value: "true" } }'
        ' input { name: "input__0" data_type: TYPE_FP32 dims: 5 }'
        ' output { name: "output__0" data_type: TYPE_FP32 dims: 2 }'
    )
    folder = tmp_path / "net"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    model.save_model(folder / "1/xgboost.json")
    with pytest.raises(OtherAnswers, match=r"get_booster\(\)\[: model\.best_iteration \+ 1\]"):
        publish(folder)
    model.get_booster()[: model.best_iteration + 1].save_model(folder / "1/xgboost.json")
    assert_same(answers(publish(folder), rows), model.predict_proba(rows))
    logged = served(tmp_path, model.get_booster()[: model.best_iteration + 1], "ubj", BOOSTER)
    assert_same(answers(logged, rows), model.predict_proba(rows))
