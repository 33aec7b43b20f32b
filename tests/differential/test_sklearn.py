# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's answers and those of the checkpoints that its forests become."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
import pandas
import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    ArtifactError,
    OtherAnswers,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.sklearn_class import (
    class_of,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.trees import (
    read_forest,
)
from differential.datasets import Table, assert_same, tables
from differential.serving import answers, convert_logged
from hypothesis import assume, given
from hypothesis import strategies as st
from skl2onnx import to_onnx
from sklearn import ensemble, tree
from sklearn.preprocessing import OrdinalEncoder
from skops.io import dump

FORMS = st.sampled_from(["skops", "pkl"])
DEPTHS = st.sampled_from([1, 3, None])
FORESTS: dict[Any, dict[str, st.SearchStrategy[Any]]] = {
    ensemble.RandomForestClassifier: {"class_weight": st.sampled_from([None, "balanced"])},
    ensemble.ExtraTreesClassifier: {"criterion": st.sampled_from(["gini", "entropy"])},
    ensemble.RandomForestRegressor: {
        "criterion": st.sampled_from(["squared_error", "absolute_error", "poisson"]),
        "monotonic_cst": st.sampled_from([None, 1, -1]),
    },
    ensemble.ExtraTreesRegressor: {},
}
TREES: tuple[Any, ...] = (
    tree.DecisionTreeClassifier,
    tree.ExtraTreeClassifier,
    tree.DecisionTreeRegressor,
    tree.ExtraTreeRegressor,
)
BOOSTED: dict[Any, dict[str, st.SearchStrategy[Any]]] = {
    ensemble.GradientBoostingClassifier: {"loss": st.sampled_from(["log_loss", "exponential"])},
    ensemble.GradientBoostingRegressor: {
        "loss": st.sampled_from(["squared_error", "absolute_error", "huber", "quantile"])
    },
}
HISTOGRAMS: dict[Any, dict[str, st.SearchStrategy[Any]]] = {
    ensemble.HistGradientBoostingClassifier: {"class_weight": st.sampled_from([None, "balanced"])},
    ensemble.HistGradientBoostingRegressor: {
        "loss": st.sampled_from(
            ["squared_error", "absolute_error", "gamma", "poisson", "quantile"]
        ),
        "quantile": st.just(0.3),
    },
}


def is_classifier(model: Any) -> bool:
    return hasattr(model, "predict_proba")


def target_of(model: Any, table: Table, classes: int) -> Any:
    if is_classifier(model):
        return numpy.array(["north", "east", "south"])[table.classes(classes)]
    return numpy.abs(table.value) + 0.1


def expected_of(model: Any, rows: Any) -> Any:
    return model.predict_proba(rows) if is_classifier(model) else model.predict(rows)


def convert(folder: Path, model: Any, form: str) -> Path:
    path = folder / f"model.{form}"
    if form == "skops":
        dump(model, path)
    else:
        path.write_bytes(pickle.dumps(model))
    data, kind = path.read_bytes(), type(model)
    seen = class_of(lambda start, size: data[start : start + size], len(data))
    assert seen == f"{kind.__module__}.{kind.__name__}"
    return convert_logged(folder, "sklearn", {"pickled_model": path.name}, path.name)


def averages(made: Path) -> bool:
    """Whether trees are averaged, by which older deployments are told apart."""
    return read_forest(str(made / "1" / "checkpoint.tl"), "treelite").averages


@st.composite
def forests(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from([*FORESTS, *TREES]))
    options = {"max_depth": draw(DEPTHS), "random_state": 1}
    if kind in FORESTS:
        options["n_estimators"] = draw(st.integers(1, 8))
        options |= {name: draw(each) for name, each in FORESTS[kind].items()}
    return kind(**options)


@given(
    table=tables(),
    model=forests(),
    classes=st.sampled_from([2, 3]),
    form=FORMS,
    double=st.booleans(),
)
def test_a_forest_answers_as_scikit_learn(
    tmp_path_factory: pytest.TempPathFactory,
    table: Table,
    model: Any,
    classes: int,
    form: str,
    double: bool,
) -> None:
    x, missing = table.x, True
    if double:  # thresholds that are no numbers of single precision
        x = x * (1 + numpy.random.default_rng(1).normal(size=x.shape) * 1e-8)
    if getattr(model, "monotonic_cst", None):
        model.set_params(monotonic_cst=[model.monotonic_cst, *[0] * (x.shape[1] - 1)])
    if isinstance(model, tree.ExtraTreeClassifier | tree.ExtraTreeRegressor):
        missing = False
    if not missing or getattr(model, "criterion", "") in ("absolute_error", "poisson"):
        x, missing = numpy.nan_to_num(x), False
    model.fit(x, target_of(model, table, classes))
    rows = table.questions(missing=missing)
    made = convert(tmp_path_factory.mktemp("made"), model, form)
    assert averages(made)
    assert_same(answers(made, rows), expected_of(model, rows))


@st.composite
def boosted(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from([*BOOSTED]))
    return kind(
        n_estimators=draw(st.integers(1, 8)),
        learning_rate=draw(st.sampled_from([0.1, 1.0])),
        init=draw(st.sampled_from([None, "zero"])),
        max_depth=draw(st.integers(1, 4)),
        random_state=1,
        **{name: draw(each) for name, each in BOOSTED[kind].items()},
    )


@given(table=tables(missing=False), model=boosted(), classes=st.sampled_from([2, 3]), form=FORMS)
def test_boosted_trees_answer_as_scikit_learn(
    tmp_path_factory: pytest.TempPathFactory, table: Table, model: Any, classes: int, form: str
) -> None:
    classes = 2 if model.loss == "exponential" else classes
    rows = table.questions(missing=False)
    model.fit(table.x, target_of(model, table, classes))
    made = convert(tmp_path_factory.mktemp("made"), model, form)
    assert_same(answers(made, rows), expected_of(model, rows))


@st.composite
def histograms(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from([*HISTOGRAMS]))
    return kind(
        max_iter=draw(st.integers(1, 8)),
        learning_rate=draw(st.sampled_from([0.1, 1.0])),
        max_depth=draw(DEPTHS),
        min_samples_leaf=3,
        early_stopping=draw(st.booleans()),
        random_state=1,
        **{name: draw(each) for name, each in HISTOGRAMS[kind].items()},
    )


@given(
    table=tables(),
    model=histograms(),
    classes=st.sampled_from([2, 3]),
    categorical=st.sampled_from([None, None, "indices", "mask", "dtype"]),
    place=st.integers(0, 5),
    form=FORMS,
)
def test_histograms_answer_as_scikit_learn(
    tmp_path_factory: pytest.TempPathFactory,
    table: Table,
    model: Any,
    classes: int,
    categorical: str | None,
    place: int,
    form: str,
) -> None:
    """A declared categorical column moves the others; only splits by it may be refused."""
    x, rows, place = table.x, table.questions(infinities=True), place % len(table.kinds)
    random = numpy.random.default_rng(table.seed)
    data: Any = x
    if categorical:
        x[:, place] = random.integers(0, 2, table.rows)
        rows[:, place] = random.integers(0, 2, len(rows))
        flags = [column == place for column in range(x.shape[1])]
        model.set_params(categorical_features={"indices": [place], "mask": flags}.get(categorical))
    asked: Any = rows
    if categorical == "dtype":
        model.set_params(categorical_features="from_dtype")
        data, asked = (pandas.DataFrame(each).rename(columns=str) for each in (x, rows))
        for frame in (data, asked):
            frame[str(place)] = frame[str(place)].astype("category")
    target = target_of(model, table, classes)
    try:
        model.fit(data, target)
    except ValueError as error:  # a class too rare to be set aside for early stopping
        assume("least populated class" not in str(error) and "test_size" not in str(error))
        raise
    splits = any(
        each.nodes["is_categorical"].any() for stage in model._predictors for each in stage
    )
    folder = tmp_path_factory.mktemp("made")
    if splits:
        with pytest.raises(ArtifactError, match="it splits by categories"):
            convert(folder, model, form)
        return
    made = convert(folder, model, form)
    assert not averages(made)
    assert_same(answers(made, rows), expected_of(model, asked))


def column_of(kind: str, rows: int, random: Any) -> Any:
    """More different values than a histogram has bins, many of them more than once: thresholds are
    values of the data then, not only numbers between two.
    """
    few = random.choice(random.lognormal(1, 1, rows // 2), rows)
    return {
        "cents": few.round(2),
        "thousandths": few.round(3) - 2,
        "percent": (few / 100).round(4),
        "prices": (few * 10_000).round(2),
        "whole": (few * 100_000).round(),
    }[kind]


@given(
    kinds=st.lists(
        st.sampled_from(["cents", "thousandths", "percent", "prices", "whole"]),
        min_size=1,
        max_size=3,
    ),
    seed=st.integers(0, 10_000),
    model=histograms(),
    classes=st.sampled_from([2, 3]),
    form=FORMS,
)
def test_a_histogram_of_decimals_answers_them_as_scikit_learn(
    tmp_path_factory: pytest.TempPathFactory,
    kinds: list[str],
    seed: int,
    model: Any,
    classes: int,
    form: str,
) -> None:
    """Trained on numbers of double precision and asked for them in JSON, in which a client sends
    the nearest ones of single precision.
    """
    random = numpy.random.default_rng(seed)
    x = numpy.stack([column_of(kind, 1500, random) for kind in kinds], axis=1)
    value = numpy.sin(x.argsort(axis=0).argsort(axis=0) @ random.normal(size=len(kinds)) / 50)
    target = numpy.digitize(value, [-0.5, 0.5][: classes - 1])
    model.fit(x, target if is_classifier(model) else numpy.exp(value))
    made = convert(tmp_path_factory.mktemp("made"), model, form)
    assert_same(answers(made, x.tolist()), expected_of(model, x))


@given(
    mean=st.sampled_from([0.0, 1e-30, 1.0, -2.0, 3e4, 1e7, 1.7e9]),
    seed=st.integers(0, 10_000),
    model=histograms(),
    distinct=st.sampled_from([40, 400, 1500]),
    form=FORMS,
)
def test_a_histogram_of_single_precision_answers_as_scikit_learn(
    tmp_path_factory: pytest.TempPathFactory,
    mean: float,
    seed: int,
    model: Any,
    distinct: int,
    form: str,
) -> None:
    """Neighbours among the numbers of single precision included, also where their steps change."""
    random, start = numpy.random.default_rng(seed), numpy.float32(mean)
    steps = numpy.linspace(start, start * 1.00001, 5, dtype=numpy.float32)
    near = random.choice([start, *steps], distinct).astype(numpy.float32)
    for _step in range(3):
        near = numpy.where(
            random.random(distinct) < 0.5, numpy.nextafter(near, numpy.float32(-9e37)), near
        )
    values = numpy.where(
        random.random(distinct) < 0.5, near, start + random.normal(size=distinct)
    ).astype(numpy.float32)
    x = random.choice(values, (1500, 2))
    value = numpy.sin(x.argsort(axis=0).argsort(axis=0) @ [0.02, 0.03])
    model.fit(x, numpy.digitize(value, [0]) if is_classifier(model) else numpy.exp(value))
    made = convert(tmp_path_factory.mktemp("made"), model, form)
    assert_same(answers(made, x), expected_of(model, x))


def test_what_is_advised_for_times_in_seconds_is_served(tmp_path: Path) -> None:
    random = numpy.random.default_rng(2)
    x = numpy.stack([random.normal(size=3000), 1.7e9 + random.integers(0, 3600, 3000)], axis=1)
    y = numpy.sin(x[:, 1] / 300) + x[:, 0]
    advice = r"apart, .*X - X\.min\(axis=0\)\) and send those, .*X\.astype\('float32'\)"
    for named in (False, True):
        data = pandas.DataFrame(x, columns=["a", "when"]) if named else x
        refused = ensemble.HistGradientBoostingRegressor().fit(data, y)
        for form in ("skops", "pkl"):
            with pytest.raises(
                OtherAnswers, match=("column 'when' " if named else "column 1 ") + advice
            ):
                convert(tmp_path, refused, form)
    for data in (x - x.min(axis=0), x.astype("float32")):
        model = ensemble.HistGradientBoostingRegressor().fit(data, y)
        found = answers(convert(tmp_path, model, "skops"), data.tolist())
        assert_same(found, model.predict(data))


def table_with_categories() -> tuple[Any, Any]:
    random = numpy.random.default_rng(0)
    x = random.normal(size=(400, 4)).astype(numpy.float32)
    x[:, 1] = random.integers(0, 6, 400) * 10
    return x, numpy.sin(x[:, 1]) * 3 + x[:, 0]


def test_what_is_advised_for_splits_by_categories_is_served(tmp_path: Path) -> None:
    x, y = table_with_categories()
    split = ensemble.HistGradientBoostingRegressor(categorical_features=[1]).fit(x, y)
    with pytest.raises(ArtifactError, match=r"categorical_features=None.*OrdinalEncoder"):
        convert(tmp_path, split, "skops")
    encoded = x.copy()
    encoded[:, [1]] = OrdinalEncoder().fit_transform(x[:, [1]])
    model = ensemble.HistGradientBoostingRegressor(categorical_features=None).fit(encoded, y)
    assert_same(answers(convert(tmp_path, model, "skops"), encoded), model.predict(encoded))


def test_what_is_advised_for_a_model_to_begin_with_is_served(tmp_path: Path) -> None:
    x, y = table_with_categories()
    begun = ensemble.GradientBoostingRegressor(init=ensemble.RandomForestRegressor(3)).fit(x, y)
    with pytest.raises(ArtifactError, match="train it without init"):
        convert(tmp_path, begun, "skops")
    model = ensemble.GradientBoostingRegressor().fit(x, y)
    assert_same(answers(convert(tmp_path, model, "skops"), x), model.predict(x))


@pytest.mark.parametrize(
    "model",
    [
        ensemble.AdaBoostClassifier(n_estimators=3),
        ensemble.BaggingRegressor(n_estimators=3, random_state=1),
    ],
)
def test_what_is_advised_for_other_classes_answers_as_scikit_learn(
    tmp_path: Path, model: Any
) -> None:
    x, y = table_with_categories()
    model.fit(x, (y > 0).astype(int) if is_classifier(model) else y)
    with pytest.raises(
        ArtifactError, match=r"convert it with skl2onnx .* log that with mlflow\.onnx"
    ):
        convert(tmp_path, model, "skops")
    options = {"options": {"zipmap": False}} if is_classifier(model) else {}
    session = onnxruntime.InferenceSession(to_onnx(model, x[:1], **options).SerializeToString())
    found = session.run(None, {session.get_inputs()[0].name: x})[-1]
    assert_same(found, expected_of(model, x))


def test_a_packed_archive_of_many_classes_has_room(tmp_path: Path) -> None:
    """Leaves of many classes are mostly zeros, of which an archive has a fiftieth of the bytes."""
    random = numpy.random.default_rng(0)
    x = random.normal(size=(4000, 3)).astype("float32")
    model = ensemble.RandomForestClassifier(4, random_state=0).fit(x, random.integers(0, 320, 4000))
    dump(model, tmp_path / "model.skops", compression=zipfile.ZIP_DEFLATED, compresslevel=9)
    logged = {"pickled_model": "model.skops"}
    made = convert_logged(tmp_path, "sklearn", logged, "model.skops")
    assert_same(answers(made, x[:20].tolist()), model.predict_proba(x[:20]))
