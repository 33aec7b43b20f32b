# SPDX-License-Identifier: Apache-2.0
"""An artifact's signature: where it lies, and which files it covers.

It lies at the root of the artifact and covers all of it, or in the model's folder, as NVIDIA signs.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from ..domain.layout import MLFLOW_FOLDERS
from ..domain.manifest import MANIFEST_NAME
from ..domain.provenance import SIGNATURE_NAME, Claim, Provenance, Signature
from ..errors import PolicyRefused

Verify = Callable[[bytes], Signature]
"""Raises PolicyRefused for a signature that nobody who is trusted made."""
KeysIn = Callable[[bytes], tuple[str, ...]]
"""By which keys a signature says that it is."""
LARGEST_SIGNATURE = 64 << 20
_MLMODEL = "MLmodel"
# What MLflow's clients lay beside a model that they download, and may be signed there.
_ADDED = frozenset({"registered_model_meta"})


def place_of(files: Mapping[str, object]) -> str | None:
    """Path of the signature; None where there is none.

    Raises:
        PolicyRefused: there are several, none of which covers the whole.
    """
    found = places_of(files)
    if len(found) > 1:
        raise _refuse(f"it has {len(found)} signatures ({found[0]}, {found[1]}), and none of all")
    return found[0] if found else None


def places_of(files: Iterable[str]) -> list[str]:
    """The signature of all, else those of folders."""
    found = sorted(path for path in files if posixpath.basename(path) == SIGNATURE_NAME)
    return [SIGNATURE_NAME] if SIGNATURE_NAME in found else found


def with_signature(
    provenance: Provenance | None,
    files: Mapping[str, object],
    path: str,
    signature: Signature,
    manifest: bytes | None,
) -> Provenance:
    """What is claimed of an artifact, as far as it is signed: of any other file nothing is, so that
    none can be used.

    Args:
        path: of the signature in the artifact.
        manifest: the publisher's, where there is one.

    Raises:
        PolicyRefused: manifest and signature contradict each other.
    """
    known = provenance or Provenance()
    folder = posixpath.dirname(path)
    is_mlflows = _MLMODEL in signature.files  # only beside that MLflow's clients lay anything
    signed = {
        posixpath.join(folder, name): digest
        for name, digest in signature.files.items()
        if posixpath.join(folder, name) in files or not (is_mlflows and _is_added(name))
    }
    if not folder and manifest is not None:
        if MANIFEST_NAME not in signed:
            raise _refuse(
                f"{SIGNATURE_NAME} does not cover {MANIFEST_NAME}: sign the artifact again"
            )
        if signed[MANIFEST_NAME] != hashlib.sha256(manifest).hexdigest():
            raise _refuse(
                f"{MANIFEST_NAME} is not the one that was signed: publish the model again"
            )
    for name, digest in signed.items():
        if name in known.claims and known.claims[name].sha256 != digest:
            raise _refuse(
                f"{SIGNATURE_NAME} and {MANIFEST_NAME} say different things of {name}: publish the"
                " model again"
            )
    claims = {
        name: Claim(digest, known.claims[name].size if name in known.claims else None)
        for name, digest in signed.items()
    }
    if folder and _MLMODEL in known.claims:  # it says which folder the model is, and no more
        claims[_MLMODEL] = known.claims[_MLMODEL]
    return replace(
        known,
        claims=claims,
        signed_by=signature.signer,
        signed=frozenset(signed),
        signed_folder=folder,
    )


def is_covered(path: str, provenance: Provenance) -> bool:
    """False for what lies beside the one folder of an artifact that is signed: it is as if it were
    not there, but for what says which folder that is.
    """
    folder = provenance.signed_folder
    return not folder or path.startswith(f"{folder}/") or path in (_MLMODEL, MANIFEST_NAME)


def _is_added(name: str) -> bool:
    return name in _ADDED or name.partition("/")[0] in MLFLOW_FOLDERS - {"code"}


def _refuse(message: str) -> PolicyRefused:
    return PolicyRefused(message, step="verify the signature", left="nothing was changed")
