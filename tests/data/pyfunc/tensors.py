# SPDX-License-Identifier: Apache-2.0
"""Takes two named tensors, and gives an array."""

import mlflow.models
import mlflow.pyfunc


class Tensors(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        model_input["a"] += 1
        return model_input["a"] @ model_input["b"]


mlflow.models.set_model(Tensors())
