# SPDX-License-Identifier: Apache-2.0
"""Saves the models of this folder in the environment of a data scientist: save.py FOLDER."""

import sys
from pathlib import Path

import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

HERE = Path(__file__).resolve().parent
COLUMNS = ("boolean", "integer", "long", "float", "double", "string", "binary", "datetime")


def save_code(folder, name, signature):
    mlflow.pyfunc.save_model(
        folder / name,
        python_model=str(HERE / f"{name}.py"),
        code_paths=[str(HERE / "helper_of_model.py")],
        signature=signature,
        pip_requirements=[],
    )


def save_pipeline(folder):
    table = pd.DataFrame(
        {"age": [20, 30, 40, 50], "city": ["Rome", "Paris", "Rome", "Oslo"], "paid": [1.5, 2, 3, 4]}
    )
    encoder = ColumnTransformer([("city", OneHotEncoder(), ["city"])], remainder="passthrough")
    model = make_pipeline(encoder, LinearRegression()).fit(table, [1.0, 2.0, 3.5, 4.0])
    mlflow.sklearn.save_model(
        model,
        folder / "pipeline",
        signature=infer_signature(table, model.predict(table)),
        input_example=table,
        pip_requirements=[],
        serialization_format="cloudpickle",
    )
    print(*model.predict(table))


def main(folder):
    factor = ParamSchema([ParamSpec("factor", "double", 1.0)])
    does = Schema([ColSpec("double", "x"), ColSpec("string", "do")])
    says = Schema([ColSpec("double", "value"), ColSpec("string", "text")])
    save_code(folder, "troublesome", ModelSignature(does, says, factor))
    columns = Schema([ColSpec(kind, kind, required=kind != "long") for kind in COLUMNS])
    save_code(folder, "columns", ModelSignature(columns, None))
    tensors = [
        TensorSpec(np.dtype("float32"), (-1, 2), "a"),
        TensorSpec(np.dtype("float32"), (2, 2), "b"),
    ]
    answer = Schema([TensorSpec(np.dtype("float32"), (-1, 2))])
    save_code(folder, "tensors", ModelSignature(Schema(tensors), answer))
    save_code(folder, "broken", ModelSignature(does, does))
    save_pipeline(folder)


main(Path(sys.argv[1]))
