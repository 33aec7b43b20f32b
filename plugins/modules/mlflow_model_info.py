#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: mlflow_model_info
short_description: Which models, versions and aliases an MLflow Model Registry has
version_added: 0.1.0
description:
  - Reads registered models, their versions, tags and aliases.
  - The options of server and repository are accepted and ignored, so that C(module_defaults) of the
    action group C(mlops.triton.triton) can set registry, server and repository once for all
    modules.
extends_documentation_fragment:
  - mlops.triton.attributes
  - mlops.triton.libraries
  - mlops.triton.registry
  - mlops.triton.repository
  - mlops.triton.server
  - mlops.triton.wait
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
    description: It changes nothing, so that there is nothing to show.
  idempotent:
    support: full
options:
  names:
    description:
      - The registered models to report. RV(models) leaves out those that the registry does not
        have.
      - When omitted, all registered models.
    type: list
    elements: str
seealso:
  - module: mlops.triton.mlflow_publish
  - plugin: mlops.triton.mlflow_model_version
    plugin_type: lookup
author:
  - MLOps Triton contributors (@mlops-triton)
"""

EXAMPLES = r"""
- name: Ask for one model
  mlops.triton.mlflow_model_info:
    names: [fraud]
    tracking_uri: http://mlflow.example.com:5000
  register: registry

- name: Show which version is the champion
  ansible.builtin.debug:
    msg: "{{ registry.models | map(attribute='aliases.champion', default='none') }}"
"""

RETURN = r"""
models:
  description: One entry for each registered model, sorted by name.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The registered model.
      type: str
      returned: always
      sample: fraud
    description:
      description: The registered model's description.
      type: str
      returned: always
      sample: Scores a payment.
    tags:
      description: The registered model's tags.
      type: dict
      returned: always
      sample: {"team": "risk"}
    aliases:
      description: The version to which each alias points.
      type: dict
      returned: always
      sample: {"champion": 3}
    versions:
      description: The versions, the newest first.
      type: list
      elements: dict
      returned: always
      contains:
        version:
          description: The version's number.
          type: int
          returned: always
          sample: 3
        model_uri:
          description: The URI of this version for other modules.
          type: str
          returned: always
          sample: models:/fraud/3
        aliases:
          description: The aliases that point at this version.
          type: list
          elements: str
          returned: always
          sample: [champion]
        tags:
          description: The version's tags. M(mlops.triton.mlflow_publish) sets C(triton.digest) and
            C(triton.backend).
          type: dict
          returned: always
          sample: {"triton.backend": "onnxruntime"}
        description:
          description: The version's description.
          type: str
          returned: always
          sample: Gradient of the third quarter.
        status:
          description: The version's status in MLflow, usually V(READY).
          type: str
          returned: always
          sample: READY
        source:
          description: What the version was made from, without credentials.
          type: str
          returned: always
          sample: models:/m-0a1b2c3d4e5f60718293a4b5c6d7e8f9
        model_id:
          description: The logged model, where MLflow 3 has one.
          type: str
          returned: always
          sample: m-0a1b2c3d4e5f60718293a4b5c6d7e8f9
        run_id:
          description: The run that made it, where there is one.
          type: str
          returned: always
          sample: 4a5b6c7d8e9f4a5b6c7d8e9f4a5b6c7d
        created:
          description: Milliseconds since 1970.
          type: int
          returned: always
          sample: 1767225600000
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _options
from ..module_utils._delivery.registry.registry import Registry
from ..module_utils._exit import run


def report(module: AnsibleModule) -> dict[str, Any]:
    registry = Registry(
        module.params["tracking_uri"], module.params["timeout"], module.params["registry_uri"]
    )
    return {
        "changed": False,
        "models": [model.to_dict() for model in registry.models(module.params["names"])],
    }


def main() -> None:
    spec = {
        **_options.REGISTRY,
        **_options.REPOSITORY,
        **_options.SERVER,
        **_options.WAIT,
        "names": {"type": "list", "elements": "str"},
    }
    run(AnsibleModule(argument_spec=spec, supports_check_mode=True), report)


if __name__ == "__main__":
    main()
