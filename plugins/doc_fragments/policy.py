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
        or V(ensemble). A model of any other backend is refused before anything is downloaded, and
        one that is deployed already fails and is left as it is.
      - A model that brings code beside its backend's own is refused too, that is a C(libtriton_*)
        library, a C(runtime) or C(model_operations) in its configuration.
      - V(python) runs whatever code the artifact holds, with the rights of the server.
      - Every backend is allowed when omitted.
    type: list
    elements: str
  max_size:
    description:
      - The most that the files of one model may have, in bytes or as V(500MB) or V(2GiB). A larger
        one is refused before anything is downloaded.
    type: str
  require_digest:
    description:
      - Refuse a model whose publisher left no manifest, as M(mlops.triton.mlflow_publish) writes
        it, and a version of a registered model whose tag C(triton.digest) does not name this
        manifest.
    type: bool
    default: false
"""
