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
      - Of an allowed backend, only the files, fields and parameters are allowed that a model of it
        needs. Anything else is refused by its name, such as a program or a library among the files,
        C(model_repository_agents) in the configuration, or a path that leaves the model's folder.
        An ensemble may call models of the same list and models that this collection deployed.
      - V(python) runs whatever code the artifact holds, with the rights of the server.
      - Every backend is allowed when omitted.
    type: list
    elements: str
  allowed_paths:
    description:
      - Folders on the servers into which the configuration of a model may point, for example one
        with Python environments for C(EXECUTION_ENV_PATH). Where this option, O(allowed_backends)
        or O(model_code=refused) is set, a configuration with any other path that leaves the
        model's folder is refused. Without them such a path is a warning.
    type: list
    elements: path
  model_code:
    description:
      - Whether code that comes from the registry may run on the servers.
      - With V(refused), only models that are data are deployed, which are those of the backends
        V(onnxruntime), V(fil), V(tensorrt) and V(openvino), and ensembles of such. Models of
        V(python), of V(pytorch) (TorchScript is a program) and of backends that are not known are
        refused, and so is everything that makes a backend load further code.
      - The result's RV(ignore:model.code) says what of a model is code.
    type: str
    choices: [allowed, refused]
    default: allowed
  max_size:
    description:
      - Maximum size of the files of one model together, in bytes or as V(500MB) or V(2GiB). A
        larger model is refused before anything is downloaded.
    type: str
  require_digest:
    description:
      - Refuse a model without the manifest that M(mlops.triton.mlflow_publish) writes, and a
        registered version whose tag C(triton.digest) differs from its manifest's digest.
      - The manifest covers every file that decides what is served. A version that an older release
        of this collection published has one that does not, and is refused. Publish it again. The
        same content then becomes a new version.
    type: bool
    default: false
  require_signature:
    description:
      - Refuse a model that none of these signed. A signature is that of OpenSSF model signing, in
        the file C(model.sig) of the artifact, as O(mlops.triton.mlflow_publish#module:sign) or the
        command C(model_signing) makes it. It must cover every file that is used.
      - Models that are deployed are judged too. Where the key of one is no longer listed, the task
        fails and leaves the model as it is.
      - Needs the Python library C(model-signing).
    type: dict
    suboptions:
      public_keys:
        description: Public keys in PEM form, as files of the host where the task runs or as texts.
        type: list
        elements: str
      ca_certificates:
        description:
          - Certificates that authorities issued to themselves, in PEM form, as files or as texts.
            One of these must have issued the signer's certificate, directly or through those that
            came with the signature, to one of the O(require_signature.identities).
        type: list
        elements: str
      identities:
        description:
          - Names for which a signer's certificate may be issued. They are compared with its subject
            alternative names, and with its common name where it has no alternative ones.
        type: list
        elements: str
      sigstore:
        description:
          - Identities of Sigstore. Its services are asked for this, so that the host needs a way
            into the internet. No test of this collection has tried it.
        type: list
        elements: dict
        suboptions:
          identity:
            description: Who signed, for example an address of e-mail.
            type: str
            required: true
          issuer:
            description: Who vouched for the identity, for example V(https://accounts.google.com).
            type: str
            required: true
      trust_config:
        description: A trust configuration of Sigstore, in place of the public one.
        type: path
  revoked_digests:
    description:
      - Digests (SHA-256) that are not trusted any more, of manifests or of single files. A model
        that has one is refused. Where it is deployed already, M(mlops.triton.triton_model_info)
        says that it is served and no longer trusted.
    type: list
    elements: str
  revoked_keys:
    description:
      - Public keys that are not trusted any more, whatever O(require_signature) says, by the
        SHA-256 of the key in PEM form or of the authority's certificate in DER form. The result's
        RV(ignore:model.signed_by) names the key of a signer.
    type: list
    elements: str
"""
