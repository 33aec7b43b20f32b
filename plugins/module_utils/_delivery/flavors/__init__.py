# SPDX-License-Identifier: Apache-2.0
"""From what lies in an artifact to the model folder that Triton loads.

- ``layouts``: which file goes where, and flavor ``triton``.
- ``mlflow_layouts``: the same for MLflow's own flavors: onnx, xgboost, lightgbm, sklearn, pytorch.
- ``pyfunc``: for whatever MLflow itself can run; and which way a model is served.
- ``conversion``: in staging, their files become what Triton loads.
"""
