#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: triton_model
short_description: Deliver a model from the MLflow Model Registry to Triton
version_added: 0.1.0
description:
  - Makes a Triton Inference Server in EXPLICIT mode serve a model from an MLflow Model Registry, or
    stop serving it.
  - The model is staged, checked, swapped in at once, loaded, and proven to be the one that is
    served. When any of this fails, the model before it is put back and the task fails with Triton's
    own reason.
  - Runs on the host that holds the model repository, with a Python that has the required libraries;
    role P(mlops.triton.triton#role) makes one.
extends_documentation_fragment:
  - mlops.triton.attributes
  - mlops.triton.environments
  - mlops.triton.libraries
  - mlops.triton.model
  - mlops.triton.policy
  - mlops.triton.registry
  - mlops.triton.repository
  - mlops.triton.server
  - mlops.triton.status
  - mlops.triton.traffic
  - mlops.triton.wait
attributes:
  check_mode:
    support: full
    details: Nothing is downloaded. A server that is not running yet is taken to serve nothing, with
      a warning.
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: mlops.triton.triton_models
  - module: mlops.triton.triton_model_info
author:
  - MLOps Triton contributors (@mlops-triton)
"""

EXAMPLES = r"""
- name: Serve the version that is champion now
  mlops.triton.triton_model:
    name: sid-minibert-onnx
    model_uri: models:/sid-minibert-onnx@champion
    tracking_uri: http://mlflow.example.com:5000
    triton_url: localhost:8000
    model_repository: /opt/triton_models

- name: Serve version 3 on the CPU, and prove it by an inference
  mlops.triton.triton_model:
    name: abp-nvsmi-xgb
    model_uri: models:/abp-nvsmi-xgb/3
    tracking_uri: http://mlflow.example.com:5000
    model_repository: /opt/triton_models
    instance_kind: cpu
    config:
      max_batch_size: 1024
    verify:
      inputs:
        input__0: [[1, 2, 3, 4]]

- name: Stop serving a model and remove its files
  mlops.triton.triton_model:
    name: sid-minibert-onnx
    state: absent
    model_repository: /opt/triton_models
"""

RETURN = r"""
actions:
  description: What was done, or has to be done in check mode; empty when nothing had to be.
  returned: always
  type: list
  elements: str
  sample:
    - replace models:/sid-minibert-onnx/1 by models:/sid-minibert-onnx/2 (2 files, 1024 bytes)
    - load on localhost:8000
noted:
  description: Those of the actions that only write into the record. No file of the model and no
    server is touched by them.
  returned: always
  type: list
  elements: str
  sample: ["note that it is asked for as models:/sid-minibert-onnx@champion"]
hanging:
  description: The server in which a load that an earlier run began has not ended, so that only its
    restart helps.
  returned: when the task failed for that
  type: list
  elements: str
  sample: ["localhost:8000"]
reported:
  description: Those of the actions that write to the registry, by O(registry_status).
  returned: always
  type: list
  elements: str
  sample: ["tell the registry that models:/sid-minibert-onnx/2 is present on production"]
swap:
  description: Of a model that is served and loaded anew, what becomes of the old deployment
    meanwhile, V(overlap) or V(unload_first); otherwise C(null). See O(swap).
  returned: always
  type: str
  sample: overlap
model:
  description: The deployment as it is recorded; in check mode the one that is in place.
  returned: always
  type: dict
  contains:
    name:
      description: Name of the model in Triton.
      type: str
      returned: always
      sample: sid-minibert-onnx
    state:
      description: V(present), V(unloaded) or V(absent).
      type: str
      returned: always
      sample: present
    model_uri:
      description: The O(model_uri) that was asked for.
      type: str
      returned: when present
      sample: models:/sid-minibert-onnx@champion
    source:
      description: What RV(model.model_uri) meant then, with an exact version.
      type: str
      returned: when present
      sample: models:/sid-minibert-onnx/2
    alias:
      description: The alias that was asked for.
      type: str
      returned: when present
      sample: champion
    registry_name:
      description: Name of the registered model.
      type: str
      returned: when present
      sample: sid-minibert-onnx
    registry_version:
      description: Version of the registered model.
      type: int
      returned: when present
      sample: 2
    flavor:
      description: What the artifact holds.
      type: str
      returned: when present
      sample: triton
    served_as:
      description: What answers, V(native) for a backend of Triton, or V(pyfunc) for MLflow's own
        code.
      type: str
      returned: when present
      sample: pyfunc
    pyfunc:
      description: How MLflow's own code answers; V(null) where a backend of Triton does.
      type: dict
      returned: when present
      sample:
        why: no backend of Triton runs Pipeline
        form: tensors
        form_reason: null
        environment: 3f6c1b5e0d9a4c7b8e2f1a0b9c8d7e6f
        requirements: 12
        packages: 41
        worker: "1.0"
      contains:
        why:
          description: Why no backend of Triton answers.
          type: str
        form:
          description: V(tensors) where requests have the inputs of the signature, or V(json) where
            they have one input and one output that hold the JSON of MLflow's scoring server.
          type: str
        form_reason:
          description: Why tensors cannot carry exactly what it takes and answers; V(null) where
            they can.
          type: str
        environment:
          description: Digest of its Python environment.
          type: str
        requirements:
          description: Number of requirements that its publisher wrote down.
          type: int
        packages:
          description: Number of packages in the environment.
          type: int
        worker:
          description: Version of what runs it, as it was when the model was deployed. A newer
            release of this collection does not change it.
          type: str
    triton_versions:
      description: Versions as Triton numbers them.
      type: list
      elements: int
      returned: when present
      sample: [2]
    deploy_id:
      description: Identifies the deployment; the configuration that Triton serves carries it.
      type: str
      returned: when present
      sample: 20260101T120000-0a1b2c3d
    digest:
      description: sha256 over the manifest of the model's files.
      type: str
      returned: when present
      sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    config_digest:
      description: sha256 of the configuration without the deploy id.
      type: str
      returned: when present
      sample: 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752
    code:
      description: What of the model runs as code on the servers, in words. Empty where all of it is
        data, and V(null) where a release of this collection deployed it that did not say.
        O(model_code=refused) refuses what has code.
      type: str
      returned: when present
      sample: the program 2/model.py
    size:
      description: Bytes of the model's files.
      type: int
      returned: when present
      sample: 1024
    deployed_at:
      description: When it was deployed, in UTC.
      type: str
      returned: when present
      sample: "2026-01-01T12:00:00.000000+00:00"
    deployed_by:
      description: Who deployed it.
      type: str
      returned: when present
      sample: mlops@gpu-1 (process 4711)
    verified:
      description: When an inference proved what this deployment put in place, in UTC; V(null) where
        none did, so that it is not verified.
      type: str
      returned: when present
      sample: "2026-01-01T12:00:02.000000+00:00"
    proof:
      description: What had answered as it should when it was verified, on all servers together.
        A number is V(null) where that cannot be told, and all of it where nothing was verified, or
        by a former release.
      type: dict
      returned: when present
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
    replaced:
      description: The deployment before it.
      type: dict
      returned: when present
      sample: {deploy_id: 20251231T120000-0a1b2c3d, pinned_uri: "models:/sid-minibert-onnx/1"}
    signed_by:
      description: Who signed it, where O(require_signature) asked for that. C(key) is the SHA-256
        of the signer's public key, C(identities) the names in its certificate, C(authority) the
        SHA-256 of the certificate of the authority that vouches, C(issuer) who vouched at Sigstore,
        and C(chain) the SHA-256 sums of the certificates between, by which it can be revoked too.
      type: dict
      returned: when present
      sample:
        key: c1c07c8f2de4e6bd1d3a4cf1db4eaefcf6d14bfae3f6ab1d0c7a8b5d9c0e4f12
        identities: [release@example.com]
        authority: 5d1f0b6a7c3e4928b1a0d9c8e7f60514233445566778899aabbccddeeff00112
        issuer: null
        chain: []
    deployment_set:
      description: The deployment set that it was deployed with.
      type: str
      returned: when present
      sample: null
    rolled_back_from:
      description: Deploy id of the deployment that a rollback left.
      type: str
      returned: when present
      sample: null
    transaction:
      description: Identifies the run that changed it last, even where that kept the deploy id.
        O(rollback_to) accepts it.
      type: str
      returned: when present
      sample: 20260101T120000-0a1b2c3d
    options:
      description: The options that shaped its files.
      type: dict
      returned: when present
      sample: {instance_kind: cpu, version_folders: auto, serve_versions: 1}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _options
from ..module_utils._delivery.domain.desired import DesiredModel
from ..module_utils._delivery.orchestration.delivery import Delivery
from ..module_utils._delivery.orchestration.target import Target
from ..module_utils._exit import run


def deliver(module: AnsibleModule) -> dict[str, Any]:
    desired = DesiredModel.from_options(_options.wanted_model(module.params))
    with Delivery(Target.from_options(module.params)) as delivery:
        result = delivery.deliver([desired], check=module.check_mode)[0]
    return {**result.to_dict(), "warnings": [*result.warnings, *delivery.warnings]}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **_options.REGISTRY,
            **_options.SERVER,
            **_options.REPOSITORY,
            **_options.ENVIRONMENTS,
            **_options.POLICY,
            **_options.STATUS,
            **_options.TRAFFIC,
            **_options.WAIT,
            **_options.MODEL,
        },
        required_if=[("state", "present", ("model_uri",))],
        supports_check_mode=True,
    )
    run(module, deliver)


if __name__ == "__main__":
    main()
