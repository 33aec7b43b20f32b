# SPDX-License-Identifier: Apache-2.0
"""A model that does not end to load."""

import time

import mlflow.models
import mlflow.pyfunc


class Slow(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        print("waiting for a license server")
        time.sleep(600)

    def predict(self, context, model_input, params=None):
        return model_input


mlflow.models.set_model(Slow())
