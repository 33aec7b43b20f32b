#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: triton_model_info
short_description: What is deployed to a Triton repository, and what each server really serves
version_added: 0.1.0
description:
  - Compares the records of this collection, the files on disk and every server, and reports in
    sentences where they differ.
  - The registry's options are accepted and ignored, so that C(module_defaults) of the action
    group C(mlops.triton.triton) can set registry, server and repository once for all modules.
extends_documentation_fragment:
  - mlops.triton.attributes
  - mlops.triton.environments
  - mlops.triton.libraries
  - mlops.triton.policy
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
    description: The models to report. When omitted, all that this collection deployed.
    type: list
    elements: str
  verify:
    description: Whether to ask each model that is to be loaded what proved its deployment before
      (O(mlops.triton.triton_model#module:verify)), or its MLflow input example.
    type: bool
    default: false
seealso:
  - module: mlops.triton.triton_model
author:
  - MLOps Triton contributors (@mlops-triton)
"""

EXAMPLES = r"""
- name: Ask what is deployed
  mlops.triton.triton_model_info:
    model_repository: /opt/triton_models
    triton_url: localhost:8000
  register: deployed

- name: Fail where a server serves something else than what is recorded
  ansible.builtin.assert:
    that: deployed.models | map(attribute='drift') | flatten | length == 0

- name: Fail where something is served that is not trusted any more
  mlops.triton.triton_model_info:
    model_repository: /opt/triton_models
    require_signature:
      public_keys: [/etc/triton/release.pub]
    revoked_keys: [c1c07c8f2de4e6bd1d3a4cf1db4eaefcf6d14bfae3f6ab1d0c7a8b5d9c0e4f12]
  register: judged
  failed_when: false in judged.models | map(attribute='trusted')

- name: Prove that each model still answers
  mlops.triton.triton_model_info:
    model_repository: /opt/triton_models
    triton_url: localhost:8000
    verify: true
  register: proven
  failed_when: false in proven.models | map(attribute='answers')
"""

RETURN = r"""
models:
  description: One entry for each model, sorted by name; the keys of
    RV(mlops.triton.triton_model#module:model) and those below.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the model.
      type: str
      returned: always
      sample: sid-minibert-onnx
    state:
      description: V(present), V(unloaded), V(absent), V(foreign) for one that this collection did
        not deploy, or V(unknown) where its record is damaged or newer; RV(models[].drift) says what
        to do then.
      type: str
      returned: always
      sample: present
    verified:
      description: When an inference proved what the deployment put in place, in UTC; V(null) where
        none did, so that it is not verified.
      type: str
      returned: for a deployment of this collection
      sample: "2026-01-01T12:00:02.000000+00:00"
    proof:
      description: What had answered as it should when it was verified, on all servers together.
        A number is V(null) where that cannot be told, and all of it where nothing was verified, or
        by a former release.
      type: dict
      returned: for a deployment of this collection
      sample: {requests: 5, gpus: 2, instances: 4}
      contains:
        requests:
          description: Number of requests that were compared. Of one instance one request is enough.
          type: int
        gpus:
          description: Number of GPUs. Needs C(metrics_url) where a model has several instances.
          type: int
        instances:
          description: Number of instances. Several are told apart for the backends of this
            collection, where C(metrics_url) is given; others are asked as often as most likely
            reaches each instance.
          type: int
    ready:
      description: Whether every server has a version of it ready.
      type: bool
      returned: always
      sample: true
    servers:
      description: What each server reports.
      type: list
      elements: dict
      returned: always
      sample:
        - url: localhost:8000
          deploy_id: 20260101T120000-0a1b2c3d
          ready_versions: [2]
          versions: []
    trusted:
      description: Whether the rules on who vouches for a model (O(require_digest),
        O(require_signature), O(revoked_digests), O(revoked_keys)) would take it today;
        RV(models[].drift) says why not. V(null) without such a rule. The other rules are not asked.
      type: bool
      returned: always
      sample: true
    drift:
      description: One sentence for each difference between record, disk and servers, and one for
        what is served, and no longer trusted.
      type: list
      elements: str
      returned: always
      sample: ["2/model.onnx changed on disk"]
    answers:
      description: Whether every server answers as it should; V(null) where that is not known, as
        there is nothing to ask it, or as it is not to be loaded.
      type: bool
      returned: with O(verify=true)
      sample: true
    unproven:
      description: Why it does not answer as it should, or why that is not known.
      type: str
      returned: with O(verify=true)
      sample: null
environments:
  description: The Python environments on this host, by digest, and the models that need them. Those
    that no deployment and no retained copy needs are removed after a run that changes something,
    unless O(environments.folder) names their folder.
  returned: always
  type: list
  elements: dict
  sample:
    - digest: 3f6c1b5e0d9a4c7b8e2f1a0b9c8d7e6f
      python: 3.11.7
      packages: 41
      size: 512000000
      models: [churn]
  contains:
    digest:
      description: Names the environment; C(pyfunc.environment) of a model has it.
      type: str
    python:
      description: Version of its Python.
      type: str
    packages:
      description: Number of its packages.
      type: int
    size:
      description: Bytes of its files.
      type: int
    models:
      description: Names of the models of this repository that need it.
      type: list
      elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _options
from ..module_utils._delivery.orchestration.inspection import Inspection
from ..module_utils._delivery.orchestration.target import Target
from ..module_utils._exit import run


def report(module: AnsibleModule) -> dict[str, Any]:
    with Inspection(Target.from_options(module.params)) as there:
        return {
            "changed": False,
            "models": there.status(module.params["names"], verify=module.params["verify"]),
            "environments": there.describe_environments(),
        }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **_options.REGISTRY,
            **_options.SERVER,
            **_options.REPOSITORY,
            **_options.ENVIRONMENTS,
            **_options.POLICY,
            **_options.WAIT,
            "names": {"type": "list", "elements": "str"},
            "verify": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    run(module, report)


if __name__ == "__main__":
    main()
