# SPDX-License-Identifier: Apache-2.0
"""Trains small models as their frameworks do and logs or saves them; runs in the environment
`frameworks`.

    python tests/support/train.py FOLDER TRACKING_URI

Writes FOLDER/index.json: for each case two versions, with where the model is, an input and what the
framework itself predicts.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# It trains on two cores beside servers, and prints nothing that anybody reads.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("MLFLOW_DISABLE_AGENT_HINTS", "true")

import lightgbm
import mlflow
import numpy
import treelite
import xgboost
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn import ensemble
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skops.io import dumps, get_untrusted_types

FEATURES = 6
TREES = "sklearn.tree._tree.Tree"
PREDICTOR = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"


class Case:
    """Data of one version, and what is written down of it."""

    def __init__(self, folder: Path, name: str, version: int) -> None:
        self.name, self.version = name, version
        self.folder = folder / name / str(version)
        self.folder.mkdir(parents=True)
        random = numpy.random.default_rng(version)
        self.x = random.normal(size=(400, FEATURES)).astype(numpy.float32)
        self.binary = (self.x[:, 0] + self.x[:, 1] * version > 0).astype(int)
        self.classes = self.binary + (self.x[:, 2] > 0)
        self.value = numpy.exp(self.x[:, 0]) * version
        self.rows = random.normal(size=(7, FEATURES)).astype(numpy.float32)

    def logged(
        self, log: Callable[..., Any], model: Any, expected: Any, **more: Any
    ) -> dict[str, Any]:
        # MLflow would find out what the model needs by importing it in another process, for 3 s.
        more = {"pip_requirements": ["mlflow"], **more}
        made = log(model, name="model", registered_model_name=self.name, **more)
        return self._entry({"version": int(made.registered_model_version)}, expected)

    def saved(self, filename: str, expected: Any, **options: Any) -> dict[str, Any]:
        return self._entry({"path": str(self.folder / filename), "options": options}, expected)

    def _entry(self, where: dict[str, Any], expected: Any) -> dict[str, Any]:
        found = numpy.asarray(expected, dtype=numpy.float64)
        if found.ndim == 1:
            found = found.reshape(-1, 1)
        return {**where, "rows": self.rows.tolist(), "expected": found.tolist()}


def both(probability: Any) -> Any:
    """FIL answers with one column for each class, XGBoost and LightGBM with the second one
    alone.
    """
    return numpy.stack([1 - probability, probability], axis=1)


def xgboost_booster(case: Case) -> dict[str, Any]:
    booster = xgboost.train(
        {"objective": "binary:logistic", "max_depth": 3}, xgboost.DMatrix(case.x, case.binary), 8
    )
    return case.logged(
        mlflow.xgboost.log_model, booster, both(booster.predict(xgboost.DMatrix(case.rows)))
    )


def xgboost_classes(case: Case) -> dict[str, Any]:
    model = xgboost.XGBClassifier(n_estimators=6, max_depth=3).fit(case.x, case.classes)
    return case.logged(mlflow.xgboost.log_model, model, model.predict_proba(case.rows))


def xgboost_stopped_early(case: Case) -> dict[str, Any]:
    noisy = case.binary ^ (numpy.arange(len(case.x)) % 3 == 0)
    model = xgboost.XGBClassifier(n_estimators=60, learning_rate=0.8, early_stopping_rounds=5)
    model.fit(case.x[:200], noisy[:200], eval_set=[(case.x[200:], noisy[200:])], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    return case.logged(mlflow.xgboost.log_model, model, model.predict_proba(case.rows))


def xgboost_json(case: Case) -> dict[str, Any]:
    model = xgboost.XGBRegressor(n_estimators=6, max_depth=3).fit(case.x, case.value)
    model.save_model(case.folder / "trees.json")
    return case.saved("trees.json", model.predict(case.rows))


def xgboost_ubj(case: Case) -> dict[str, Any]:
    model = xgboost.XGBClassifier(n_estimators=6, max_depth=3).fit(case.x, case.binary)
    model.save_model(case.folder / "trees.ubj")
    # Its name says nothing: what is in it counts.
    (case.folder / "trees.ubj").rename(case.folder / "trees.bst")
    return case.saved("trees.bst", model.predict_proba(case.rows))


def lightgbm_booster(case: Case) -> dict[str, Any]:
    booster = lightgbm.train(
        {"objective": "multiclass", "num_class": 3, "verbose": -1},
        lightgbm.Dataset(case.x, case.classes),
        5,
    )
    return case.logged(mlflow.lightgbm.log_model, booster, booster.predict(case.rows))


def lightgbm_skops(case: Case) -> dict[str, Any]:
    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(case.x, case.binary)
    trusted = [
        "collections.OrderedDict",
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
    ]
    return case.logged(
        mlflow.lightgbm.log_model,
        model,
        model.predict_proba(case.rows),
        skops_trusted_types=trusted,
    )


def lightgbm_pickle(case: Case) -> dict[str, Any]:
    model = lightgbm.LGBMRegressor(n_estimators=5, verbose=-1).fit(case.x, case.value)
    return case.logged(
        mlflow.lightgbm.log_model,
        model,
        model.predict(case.rows),
        serialization_format="cloudpickle",
    )


def lightgbm_text(case: Case) -> dict[str, Any]:
    booster = lightgbm.train(
        {"objective": "regression", "verbose": -1}, lightgbm.Dataset(case.x, case.value), 5
    )
    booster.save_model(case.folder / "trees.txt")
    return case.saved("trees.txt", booster.predict(case.rows))


def sklearn_forest(case: Case) -> dict[str, Any]:
    model = ensemble.RandomForestClassifier(12, random_state=1).fit(case.x, case.classes)
    return case.logged(
        mlflow.sklearn.log_model,
        model,
        model.predict_proba(case.rows),
        serialization_format="skops",
        skops_trusted_types=[TREES],
    )


def sklearn_pickle(case: Case) -> dict[str, Any]:
    model = ensemble.GradientBoostingRegressor(n_estimators=8, random_state=1).fit(
        case.x, case.value
    )
    return case.logged(
        mlflow.sklearn.log_model,
        model,
        model.predict(case.rows),
        serialization_format="cloudpickle",
    )


def sklearn_histogram(case: Case) -> dict[str, Any]:
    model = ensemble.HistGradientBoostingClassifier(max_iter=6, random_state=1).fit(
        case.x, case.binary
    )
    return case.logged(
        mlflow.sklearn.log_model,
        model,
        model.predict_proba(case.rows),
        serialization_format="cloudpickle",
    )


def serialized(case: Case, model: Any) -> dict[str, Any]:
    """The one way in version 1, the other in version 2."""
    if case.version == 1:
        return {"serialization_format": "cloudpickle"}
    trusted = get_untrusted_types(data=dumps(model))
    return {"serialization_format": "skops", "skops_trusted_types": trusted}


def sklearn_of_xgboost(case: Case) -> dict[str, Any]:
    """It stopped early, so that its class leaves the last trees out."""
    model = xgboost.XGBClassifier(
        n_estimators=40, max_depth=3, learning_rate=0.6, early_stopping_rounds=3
    )
    noise = case.classes[::-1]
    model.fit(case.x, case.classes, eval_set=[(case.x, noise)], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    expected, more = model.predict_proba(case.rows), serialized(case, model)
    return case.logged(mlflow.sklearn.log_model, model, expected, **more)


def sklearn_of_lightgbm(case: Case) -> dict[str, Any]:
    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(case.x, case.binary)
    expected, more = model.predict_proba(case.rows), serialized(case, model)
    return case.logged(mlflow.sklearn.log_model, model, expected, **more)


# -- what is refused in version 1, and what its message says to do in version 2 --------------------


def instead_of_a_search(case: Case) -> dict[str, Any]:
    forest = ensemble.RandomForestClassifier(5, random_state=1)
    model = GridSearchCV(forest, {"max_depth": [2, 3]}, cv=2).fit(case.x, case.binary)
    model = model if case.version == 1 else model.best_estimator_
    expected = model.predict_proba(case.rows)
    more = {"serialization_format": "cloudpickle"}
    return case.logged(mlflow.sklearn.log_model, model, expected, **more)


def instead_of_a_pipeline(case: Case) -> dict[str, Any]:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(case.x, case.binary)
    expected = model.predict_proba(case.rows)
    if case.version == 1:
        more = {"serialization_format": "cloudpickle"}
        return case.logged(mlflow.sklearn.log_model, model, expected, **more)
    made = to_onnx(model, case.x[:1], options={"zipmap": False})
    return case.logged(mlflow.onnx.log_model, made, expected)


def instead_of_several_outputs(case: Case) -> dict[str, Any]:
    both = numpy.stack([case.value, case.x[:, 1]], axis=1)
    model = ensemble.RandomForestRegressor(n_estimators=4, max_depth=4).fit(case.x, both)
    expected = model.predict(case.rows)
    if case.version == 1:
        more = {"serialization_format": "cloudpickle"}
        return case.logged(mlflow.sklearn.log_model, model, expected, **more)
    return case.logged(mlflow.onnx.log_model, to_onnx(model, case.x[:1]), expected)


def instead_of_a_pickle_with_a_function(case: Case) -> dict[str, Any]:
    model = ensemble.RandomForestClassifier(n_estimators=4, max_depth=4).fit(case.x, case.classes)
    expected = model.predict_proba(case.rows)
    more: dict[str, Any] = {"serialization_format": "skops", "skops_trusted_types": [TREES]}
    if case.version == 1:
        model.noted = os.path.join
        more = {"serialization_format": "cloudpickle"}
    return case.logged(mlflow.sklearn.log_model, model, expected, **more)


def instead_of_a_zipmap(case: Case) -> dict[str, Any]:
    model = LogisticRegression().fit(case.x, case.classes)
    options = {"zipmap": False} if case.version == 2 else None
    made = to_onnx(model, case.x[:1], options=options)
    return case.logged(mlflow.onnx.log_model, made, model.predict_proba(case.rows))


def instead_of_anothers_zipmap(case: Case) -> dict[str, Any]:
    """As CatBoost writes it, whose models have no option for it."""
    model = LogisticRegression().fit(case.x, case.classes)
    made = to_onnx(model, case.x[:1])
    if case.version == 2:
        graph = made.graph
        zipmap = next(node for node in graph.node if node.op_type == "ZipMap")
        tensor = helper.make_tensor_value_info(zipmap.input[0], TensorProto.FLOAT, [None, 3])
        graph.node.remove(zipmap)
        graph.output.remove(next(one for one in graph.output if one.name == zipmap.output[0]))
        graph.output.append(tensor)
    return case.logged(mlflow.onnx.log_model, made, model.predict_proba(case.rows))


def instead_of_a_pipeline_of_xgboost(case: Case) -> dict[str, Any]:
    boosted = xgboost.XGBClassifier(n_estimators=6, max_depth=3)
    model = make_pipeline(StandardScaler(), boosted).fit(case.x, case.binary)
    expected = model.predict_proba(case.rows)
    if case.version == 1:
        more = {"serialization_format": "cloudpickle"}
        return case.logged(mlflow.sklearn.log_model, model, expected, **more)
    case.rows = model[:-1].transform(case.rows)
    return case.logged(mlflow.xgboost.log_model, model[-1], expected)


def instead_of_a_number_for_what_is_missing(case: Case) -> dict[str, Any]:
    x = numpy.where(case.x > 1, numpy.nan, case.x)
    missing = -999.0 if case.version == 1 else numpy.nan
    model = xgboost.XGBRegressor(n_estimators=6, max_depth=3, missing=missing)
    model.fit(numpy.nan_to_num(x, nan=missing) if case.version == 1 else x, case.value)
    expected, more = model.predict(case.rows), {"serialization_format": "cloudpickle"}
    return case.logged(mlflow.sklearn.log_model, model, expected, **more)


def squared(labels: Any, predicted: Any) -> Any:
    return predicted - labels, numpy.ones_like(labels)


def instead_of_an_objective_of_ones_own(case: Case) -> dict[str, Any]:
    model = xgboost.XGBRegressor(n_estimators=6, max_depth=3, objective=squared)
    model.fit(case.x, case.value)
    expected = model.predict(case.rows)
    if case.version == 1:
        more = {"serialization_format": "cloudpickle"}
        return case.logged(mlflow.sklearn.log_model, model, expected, **more)
    return case.logged(mlflow.xgboost.log_model, model.get_booster(), expected)


def sklearn_columns(case: Case) -> dict[str, Any]:
    """A categorical column that no tree splits by: scikit-learn moves it before the others."""
    case.x[:, 4], case.rows[:, 4] = 1, 1
    model = ensemble.HistGradientBoostingRegressor(
        max_iter=6, categorical_features=[4], random_state=1
    ).fit(case.x, case.value)
    return case.logged(
        mlflow.sklearn.log_model,
        model,
        model.predict(case.rows),
        serialization_format="cloudpickle",
    )


def treelite_file(case: Case) -> dict[str, Any]:
    model = ensemble.ExtraTreesClassifier(9, random_state=1).fit(case.x, case.binary)
    treelite.sklearn.import_model(model).serialize(str(case.folder / "trees.tl"))
    return case.saved("trees.tl", model.predict_proba(case.rows))


def network(case: Case) -> tuple[Any, Any]:
    model = MLPClassifier((8,), random_state=1, max_iter=60).fit(case.x, case.classes)
    return to_onnx(model, case.x[:1], options={"zipmap": False}), model.predict_proba(case.rows)


def onnx_logged(case: Case) -> dict[str, Any]:
    model, expected = network(case)
    return case.logged(mlflow.onnx.log_model, model, expected)


def onnx_file(case: Case) -> dict[str, Any]:
    model, expected = network(case)
    (case.folder / "network.onnx").write_bytes(model.SerializeToString())
    return case.saved("network.onnx", expected)


def python_file(case: Case) -> dict[str, Any]:
    (case.folder / "model.py").write_text(
        "import numpy as np\nimport triton_python_backend_utils as pb_utils\n\n\nclass"
        " TritonPythonModel:\n    def execute(self, requests):\n        answers = []\n        for"
        " request in requests:\n            x = pb_utils.get_input_tensor_by_name(request,"
        " 'input__0').as_numpy()\n            y = (x.sum(axis=1, keepdims=True) *"
        f" {case.version}).astype(np.float32)\n           "
        " answers.append(pb_utils.InferenceResponse([pb_utils.Tensor('output__0', y)]))\n       "
        " return answers\n"
    )
    tensors = {
        "input": [{"name": "input__0", "data_type": "TYPE_FP32", "dims": [FEATURES]}],
        "output": [{"name": "output__0", "data_type": "TYPE_FP32", "dims": [1]}],
    }
    return case.saved(
        "model.py", case.rows.sum(axis=1) * case.version, config={"max_batch_size": 16, **tensors}
    )


CASES = (
    xgboost_booster,
    xgboost_classes,
    xgboost_stopped_early,
    xgboost_json,
    xgboost_ubj,
    lightgbm_booster,
    lightgbm_skops,
    lightgbm_pickle,
    lightgbm_text,
    sklearn_forest,
    sklearn_pickle,
    sklearn_histogram,
    sklearn_of_xgboost,
    sklearn_of_lightgbm,
    instead_of_a_search,
    instead_of_a_pipeline,
    instead_of_several_outputs,
    instead_of_a_pickle_with_a_function,
    instead_of_a_zipmap,
    instead_of_anothers_zipmap,
    instead_of_a_pipeline_of_xgboost,
    instead_of_a_number_for_what_is_missing,
    instead_of_an_objective_of_ones_own,
    sklearn_columns,
    treelite_file,
    onnx_logged,
    onnx_file,
    python_file,
)


def main() -> None:
    folder, uri = Path(sys.argv[1]), sys.argv[2]
    mlflow.set_tracking_uri(uri)
    index = {
        make.__name__: [make(Case(folder, make.__name__, version)) for version in (1, 2)]
        for make in CASES
    }
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")


if __name__ == "__main__":
    main()
