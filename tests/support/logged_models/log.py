# SPDX-License-Identifier: Apache-2.0
"""Trains small models as a data scientist does, registers them, and writes down what MLflow's own
``pyfunc`` answers in this environment.

    PYTHON -m support.logged_models.log FOLDER TRACKING_URI MODEL…

Writes FOLDER/<MODEL>.json: for each version its signature, and for each request what MLflow's
``predict`` and its scoring server answer.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

# It trains on two cores beside servers, and prints nothing that anybody reads.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("MLFLOW_DISABLE_AGENT_HINTS", "true")

import mlflow
import pandas
from mlflow.pyfunc import scoring_server

from . import bad_models, python_models, sklearn_models, values
from .logged import Logged, Trained

SIGNATURE = ("inputs", "outputs", "params")
MODELS = {**sklearn_models.MODELS, **python_models.MODELS, **bad_models.MODELS}


def scoring_text(inputs: Any, params: dict[str, Any] | None) -> str:
    """A request as a user of ``mlflow models serve`` sends it."""
    if isinstance(inputs, pandas.DataFrame):
        split = inputs.to_json(orient="split", index=False, date_format="iso", double_precision=15)
        document: dict[str, Any] = {"dataframe_split": json.loads(split)}
    elif isinstance(inputs, dict):
        document = {"inputs": {name: one.tolist() for name, one in inputs.items()}}
    else:
        document = {"inputs": inputs.tolist() if hasattr(inputs, "tolist") else inputs}
    return json.dumps({**document, **({"params": params} if params else {})})


def answered(model: Any, inputs: Any, params: dict[str, Any] | None) -> dict[str, Any]:
    asked = values.write(inputs)
    # What was written down is what is asked, here and by the test.
    answer = model.predict(values.read(asked), params=params)
    text = scoring_text(values.read(asked), params)
    scored = scoring_server.invocations(
        text, "application/json", model, model.metadata.get_input_schema()
    )
    return {
        "inputs": asked,
        "params": params,
        "answer": values.write(answer),
        "scoring": {"request": text, "response": json.loads(scored.response)},
    }


def entry(logged: Logged) -> dict[str, Any]:
    signature = logged.info.signature
    described = signature.to_dict() if signature else {}
    requests = []
    if logged.requests:
        model = mlflow.pyfunc.load_model(logged.info.model_uri)
        requests = [answered(model, inputs, params) for inputs, params in logged.requests]
    return {
        "version": int(logged.info.registered_model_version),
        "python": platform.python_version(),
        **{
            key: json.loads(described.get(key) or "null") for key in ("inputs", "outputs", "params")
        },
        "requests": requests,
    }


def _program(name: str) -> Trained:
    """``churn_3`` is trained as ``churn`` is."""
    stem, _line, number = name.rpartition("_")
    return MODELS[stem if number.isdigit() else name]


def main() -> None:
    folder, tracking_uri, *names = sys.argv[1:]
    os.environ[bad_models.AT_HOME] = "yes"
    mlflow.set_tracking_uri(tracking_uri)
    for name in names:
        (Path(folder) / f"{name}.json").write_text(
            json.dumps([entry(logged) for logged in _program(name)(name)]), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
