# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  name:
    description:
      - Name of the model in Triton, and of its folder.
      - Letters, digits and C(. _ @ -), at most 200 characters, because Triton's URLs can carry
        nothing else.
    type: str
    required: true
  model_uri:
    description:
      - What to deploy. Required with O(state=present).
      - One of C(models:/name/3), C(models:/name@alias), C(models:/name/latest), C(models:/m-<id>),
        C(runs:/<run id>/path), or a folder on this host.
    type: str
  alias:
    description:
      - The alias that O(model_uri) was resolved from, where a playbook resolved it once for a whole
        fleet. It is kept in the record.
    type: str
  state:
    description:
      - V(present) makes Triton serve the model as asked.
      - V(absent) unloads it and removes its files, record and retained copies.
      - V(unloaded) keeps its files and record and unloads it; it stays unloaded after a restart of
        the server. O(model_uri) may be omitted for a model that is deployed.
      - V(rolled_back) goes back to the deployment before the last choice, from the copy that
        O(keep) retained, without the registry. A choice is a V(present), also one that finds what
        it asks for in place, or an O(rollback_to). A second run changes nothing. The next
        V(present) rolls forward, with a warning.
    type: str
    choices: [present, absent, unloaded, rolled_back]
    default: present
  rollback_to:
    description:
      - With O(state=rolled_back), how far to go back. A registry version, a deploy id, or a source
        such as C(models:/name/2).
      - The deployment before the last choice when omitted.
    type: str
  undo:
    description:
      - With O(rollback_to), whether the rollback takes back what a run has just deployed, as
        playbook C(deploy_models) does on a host where the run failed. What is taken back is not
        retained. It is no choice, and V(rolled_back) alone changes nothing afterwards.
    type: bool
    default: false
  flavor:
    description:
      - What the artifact holds. V(triton) is a folder in Triton's repository layout, V(onnx) an
        ONNX file.
      - The others are what MLflow's flavors of these names store. Trees of V(xgboost), V(lightgbm)
        and V(sklearn) go to Triton's FIL backend (V(sklearn) needs the library treelite),
        TorchScript modules of V(pytorch) to its PyTorch backend. Each gets a configuration that is
        made from the model. The scikit-learn classes of XGBoost and LightGBM are served from
        V(sklearn) too. A model of XGBoost's scikit-learn classes that stopped early is served with
        the trees that its class uses. What a server would compute otherwise than the library that
        trained the model is refused, such as trees of V(lightgbm) and V(sklearn) that tell numbers
        apart which are one in single precision, Triton's input.
      - A class that derives from one of theirs is refused, as a server does not run its code.
        XGBoost's own files do not say which number was C(missing) in training, so train with NaN,
        and send NaN.
      - Read from the artifact's C(MLmodel) when omitted.
    type: str
    choices: [triton, onnx, xgboost, lightgbm, sklearn, pytorch]
  serve_as:
    description:
      - What answers for a model that MLflow logged. V(native) is the backend of Triton that runs
        its file, such as ONNX Runtime or FIL. V(pyfunc) is MLflow's own C(pyfunc), in a process
        with the Python environment that the model was logged with; that runs code of the artifact.
      - V(auto) is native where there is a backend that answers the same, else C(pyfunc), as long as
        C(model_code) and C(allowed_backends) allow it. The plan says which, and why.
    type: str
    choices: [auto, native, pyfunc]
    default: auto
  batch_requests:
    description:
      - Whether rows of several requests may become one call of C(pyfunc). Only a model that answers
        each row by itself, whatever other rows there are, may have that.
      - When omitted, of flavors that are known to answer so.
    type: bool
  predict_timeout:
    description:
      - Seconds that one call of C(pyfunc) may take. Its process is ended then and started anew, and
        the request gets an error.
    type: float
    default: 60.0
  config:
    description:
      - Fields of Triton's model configuration that replace the author's, named as in
        C(config.pbtxt), for example C(max_batch_size) or C(instance_group). A field set to C(null)
        is cleared.
      - When omitted the configuration is the author's, byte for byte, with one block appended that
        identifies the deployment.
    type: dict
  instance_kind:
    description:
      - Changes the kind of every instance group. With V(cpu) a configuration which asks for a GPU
        serves on a host without one; V(gpu) does the reverse; V(auto) uses GPUs where the server
        has some. A configuration without a group gets one, because Triton may place it on GPUs.
      - V(cpu) and V(auto) remove the GPU numbers of a group. Groups of C(KIND_MODEL) and ensembles
        stay as they are.
    type: str
    choices: [cpu, gpu, auto]
  version_folders:
    description:
      - V(registry) makes the registry version the Triton version, V(artifact) keeps the artifact's
        version folders.
      - V(auto) is V(registry), except for artifacts with several version folders, configurations
        with C(version_policy.specific) or with the path of a file in a numbered folder
        (C(EXECUTION_ENV_PATH)), and models that an ensemble in the repository pins. Code that opens
        such a file by its number needs V(artifact).
    type: str
    choices: [auto, registry, artifact]
    default: auto
  serve_versions:
    description:
      - Number of registry versions to serve side by side, so that clients can pin a version. The
        version of O(model_uri) is the highest.
      - Adding or retiring a version does not touch the files of the others, and Triton does not
        initialise them again. All versions have the configuration of the newest.
    type: int
    default: 1
  verify:
    description:
      - How to prove that the model answers after each load. When the option is given, also when
        nothing else has to be done.
      - V(none) trusts what Triton reports. V(auto) sends the model's MLflow input example where it
        has one. When the option is omitted, that is done after a load; where a dictionary has
        proved the same deployment before, it is sent again, also after a rollback.
      - An example of which no request can be made, and that of a decoupled model on a server that
        is asked over HTTP, is left out with a warning; the result's C(verified) then stays C(null).
      - A dictionary C({inputs, outputs, tolerance}) sends C(inputs) (tensor name to nested lists)
        and compares C(outputs) where given. Of a decoupled model, which is asked over gRPC,
        C(outputs) are those of all its answers, joined along the first dimension. One whose
        answers vary in the other dimensions cannot be compared.
      - Outputs that are floats may differ by C(tolerance), absolute and relative, which is
        C(0.0001) when it is not given. Whole numbers, booleans and texts have to be equal; a
        C(tolerance) that is given holds for whole numbers and booleans too.
      - Values are regular nested lists of numbers, texts and booleans. C(null) is refused; a number
        that is none is C(.nan). C(inputs) may also be the list of C({name, shape, data}) that
        Triton's own requests have.
      - Of a model that MLflow's pyfunc runs, C(inputs) and C(outputs) name the columns of the
        signature, and C(inputs) may be a document of MLflow (C(dataframe_split), …) with C(params)
        beside it; there C(null) may be. Predictions without a name are C(predictions).
      - What a configuration that lists inputs and outputs shows to be wrong (a name, a type, a
        missing batch dimension, …) is refused before anything is changed, in check mode too.
      - When the verification fails, the deployment before is put back, and the task fails. Until
        then the new one answers clients; C(verify_aside) prevents that.
      - A model with several instances is asked until the metrics of the server (C(metrics_url))
        show that each GPU has answered and, for the backends of this collection, each instance.
        Other backends are asked as often as most likely reaches each instance.
    type: raw
  verify_aside:
    description:
      - Whether a new deployment is loaded and verified under another name first, and takes the
        place of the old one only when it has answered as it should. Without it, a deployment that
        loads and then fails the verification answers clients until the old one is back.
      - It costs a second load, and the memory of a second copy until that is unloaded.
      - It needs something to ask (C(verify), what proved the deployment before, or the model's own
        example), and is refused without. A model is not proven so together with models that it uses
        and that change in the same run. What Triton applies without loading again needs no proof.
      - Refused where Triton was started with C(--strict-readiness=true), because each load of a new
        name would make such a server not ready, and a load balancer would take it out.
    type: bool
    default: false
  swap:
    description:
      - What becomes of the old deployment while the new one is loaded. With V(overlap) it serves
        until the new one is loaded, so that both are in memory for a while, and no request fails.
      - With V(unload_first) it is unloaded before, for a GPU that has no room for both. Until the
        new one is loaded, the model answers no request. When the new one fails, the old one is
        loaded and proven again by the same run. Several servers of one repository go in turn.
        Versions side by side are unloaded all together. Not with O(verify_aside), which needs room
        for two.
      - V(auto) is V(overlap) where the plan expects that both fit, or cannot tell. Otherwise it is
        V(unload_first) on servers that are O(drained), and V(overlap) with a warning on others.
      - What a deployment needs of each GPU is what the last one took there when it had been proven,
        where that was about as large, or else the size of its files for each instance. What is
        free, the metrics of the servers say (O(metrics_url)); without them nothing is estimated.
    type: str
    choices: [overlap, unload_first, auto]
    default: overlap
  keep:
    description: Number of previous deployments of this model to retain on disk.
    type: int
    default: 1
  adopt:
    description:
      - Take over (or, with O(state=absent), remove) a foreign model of this name, which is one that
        this collection did not deploy.
    type: bool
    default: false
  check_files:
    description:
      - Hash the deployed files to find changes, instead of comparing size, times and inode with the
        record.
    type: bool
    default: false
  depends_on:
    description:
      - Names of models that this one calls while it serves, such as those that a Python model calls
        by BLS. A list of M(mlops.triton.triton_models) changes this model after them, and removes
        it before them.
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
      - Permission bits of the model's files as an octal string such as V('0640'); folders get an
        execute bit wherever there is a read bit.
      - V('0644') when omitted, so that the server's user can read them.
    type: raw
"""
