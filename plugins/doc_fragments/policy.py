# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  allowed_backends:
    description:
      - Names of Triton's backends that may be used, for example V(onnxruntime), V(tensorrt), V(fil)
        or V(ensemble). A model of any other backend is refused before anything is downloaded. Where
        such a model is deployed already, the task fails and leaves it as it is.
      - A model that makes its backend load further code is refused, too. That is a C(libtriton_*)
        library in its files, or C(runtime) or C(model_operations) in its configuration; where the
        backend may be written in Python, also C(triton_python_backend_stub) in its files, or the
        parameter C(EXECUTION_ENV_PATH) in its configuration.
      - V(python) runs whatever code the artifact holds, with the rights of the server.
      - Every backend is allowed when omitted.
    type: list
    elements: str
  max_size:
    description:
      - Maximum size of the files of one model together, in bytes or as V(500MB) or V(2GiB). A
        larger model is refused before anything is downloaded.
    type: str
  require_digest:
    description:
      - Refuse a model without the manifest that M(mlops.triton.mlflow_publish) writes, and a
        registered version whose tag C(triton.digest) differs from its manifest's digest.
    type: bool
    default: false
"""
