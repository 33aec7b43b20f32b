#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: mlflow_publish
short_description: Publish local models as versions in the MLflow Model Registry
version_added: 0.1.0
description:
  - Uploads a model folder in Triton's layout, or one model file, and registers it as a new version.
  - The same content is published once. Each version has its content id as tag C(triton.content), so
    that a second run finds it and uploads nothing.
  - A manifest with the size and SHA-256 digest of every file is uploaded with them. Its digest is
    the tag C(triton.digest). Content that an older release published has a manifest that does not
    cover all files, and becomes a new version.
  - The version is registered after all files were uploaded and listed with their sizes. A broken
    upload leaves no version.
  - Runs on the host that has the files.
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
    details: The files are read to know their digest; nothing is uploaded or downloaded. Without
      mlflow on the host a warning says that the changes cannot be predicted.
  diff_mode:
    support: full
    details: Shows which files differ from the newest version, where this collection published
      that.
  idempotent:
    support: full
options:
  name:
    description:
      - The registered model. It is made when the registry does not have it.
      - Required together with O(path), unless O(models) is given.
    type: str
  path:
    description:
      - A folder in Triton's layout, with a C(config.pbtxt) and numbered folders in it.
      - Or one file. C(.onnx) with its external data, C(.plan) or C(.engine) of TensorRT, C(.bst),
        C(.json) or C(.ubj) of XGBoost, C(.txt) or C(.lgb) of LightGBM, C(.tl) of treelite,
        TorchScript C(.pt), or a Python C(model.py). It is put into Triton's layout, with a
        configuration made of the inputs and outputs that the file names. O(config) must name those
        that the file does not.
      - Files are judged by their content. Nothing is run, and no pickle is opened. A file that a
        scikit-learn class of XGBoost saved after it stopped early is published without the trees
        that the class leaves out; in a folder it is refused.
    type: path
  root:
    description:
      - Symbolic links in O(path) are published as the files they point to, which must lie below
        this folder.
      - When omitted, the folder above the one that holds O(path); for a single file, the folder
        that holds it.
    type: path
  aliases:
    description:
      - Aliases that point at this version afterwards. Other aliases stay as they are.
    type: list
    elements: str
    default: []
  tags:
    description:
      - Tags which this version has afterwards. Other tags stay as they are.
      - C(triton.tensorrt.version) and C(triton.tensorrt.compute_capability) say what a TensorRT
        plan was built for, so that a deployment can compare; V(10.5+) and V(8.0+) stand for plans
        that newer ones take, too. The version of TensorRT is read from the plan where it has one.
    type: dict
    default: {}
  description:
    description:
      - The version's description, in Markdown. It stays as it is when omitted. A new version then
        gets one that lists inputs and outputs.
    type: str
  experiment:
    description:
      - Name of the MLflow experiment that keeps the files. It is made when there is none of this
        name.
      - E(MLFLOW_EXPERIMENT_ID) or E(MLFLOW_EXPERIMENT_NAME) are used when omitted, then MLflow's
        default experiment.
    type: str
  config:
    description:
      - Fields of Triton's model configuration that replace those of the model, named as in
        C(config.pbtxt). A field set to C(null) is cleared.
      - Inputs and outputs of TensorRT plans, TorchScript modules and most Python models are given
        here.
    type: dict
  input_example:
    description:
      - An example to publish with the model. It maps names of inputs to nested lists, with the
        batch dimension where the model has one.
      - Deployments are verified with it. Another example makes a new version.
      - Where the host of the task has the library that trained a file of XGBoost or LightGBM, both
        answer the example before a new version is made. Other answers are refused, and the tag
        C(triton.compared) of the version tells what agreed. For LightGBM, this takes treelite too.
    type: dict
  check_files:
    description:
      - Whether to list the files of the version that has this content, and to publish it again
        where one of them is missing or has another size. With V(false), it is published again only
        where its description or its manifest is gone, or is not the one that was published.
    type: bool
    default: false
  sign:
    description:
      - With what a new version is signed, by OpenSSF model signing. The signature covers every file
        and the manifest, and lies beside them as C(model.sig). Deployments ask for it with
        O(mlops.triton.triton_model#module:require_signature), and the command C(model_signing)
        verifies it.
      - The tag C(triton.signer) names the signer. The same content that somebody else signed, or
        nobody, becomes a new version.
      - Keys and passwords come from files, or from variables of the environment of the host where
        the task runs. They are never written down.
      - Needs the Python library C(model-signing).
    type: dict
    suboptions:
      private_key:
        description: File with the private key in PEM form, on one of the curves P-256, P-384 and
          P-521.
        type: path
      private_key_env:
        description: Name of the variable that holds that key, in place of a file.
        type: str
      password:
        description: Password of the private key, where it has one.
        type: str
      password_env:
        description: Name of the variable that holds the password.
        type: str
      certificate:
        description:
          - File with the certificate of the key in PEM form. It needs the key usage
            C(digitalSignature) or the extended one C(codeSigning).
          - Without it the bare key signs.
        type: path
      certificate_chain:
        description: Files with the certificates between that one and the authority's.
        type: list
        elements: path
      identity_token_env:
        description: Name of the variable that holds a token of OpenID Connect, with which Sigstore
          signs, in place of a key. Its services are asked for this, so that the host needs a way
          into the internet. No test of this collection has tried it.
        type: str
  models:
    description:
      - Several models in one task, instead of O(name) and O(path). One that fails does not stop the
        others.
      - O(aliases), O(tags), O(experiment), O(check_files) and O(sign) of the task apply to models
        without their own.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - The registered model. It is made when the registry does not have it.
        type: str
        required: true
      path:
        description:
          - A folder in Triton's layout, with a C(config.pbtxt) and numbered folders in it.
          - Or one file. C(.onnx) with its external data, C(.plan) or C(.engine) of TensorRT,
            C(.bst), C(.json) or C(.ubj) of XGBoost, C(.txt) or C(.lgb) of LightGBM, C(.tl) of
            treelite, TorchScript C(.pt), or a Python C(model.py). It is put into Triton's layout,
            with a configuration made of the inputs and outputs that the file names.
            O(models[].config) must name those that the file does not.
          - Files are judged by their content. Nothing is run, and no pickle is opened. A file that
            a scikit-learn class of XGBoost saved after it stopped early is published without the
            trees that the class leaves out; in a folder it is refused.
        type: path
        required: true
      root:
        description:
          - Symbolic links in O(models[].path) are published as the files they point to, which must
            lie below this folder.
          - When omitted, the folder above the one that holds O(models[].path); for a single file,
            the folder that holds it.
        type: path
      aliases:
        description:
          - Aliases that point at this version afterwards. Other aliases stay as they are.
        type: list
        elements: str
        default: []
      tags:
        description:
          - Tags which this version has afterwards. Other tags stay as they are.
          - C(triton.tensorrt.version) and C(triton.tensorrt.compute_capability) say what a TensorRT
            plan was built for, so that a deployment can compare; V(10.5+) and V(8.0+) stand for
            plans that newer ones take, too. The version of TensorRT is read from the plan where it
            has one.
        type: dict
        default: {}
      description:
        description:
          - The version's description, in Markdown. It stays as it is when omitted. A new version
            then gets one that lists inputs and outputs.
        type: str
      experiment:
        description:
          - Name of the MLflow experiment that keeps the files. It is made when there is none of
            this name.
          - E(MLFLOW_EXPERIMENT_ID) or E(MLFLOW_EXPERIMENT_NAME) are used when omitted, then
            MLflow's default experiment.
        type: str
      config:
        description:
          - Fields of Triton's model configuration that replace those of the model, named as in
            C(config.pbtxt). A field set to C(null) is cleared.
          - Inputs and outputs of TensorRT plans, TorchScript modules and most Python models are
            given here.
        type: dict
      input_example:
        description:
          - An example to publish with the model. It maps names of inputs to nested lists, with the
            batch dimension where the model has one.
          - Deployments are verified with it. Another example makes a new version.
          - Where the host of the task has the library that trained a file of XGBoost or LightGBM,
            both answer the example before a new version is made, as with O(input_example).
        type: dict
      check_files:
        description:
          - Whether to list the files of the version that has this content, and to publish it again
            where one of them is missing or has another size. With V(false), it is published again
            only where its description or its manifest is gone, or is not the one that was
            published.
        type: bool
        default: false
      sign:
        description: As O(sign), for this model.
        type: dict
        suboptions:
          private_key:
            description: File with the private key in PEM form, on one of the curves P-256, P-384
              and P-521.
            type: path
          private_key_env:
            description: Name of the variable that holds that key, in place of a file.
            type: str
          password:
            description: Password of the private key, where it has one.
            type: str
          password_env:
            description: Name of the variable that holds the password.
            type: str
          certificate:
            description:
              - File with the certificate of the key in PEM form. It needs the key usage
                C(digitalSignature) or the extended one C(codeSigning).
              - Without it the bare key signs.
            type: path
          certificate_chain:
            description: Files with the certificates between that one and the authority's.
            type: list
            elements: path
          identity_token_env:
            description: Name of the variable that holds a token of OpenID Connect, with which
              Sigstore signs, in place of a key. Its services are asked for this, so that the host
              needs a way into the internet. No test of this collection has tried it.
            type: str
seealso:
  - module: mlops.triton.triton_model
  - module: mlops.triton.mlflow_model_info
author:
  - MLOps Triton contributors (@mlops-triton)
"""

EXAMPLES = r"""
- name: Publish a model folder, and make it the champion
  mlops.triton.mlflow_publish:
    name: sid-minibert-onnx
    path: /opt/models/triton-model-repo/sid-minibert-onnx
    tracking_uri: http://mlflow.example.com:5000
    aliases: [champion]

- name: Publish one ONNX file
  mlops.triton.mlflow_publish:
    name: fraud
    path: /opt/models/fraud.onnx
    tracking_uri: http://mlflow.example.com:5000
    tags:
      trained-on: 2026-01-01
    description: Gradient of the **third** quarter.
  register: published

- name: Publish a TensorRT plan, which does not name its inputs and outputs
  mlops.triton.mlflow_publish:
    name: detector
    path: /opt/models/detector.plan
    tracking_uri: http://mlflow.example.com:5000
    config:
      max_batch_size: 8
      input: [{name: images, data_type: TYPE_FP16, dims: [3, 640, 640]}]
      output: [{name: boxes, data_type: TYPE_FP16, dims: [-1, 6]}]
    tags:
      triton.tensorrt.version: "10.5"
      triton.tensorrt.compute_capability: "9.0"

- name: Publish a list in one task
  mlops.triton.mlflow_publish:
    tracking_uri: http://mlflow.example.com:5000
    models:
      - name: sid-minibert-onnx
        path: /opt/morpheus/models/triton-model-repo/sid-minibert-onnx
      - name: churn
        path: /opt/models/churn.ubj
        aliases: [champion]

- name: Sign what is published, with a key whose password is in the environment
  mlops.triton.mlflow_publish:
    name: fraud
    path: /opt/models/fraud.onnx
    tracking_uri: http://mlflow.example.com:5000
    sign:
      private_key: /etc/triton/release.pem
      password_env: RELEASE_KEY_PASSWORD
  environment:
    RELEASE_KEY_PASSWORD: "{{ vault_release_key_password }}"

- name: Deliver exactly what was published
  mlops.triton.triton_model:
    name: fraud
    model_uri: "{{ published.model.model_uri }}"
    tracking_uri: http://mlflow.example.com:5000
    model_repository: /opt/triton_models
"""

RETURN = r"""
model:
  description: The version that has this content.
  returned: success, without O(models)
  type: dict
  contains:
    name:
      description: The registered model.
      type: str
      returned: always
      sample: fraud
    version:
      description: The version's number; none in check mode when it would be new.
      type: int
      returned: always
      sample: 3
    model_uri:
      description: The URI of this version for other modules; none in check mode when it would be
        new.
      type: str
      returned: always
      sample: models:/fraud/3
    artifact_uri:
      description: Where the files are.
      type: str
      returned: not in check mode
      sample: mlflow-artifacts:/0/models/m-0a1b2c3d4e5f60718293a4b5c6d7e8f9/artifacts
    digest:
      description: The digest of the manifest, which covers path, size and sha256 of each file that
        the version has. None in check mode when the version would be new, as MLflow's own
        description is one of these files.
      type: str
      returned: always
      sample: bfb51b937048efbc7ef7002f1580429ff91772e35aa026995a5afe1d51631a04
    content:
      description: The content id, which identifies the version. It is independent of random names
        of external data.
      type: str
      returned: always
      sample: 7d865e959b2466918c9863afca942d0fb89d7c9ac0c99bafc3749504ded97730
    backend:
      description: Triton's backend for it, where the configuration or the files name one.
      type: str
      returned: always
      sample: onnxruntime
    signer:
      description: Who signed the version, or signs it in check mode, as its tag C(triton.signer)
        has it. It is the SHA-256 of the certificate, or of the public key in PEM form. V(null)
        where nobody did.
      type: str
      returned: always
      sample: null
    files:
      description: The files of the model folder, with size and the beginning of the sha256.
      type: dict
      returned: always
      sample: {"1/model.onnx": "197 bytes, sha256 404da6bfd9118aa3"}
actions:
  description: What was done, or would be in check mode.
  returned: success, without O(models)
  type: list
  elements: str
  sample:
    - upload 2 files (422 bytes) and register them as a new version
    - point alias 'champion' at the new version
models:
  description: One entry for each model, in the order of O(models).
  returned: with O(models)
  type: list
  elements: dict
  contains:
    name:
      description: The registered model.
      type: str
      returned: always
      sample: churn
    changed:
      description: Whether something was changed.
      type: bool
      returned: always
      sample: true
    failed:
      description: Whether it failed.
      type: bool
      returned: always
      sample: false
    msg:
      description: Why it failed, and what was left in place.
      type: str
      returned: when it failed
      sample: "model 'churn', read the model: /opt/models/churn.ubj is empty. Nothing was
        published."
    actions:
      description: What was done, or would be in check mode.
      type: list
      elements: str
      returned: always
      sample: ["upload 2 files (422 bytes) and register them as a new version"]
    model:
      description: The version, as RV(model).
      type: dict
      returned: always
      sample: {name: churn, version: 1, model_uri: models:/churn/1}
failures:
  description: The messages of the models that failed.
  returned: when one of O(models) failed
  type: list
  elements: str
  sample: []
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _options
from ..module_utils._delivery.artifacts.places import ArtifactPlaces
from ..module_utils._delivery.planning.policy_options import folders
from ..module_utils._delivery.publication.batch import publish
from ..module_utils._delivery.registry.registry import Registry
from ..module_utils._exit import join_results, run

ONE: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "path": {"type": "path", "required": True},
    "root": {"type": "path"},
    "aliases": {"type": "list", "elements": "str", "default": []},
    "tags": {"type": "dict", "default": {}},
    "description": {"type": "str"},
    "experiment": {"type": "str"},
    "config": {"type": "dict"},
    "input_example": {"type": "dict"},
    "check_files": {"type": "bool", "default": False},
    "sign": {
        "type": "dict",
        "options": {
            "private_key": {"type": "path", "no_log": False},
            "private_key_env": {"type": "str", "no_log": False},
            "password": {"type": "str", "no_log": True},
            "password_env": {"type": "str", "no_log": False},
            "certificate": {"type": "path"},
            "certificate_chain": {"type": "list", "elements": "path"},
            "identity_token_env": {"type": "str", "no_log": False},
        },
    },
}


def publish_models(module: AnsibleModule) -> dict[str, Any]:
    registry = Registry(
        module.params["tracking_uri"],
        module.params["timeout"],
        module.params["registry_uri"],
        places=ArtifactPlaces(folders("artifact_folders", module.params["artifact_folders"]) or ()),
    )
    if module.params["models"] is not None:
        common = {
            key: module.params[key]
            for key in ("aliases", "tags", "experiment", "check_files", "sign")
        }
        wanted = [
            {key: value or common.get(key) for key, value in entry.items()}
            for entry in module.params["models"]
        ]
        published = publish(registry, wanted, module.check_mode)
        return join_results([(result.to_dict(), result.warnings) for result in published])
    (result,) = publish(registry, [{key: module.params[key] for key in ONE}], module.check_mode)
    if result.error:
        raise result.error
    entry = result.to_dict()
    return {
        "changed": entry["changed"],
        "model": entry["model"],
        "actions": entry["actions"],
        "warnings": result.warnings,
        "diff": entry.get("diff", {}),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **_options.REGISTRY,
            **_options.SERVER,
            **_options.REPOSITORY,
            **_options.WAIT,
            **ONE,
            "name": {"type": "str"},
            "path": {"type": "path"},
            "models": {"type": "list", "elements": "dict", "options": ONE},
        },
        required_one_of=[("name", "models")],
        required_together=[("name", "path")],
        mutually_exclusive=[
            ("models", option)
            for option in ("name", "path", "root", "description", "config", "input_example")
        ],
        supports_check_mode=True,
    )
    run(module, publish_models)


if __name__ == "__main__":
    main()
