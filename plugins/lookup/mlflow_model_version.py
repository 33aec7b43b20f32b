# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: mlflow_model_version
short_description: Resolve a model URI to its exact version
version_added: 0.1.0
description:
  - Asks the MLflow Model Registry for the version number of a model URI such as
    C(models:/fraud@champion).
  - Runs on the controller. Each URI is resolved once in a run of C(ansible-playbook), so that all
    hosts of the run get the same version, even when the alias moves meanwhile.
  - Use the result in O(mlops.triton.triton_model#module:model_uri) where all hosts of a fleet must
    serve the same version.
options:
  _terms:
    description: Model URIs, V(models:/<name>@<alias>), V(models:/<name>/latest) or
      V(models:/<name>/<version>).
    type: list
    elements: str
    required: true
  tracking_uri:
    description: MLflow tracking server.
    type: str
    env:
      - name: MLFLOW_TRACKING_URI
    vars:
      - name: mlflow_tracking_uri
  registry_uri:
    description: MLflow Model Registry, where it is not the tracking server.
    type: str
    env:
      - name: MLFLOW_REGISTRY_URI
    vars:
      - name: mlflow_registry_uri
  mlflow_username:
    description: User of the MLflow servers, with O(mlflow_password).
    type: str
    env:
      - name: MLFLOW_TRACKING_USERNAME
    vars:
      - name: mlflow_username
  mlflow_password:
    description: Password of O(mlflow_username).
    type: str
    env:
      - name: MLFLOW_TRACKING_PASSWORD
    vars:
      - name: mlflow_password
  mlflow_token:
    description: Token of the MLflow servers, instead of O(mlflow_username) and O(mlflow_password).
    type: str
    env:
      - name: MLFLOW_TRACKING_TOKEN
    vars:
      - name: mlflow_token
  mlflow_ca_file:
    description: Certificates in PEM form to trust instead of the system's.
    type: path
    env:
      - name: MLFLOW_TRACKING_SERVER_CERT_PATH
    vars:
      - name: mlflow_ca_file
  mlflow_client_cert:
    description: This client's certificate in PEM form, for MLflow servers that ask for one.
    type: path
    env:
      - name: MLFLOW_TRACKING_CLIENT_CERT_PATH
    vars:
      - name: mlflow_client_cert
  mlflow_client_key:
    description: Private key of O(mlflow_client_cert), where that file does not have it too.
    type: path
    vars:
      - name: mlflow_client_key
  timeout:
    description: Seconds that the registry may take for one URI.
    type: float
    default: 60.0
requirements:
  - mlflow-skinny >= 2.11.3, < 4 (or mlflow), on the controller
seealso:
  - module: mlops.triton.triton_model
  - module: mlops.triton.mlflow_model_info
author:
  - MLOps Triton contributors (@mlops-triton)
"""

EXAMPLES = r"""
- name: Serve the same version on each host, whatever happens to the alias meanwhile
  mlops.triton.triton_model:
    name: fraud
    model_uri: "models:/fraud/{{ version }}"
    tracking_uri: "{{ mlflow }}"
    model_repository: /opt/triton_models
  vars:
    mlflow: http://mlflow.example.com:5000
    version: "{{ lookup('mlops.triton.mlflow_model_version', 'models:/fraud@champion',
      tracking_uri=mlflow) }}"
"""

RETURN = r"""
_raw:
  description: The version numbers, in the order of the URIs.
  type: list
  elements: int
  sample: [3]
"""

import fcntl
import json
import os
from typing import Any

from ansible import constants
from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import (
    LATEST,
    named_uri,
    parse_model_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    as_delivery_error,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.credentials import (
    Credentials,
    use_credentials,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)


class LookupModule(LookupBase):
    """Alias → version, for all hosts of one run."""

    def run(
        self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[int]:
        self.set_options(var_options=variables, direct=kwargs)
        try:
            return [self._version(str(term)) for term in terms]
        except AnsibleLookupError:
            raise
        except Exception as error:  # one that nobody foresaw is a sentence too
            said = as_delivery_error(error, "ask the registry")
            raise AnsibleLookupError(f"mlflow_model_version: {said}") from error

    def _version(self, term: str) -> int:
        uri = parse_model_uri(term)
        if uri.version is not None:
            return uri.version
        if uri.kind not in ("alias", "latest"):
            raise AnsibleLookupError(
                f"mlflow_model_version: '{term}' names no version of a registered model"
            )
        servers = [self.get_option("tracking_uri"), self.get_option("registry_uri")]
        # However it is spelt, an alias is asked for once.
        key = json.dumps([*servers, named_uri(uri.name, uri.alias or LATEST)])
        # Each host's templating is a process of its own; what they share is the folder that Ansible
        # makes for the run.
        with open(
            os.path.join(constants.DEFAULT_LOCAL_TMP, "mlflow_model_version.json"),
            "a+",
            encoding="utf-8",
        ) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            known: dict[str, int] = json.loads(file.read() or "{}")
            if key not in known:
                with use_credentials(Credentials.from_options(self.get_options())):
                    registry = Registry(servers[0], self.get_option("timeout"), servers[1])
                known[key] = registry.ready_version(uri)
                file.truncate(0)
                file.write(json.dumps(known))
            return known[key]
