# SPDX-License-Identifier: Apache-2.0
"""Gives its columns back, and says of which type they came."""

import mlflow.models
import mlflow.pyfunc


class Types(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        answer = model_input.copy()
        kinds = [f"{answer[name].dtype}/{type(answer[name].iloc[0]).__name__}" for name in answer]
        answer["types"] = " ".join(kinds)
        return answer


mlflow.models.set_model(Types())
