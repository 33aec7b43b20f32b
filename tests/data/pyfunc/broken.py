# SPDX-License-Identifier: Apache-2.0
"""A model that cannot be loaded."""

import mlflow.models
import mlflow.pyfunc


class Broken(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        raise RuntimeError("the tokenizer is missing")

    def predict(self, context, model_input, params=None):
        return model_input


mlflow.models.set_model(Broken())
