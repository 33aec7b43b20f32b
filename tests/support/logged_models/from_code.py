# SPDX-License-Identifier: Apache-2.0
"""A model that is logged as code: MLflow keeps this file and runs it where the model is loaded."""

from __future__ import annotations

import mlflow
import pandas
from mlflow.pyfunc import PythonModel


class Doubler(PythonModel):
    def predict(self, context, model_input: pandas.DataFrame, params=None):
        return model_input.mul(2).add_prefix("twice_")


mlflow.models.set_model(Doubler())
