# SPDX-License-Identifier: Apache-2.0
"""MLflow: what it says of models, and what it is told.

- ``connection``: the way to one MLflow, each call with a deadline.
- ``credentials``: what the options say of user, token and certificates.
- ``redirects``: MLflow's client is sent to no other server. Nothing beside these three imports
  mlflow.
- ``answers``: how much it may answer, and the numbers in that.
- ``registry``: models, versions, aliases and tags; what a model URI means now.
- ``status_tags``: how the registry shows where a version is deployed.
"""
