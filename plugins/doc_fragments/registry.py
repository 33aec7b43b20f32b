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
    type: str
  registry_uri:
    description:
      - MLflow Model Registry, where it is not the tracking server.
      - The environment variable E(MLFLOW_REGISTRY_URI) is used when it is omitted.
    type: str
  mlflow_username:
    description:
      - User of the MLflow servers, with O(mlflow_password).
      - MLflow's own environment variable E(MLFLOW_TRACKING_USERNAME) is used when it is omitted.
      - These credentials go to the servers of O(tracking_uri) and O(registry_uri) and to no other.
    type: str
  mlflow_password:
    description:
      - Password of O(mlflow_username).
      - MLflow's own environment variable E(MLFLOW_TRACKING_PASSWORD) is used when it is omitted.
    type: str
  mlflow_token:
    description:
      - Token of the MLflow servers, instead of O(mlflow_username) and O(mlflow_password).
      - MLflow's own environment variable E(MLFLOW_TRACKING_TOKEN) is used when all three are
        omitted.
    type: str
  mlflow_ca_file:
    description:
      - Certificates in PEM form to trust instead of the system's, for MLflow servers with C(https).
      - MLflow's own environment variable E(MLFLOW_TRACKING_SERVER_CERT_PATH) is used when it is
        omitted.
    type: path
  mlflow_client_cert:
    description:
      - This client's certificate in PEM form, for MLflow servers that ask for one.
      - MLflow's own environment variable E(MLFLOW_TRACKING_CLIENT_CERT_PATH) is used when it is
        omitted.
    type: path
  mlflow_client_key:
    description: Private key of O(mlflow_client_cert), where that file does not have it too.
    type: path
  artifact_folders:
    description:
      - Folders of this host in which the registry may say that artifacts lie, for example a share
        that the MLflow server writes to. Without them no answer of the registry makes this task
        read a file of the host, whatever C(file://) address a model version has.
      - A folder that a task itself names in O(ignore:model_uri) needs no entry here, and neither
        does what lies below a folder that O(tracking_uri) names.
    type: list
    elements: path
"""
