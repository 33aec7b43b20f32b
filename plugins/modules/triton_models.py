#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: triton_models
short_description: Deliver a list of models from MLflow to Triton in one task
version_added: 0.1.0
description:
  - Does for each entry of O(models) what M(mlops.triton.triton_model) does for one. A single
    process does all, which makes long lists quick.
  - A model that fails does not stop the others. The task fails at the end and says which failed and
    why.
  - Models are downloaded and loaded in parallel. An ensemble, and a model with
    O(models[].depends_on), is deployed after the models that it needs, and removed before them.
    Where a model that it needs failed, it is left as it is and fails, too.
  - Models that use each other and change in the same list are one group. All of them are brought,
    then proven. Where one fails, all of them go back.
  - A registry, an artifact store or a server that does not answer is not waited for again with each
    model.
extends_documentation_fragment:
  - mlops.triton.attributes
  - mlops.triton.environments
  - mlops.triton.libraries
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
options:
  models:
    description: The models, each with the options of M(mlops.triton.triton_model). Names must
      differ.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the model in Triton, and of its folder.
          - Letters, digits and C(. _ @ -), at most 200 characters, because Triton's URLs can carry
            nothing else.
        type: str
        required: true
      model_uri:
        description:
          - What to deploy. Required with O(models[].state=present).
          - One of C(models:/name/3), C(models:/name@alias), C(models:/name/latest),
            C(models:/m-<id>), C(runs:/<run id>/path), or a folder on this host.
        type: str
      alias:
        description:
          - The alias that O(models[].model_uri) was resolved from, where a playbook resolved it
            once for a whole fleet. It is kept in the record.
        type: str
      state:
        description:
          - V(present) makes Triton serve the model as asked.
          - V(absent) unloads it and removes its files, record and retained copies.
          - V(unloaded) keeps its files and record and unloads it; it stays unloaded after a restart
            of the server. O(models[].model_uri) may be omitted for a model that is deployed.
          - V(rolled_back) goes back to the deployment before the last choice, from the copy that
            O(models[].keep) retained, without the registry. A choice is a V(present), also one that
            finds what it asks for in place, or an O(models[].rollback_to). A second run changes
            nothing. The next V(present) rolls forward, with a warning.
        type: str
        choices: [present, absent, unloaded, rolled_back]
        default: present
      rollback_to:
        description:
          - With O(models[].state=rolled_back), how far to go back. A registry version, a deploy id,
            or a source such as C(models:/name/2).
          - The deployment before the last choice when omitted.
        type: str
      undo:
        description:
          - With O(models[].rollback_to), whether the rollback takes back what a run has just
            deployed, as playbook C(deploy_models) does on a host where the run failed. What is
            taken back is not retained. It is no choice, and V(rolled_back) alone changes nothing
            afterwards.
        type: bool
        default: false
      flavor:
        description:
          - What the artifact holds. V(triton) is a folder in Triton's repository layout, V(onnx) an
            ONNX file.
          - The others are what MLflow's flavors of these names store. Trees of V(xgboost),
            V(lightgbm) and V(sklearn) go to Triton's FIL backend (V(sklearn) needs the library
            treelite), TorchScript modules of V(pytorch) to its PyTorch backend. Each gets a
            configuration that is made from the model. The scikit-learn classes of XGBoost and
            LightGBM are served from V(sklearn) too. A model of XGBoost's scikit-learn classes that
            stopped early is served with the trees that its class uses. What a server would compute
            otherwise than the library that trained the model is refused, such as trees of
            V(lightgbm) and V(sklearn) that tell numbers apart which are one in single precision,
            Triton's input.
          - A class that derives from one of theirs is refused, as a server does not run its code.
            XGBoost's own files do not say which number was C(missing) in training, so train with
            NaN, and send NaN.
          - Read from the artifact's C(MLmodel) when omitted.
        type: str
        choices: [triton, onnx, xgboost, lightgbm, sklearn, pytorch]
      serve_as:
        description:
          - What answers for a model that MLflow logged. V(native) is the backend of Triton that
            runs its file, such as ONNX Runtime or FIL. V(pyfunc) is MLflow's own C(pyfunc), in a
            process with the Python environment that the model was logged with; that runs code of
            the artifact.
          - V(auto) is native where there is a backend that answers the same, else C(pyfunc), as
            long as C(model_code) and C(allowed_backends) allow it. The plan says which, and why.
        type: str
        choices: [auto, native, pyfunc]
        default: auto
      batch_requests:
        description:
          - Whether rows of several requests may become one call of C(pyfunc). Only a model that
            answers each row by itself, whatever other rows there are, may have that.
          - When omitted, of flavors that are known to answer so.
        type: bool
      predict_timeout:
        description:
          - Seconds that one call of C(pyfunc) may take. Its process is ended then and started
            anew, and the request gets an error.
        type: float
        default: 60.0
      config:
        description:
          - Fields of Triton's model configuration that replace the author's, named as in
            C(config.pbtxt), for example C(max_batch_size) or C(instance_group). A field set to
            C(null) is cleared.
          - When omitted the configuration is the author's, byte for byte, with one block appended
            that identifies the deployment.
        type: dict
      instance_kind:
        description:
          - Changes the kind of every instance group. With V(cpu) a configuration which asks for a
            GPU serves on a host without one; V(gpu) does the reverse; V(auto) uses GPUs where the
            server has some. A configuration without a group gets one, because Triton may place it
            on GPUs.
          - V(cpu) and V(auto) remove the GPU numbers of a group. Groups of C(KIND_MODEL) and
            ensembles stay as they are.
        type: str
        choices: [cpu, gpu, auto]
      version_folders:
        description:
          - V(registry) makes the registry version the Triton version, V(artifact) keeps the
            artifact's version folders.
          - V(auto) is V(registry), except for artifacts with several version folders,
            configurations with C(version_policy.specific) or with the path of a file in a numbered
            folder (C(EXECUTION_ENV_PATH)), and models that an ensemble in the repository pins. Code
            that opens such a file by its number needs V(artifact).
        type: str
        choices: [auto, registry, artifact]
        default: auto
      serve_versions:
        description:
          - Number of registry versions to serve side by side, so that clients can pin a version.
            The version of O(models[].model_uri) is the highest.
          - Adding or retiring a version does not touch the files of the others, and Triton does not
            initialise them again. All versions have the configuration of the newest.
        type: int
        default: 1
      verify:
        description:
          - How to prove that the model answers after each load. When the option is given, also when
            nothing else has to be done.
          - V(none) trusts what Triton reports. V(auto) sends the model's MLflow input example where
            it has one. When the option is omitted, that is done after a load; where a dictionary
            has proved the same deployment before, it is sent again, also after a rollback.
          - An example of which no request can be made, and that of a decoupled model on a server
            that is asked over HTTP, is left out with a warning; the result's C(verified) then stays
            C(null).
          - A dictionary C({inputs, outputs, tolerance}) sends C(inputs) (tensor name to nested
            lists) and compares C(outputs) where given. Of a decoupled model, which is asked over
            gRPC, C(outputs) are those of all its answers, joined along the first dimension. One
            whose answers vary in the other dimensions cannot be compared.
          - Outputs that are floats may differ by C(tolerance), absolute and relative, which is
            C(0.0001) when it is not given. Whole numbers, booleans and texts have to be equal; a
            C(tolerance) that is given holds for whole numbers and booleans too.
          - Values are regular nested lists of numbers, texts and booleans. C(null) is refused; a
            number that is none is C(.nan). C(inputs) may also be the list of C({name, shape, data})
            that Triton's own requests have.
          - Of a model that MLflow's pyfunc runs, C(inputs) and C(outputs) name the columns of the
            signature, and C(inputs) may be a document of MLflow (C(dataframe_split), …) with
            C(params) beside it; there C(null) may be. Predictions without a name are
            C(predictions).
          - What a configuration that lists inputs and outputs shows to be wrong (a name, a type, a
            missing batch dimension, …) is refused before anything is changed, in check mode too.
          - When the verification fails, the deployment before is put back, and the task fails.
            Until then the new one answers clients; C(verify_aside) prevents that.
          - A model with several instances is asked until the metrics of the server (C(metrics_url))
            show that each GPU has answered and, for the backends of this collection, each instance.
            Other backends are asked as often as most likely reaches each instance.
        type: raw
      verify_aside:
        description:
          - Whether a new deployment is loaded and verified under another name first, and takes the
            place of the old one only when it has answered as it should. Without it, a deployment
            that loads and then fails the verification answers clients until the old one is back.
          - It costs a second load, and the memory of a second copy until that is unloaded.
          - It needs something to ask (C(verify), what proved the deployment before, or the model's
            own example), and is refused without. A model is not proven so together with models that
            it uses and that change in the same run. What Triton applies without loading again needs
            no proof.
          - Refused where Triton was started with C(--strict-readiness=true), because each load of a
            new name would make such a server not ready, and a load balancer would take it out.
        type: bool
        default: false
      swap:
        description:
          - What becomes of the old deployment while the new one is loaded. With V(overlap) it
            serves until the new one is loaded, so that both are in memory for a while, and no
            request fails.
          - With V(unload_first) it is unloaded before, for a GPU that has no room for both. Until
            the new one is loaded, the model answers no request. When the new one fails, the old one
            is loaded and proven again by the same run. Several servers of one repository go in
            turn. Versions side by side are unloaded all together. Not with
            O(models[].verify_aside), which needs room for two.
          - V(auto) is V(overlap) where the plan expects that both fit, or cannot tell. Otherwise it
            is V(unload_first) on servers that are O(drained), and V(overlap) with a warning on
            others.
          - What a deployment needs of each GPU is what the last one took there when it had been
            proven, where that was about as large, or else the size of its files for each instance.
            What is free, the metrics of the servers say (O(metrics_url)); without them nothing is
            estimated.
        type: str
        choices: [overlap, unload_first, auto]
        default: overlap
      keep:
        description: Number of previous deployments of this model to retain on disk.
        type: int
        default: 1
      adopt:
        description:
          - Take over (or, with O(models[].state=absent), remove) a foreign model of this name,
            which is one that this collection did not deploy.
        type: bool
        default: false
      check_files:
        description:
          - Hash the deployed files to find changes, instead of comparing size, times and inode with
            the record.
        type: bool
        default: false
      depends_on:
        description:
          - Names of models that this one calls while it serves, such as those that a Python model
            calls by BLS. A list of M(mlops.triton.triton_models) changes this model after them, and
            removes it before them.
          - An ensemble needs no such list, because its configuration names them.
          - A name that is neither in the list, nor in the repository, nor served is warned about.
          - When one of them changes, this model is asked whether it still answers, and the
            change is taken back where it does not. They are not removed or unloaded while this
            model is deployed.
          - When omitted, the names of the last deployment are kept.
        type: list
        elements: str
      owner:
        description: Owner of the model's files. When omitted and run by root, the owner of the
          repository folder.
        type: str
      group:
        description: Group of the model's files. When omitted and run by root, the group of the
          repository folder.
        type: str
      mode:
        description:
          - Permission bits of the model's files as an octal string such as V('0640'); folders get
            an execute bit wherever there is a read bit.
          - V('0644') when omitted, so that the server's user can read them.
        type: raw
  deployment_set:
    description: A name for this list, kept in the records of its models.
    type: str
  purge:
    description:
      - Remove the models that were deployed with the same O(deployment_set) and are no longer
        listed in O(models), and no others. A model that a listed one still depends on stays, with
        an error.
    type: bool
    default: false
  purge_limit:
    description:
      - Percentage of the models of O(deployment_set) that O(purge) may remove, from 0 to 100. Where
        more would go, the task fails and changes nothing.
      - When omitted, an empty O(models) removes none, and another list removes up to three, or up
        to a half of them. A list that did not load as a whole does not take the models of a fleet
        away then.
    type: float
  only_environments:
    description:
      - Make the Python environments that O(models) need on this host, and nothing else. No model,
        no record and no server is changed, and O(purge) has no effect.
      - A fleet makes them so on one host first. The others get its C(lock) of each C(key) in
        O(environments.locks), so that all of them install the same packages.
    type: bool
    default: false
  parallel_downloads:
    description: How many models are downloaded and converted at the same time.
    type: int
    default: 4
  parallel_loads:
    description:
      - How many models are put in place and loaded at the same time. Triton itself loads four at a
        time by default (C(--model-load-thread-count)).
      - Over HTTP, each load can make other HTTP clients of the server wait; over gRPC, none does.
    type: int
    default: 4
seealso:
  - module: mlops.triton.triton_model
  - module: mlops.triton.triton_model_info
author:
  - MLOps Triton contributors (@mlops-triton)
"""

EXAMPLES = r"""
- name: Deliver two models
  mlops.triton.triton_models:
    tracking_uri: http://mlflow.example.com:5000
    triton_url: localhost:8000
    model_repository: /opt/triton_models
    models:
      - name: sid-minibert-onnx
        model_uri: models:/sid-minibert-onnx@champion
      - name: abp-nvsmi-xgb
        model_uri: models:/abp-nvsmi-xgb/3
        instance_kind: cpu

- name: Remove one and keep the other
  mlops.triton.triton_models:
    tracking_uri: http://mlflow.example.com:5000
    model_repository: /opt/triton_models
    models:
      - name: sid-minibert-onnx
        state: absent
      - name: abp-nvsmi-xgb
        model_uri: models:/abp-nvsmi-xgb/3
        instance_kind: cpu
"""

RETURN = r"""
models:
  description: One entry for each model, in the order of the list.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the model.
      type: str
      returned: always
      sample: sid-minibert-onnx
    changed:
      description: Whether it was changed.
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
      sample: "model 'sid-minibert-onnx', load: Triton answered: load failed.
        models:/sid-minibert-onnx/1 is in place as before."
    actions:
      description: What was done, or has to be done in check mode.
      type: list
      elements: str
      returned: always
      sample:
        - deploy models:/sid-minibert-onnx/1 (2 files, 1024 bytes)
        - load on localhost:8000
        - write the record
    noted:
      description: Those of the actions that only write into the record. No file of the model and no
        server is touched by them.
      type: list
      elements: str
      returned: always
      sample: ["note that it is asked for as models:/sid-minibert-onnx@champion"]
    reported:
      description: Those of the actions that write to the registry, by O(registry_status).
      type: list
      elements: str
      returned: always
      sample: ["tell the registry that models:/sid-minibert-onnx/1 is present on production"]
    swap:
      description: Of a model that is served and loaded anew, what becomes of the old deployment
        meanwhile, V(overlap) or V(unload_first); otherwise C(null). See O(models[].swap).
      type: str
      returned: always
      sample: overlap
    model:
      description: The deployment, as RV(mlops.triton.triton_model#module:model). Of a model that
        failed, the one that is in place; C(state) may also be V(foreign) or V(unknown) then.
      type: dict
      returned: always
      sample:
        name: sid-minibert-onnx
        state: present
        registry_version: 1
        triton_versions: [1]
        verified: "2026-01-01T12:00:02.000000+00:00"
environments:
  description:
    - The Python environments that models need of which something is brought. In check mode, those
      that would be used.
    - With O(only_environments), C(models) is empty.
  returned: in check mode, and with O(only_environments)
  type: list
  elements: dict
  contains:
    model:
      description: Name of the model.
      type: str
      sample: churn
    requirements:
      description: Identifies what the model asks for.
      type: str
      sample: 5f3f0d1c
    key:
      description: Hosts that have this in common install the same with one C(lock). Null where no
        fitting Python is known yet.
      type: str
      sample: 0f3c2a9d
    digest:
      description: Identifies the environment, and is the name of its folder. Null where it is not
        resolved yet.
      type: str
      sample: 9b7c1e55
    packages:
      description: Number of packages. Null where they are not resolved yet.
      type: int
      sample: 41
    size:
      description: Bytes of its files. Null in check mode.
      type: int
      sample: 362801152
    lock:
      description: Exact versions with their hashes. Null in check mode.
      type: str
      sample: "numpy==2.3.5 --hash=sha256:5f3f…"
    changed:
      description: Whether it was made now, or would be.
      type: bool
      sample: true
unreached:
  description: The servers that did not answer, in check mode. Otherwise the task fails.
  returned: always
  type: list
  elements: str
  sample: []
hanging:
  description: The servers in which a load that an earlier run began has not ended, so that only
    their restart helps.
  returned: always
  type: list
  elements: str
  sample: []
failures:
  description: The messages of the models that failed.
  returned: when one failed
  type: list
  elements: str
  sample: []
"""

from collections.abc import Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _options
from ..module_utils._delivery.domain.desired import DesiredModel
from ..module_utils._delivery.errors import DeliveryError, as_delivery_error
from ..module_utils._delivery.orchestration.delivery import Delivery
from ..module_utils._delivery.orchestration.preparation import Prepared
from ..module_utils._delivery.orchestration.report import Result
from ..module_utils._delivery.orchestration.target import Target
from ..module_utils._exit import join_results, run


def deliver(module: AnsibleModule) -> dict[str, Any]:
    only = module.params["only_environments"]
    listed = [str(entry["name"]) for entry in module.params["models"]]
    wanted, refused = [], {}
    purge = module.params["deployment_set"] if module.params["purge"] else None
    for entry in module.params["models"]:
        try:
            wanted.append(
                DesiredModel.from_options(
                    {**entry, "deployment_set": module.params["deployment_set"]}
                )
            )
        except Exception as error:  # told for this entry; the others go on
            name = str(entry["name"])
            said = as_delivery_error(error, "read the options")
            refused[name] = Result(name, error=said.about(model=name, left="nothing was changed"))
    with Delivery(Target.from_options(module.params)) as delivery:
        try:
            done = delivery.deliver(
                wanted,
                check=module.check_mode or only,
                purge=None if only else purge,
                purge_limit=module.params["purge_limit"],
                failed=list(refused),
            )
        except DeliveryError as error:
            if not refused:
                raise
            done = []
            refused.update({model.name: Result(model.name, error=error) for model in wanted})
        refused = delivery.with_standing(refused)
        looks = module.check_mode or only
        made = delivery.prepare(done, check=module.check_mode) if looks else []
    if only:
        return _of_environments(made, [*done, *refused.values()], delivery.warnings)
    results = {**{result.name: result for result in done}, **refused}
    in_order = [results[name] for name in dict.fromkeys([*listed, *results]) if name in results]
    joined = join_results([(result.to_dict(), result.warnings) for result in in_order])
    joined["warnings"] += delivery.warnings
    hanging = sorted({url for entry in joined["models"] for url in entry.get("hanging", ())})
    planned = {"environments": [one.to_dict() for one in made]} if module.check_mode else {}
    return {**joined, **planned, "unreached": delivery.unreached, "hanging": hanging}


def _of_environments(
    made: Sequence[Prepared], results: Sequence[Result], warnings: Sequence[str]
) -> dict[str, Any]:
    """No model was touched, so that nothing is said of any."""
    errors = [result.error for result in results] + [one.error for one in made]
    failures = [str(error) for error in errors if error]
    return {
        "changed": any(one.changed and not one.error for one in made),
        "environments": [one.to_dict() for one in made if not one.error],
        "models": [],
        "unreached": [],
        "hanging": [],
        "warnings": list(warnings),
        **({"failed": True, "failures": failures, "msg": " | ".join(failures)} if failures else {}),
    }


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
            "models": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": _options.MODEL,
            },
            "deployment_set": {"type": "str"},
            "purge": {"type": "bool", "default": False},
            "purge_limit": {"type": "float"},
            "only_environments": {"type": "bool", "default": False},
            "parallel_downloads": {"type": "int", "default": 4},
            "parallel_loads": {"type": "int", "default": 4},
        },
        required_if=[("purge", True, ("deployment_set",))],
        supports_check_mode=True,
    )
    run(module, deliver)


if __name__ == "__main__":
    main()
