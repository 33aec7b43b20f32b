# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  tracking_uri:
    description:
      - MLflow tracking server, for example V(http://mlflow.example.com:5000).
      - The environment variable E(MLFLOW_TRACKING_URI) is used when it is omitted.
      - Credentials come from MLflow's own environment variables E(MLFLOW_TRACKING_USERNAME),
        E(MLFLOW_TRACKING_PASSWORD) and E(MLFLOW_TRACKING_TOKEN), so that no playbook has them.
    type: str
  registry_uri:
    description:
      - MLflow Model Registry, where it is not the tracking server.
      - The environment variable E(MLFLOW_REGISTRY_URI) is used when it is omitted.
    type: str
"""
