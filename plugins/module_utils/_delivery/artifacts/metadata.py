# SPDX-License-Identifier: Apache-2.0
"""The files that tell what an artifact is: MLmodel, the manifest, and what lies beside them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from ..domain.layout import Artifact
from ..domain.manifest import MANIFEST_NAME
from ..domain.provenance import Provenance
from ..domain.published import (
    LARGEST_MANIFEST,
    PublishedManifest,
    folder_of_schema_1,
    read_published,
)
from ..outside import JsonObject
from .checked import checked, refuse_other_bytes, refuse_other_files
from .roots import ArtifactRoot
from .signed import LARGEST_SIGNATURE, Verify, covered, place_of, with_signature

_MLMODEL = "MLmodel"
# What tells of an artifact, and how many bytes it may have.
_METADATA = {_MLMODEL: 1 << 20, MANIFEST_NAME: LARGEST_MANIFEST}


def read_artifact(artifacts: ArtifactRoot, verify: Verify | None = None) -> Artifact:
    """List an artifact and read its metadata files. What its manifest says of it is known before
    anything else of it is believed.

    Args:
        verify: says who signed what, where only what is signed is to be used.

    Raises:
        ArtifactError: it is not what its manifest says.
        PolicyRefused: ``verify`` refuses its signature.
    """
    files = {file.path: file.size for file in artifacts.list()}
    limits = {name: limit for name, limit in _METADATA.items() if name in files}
    with ThreadPoolExecutor(len(_METADATA)) as pool:
        texts = dict(zip(limits, pool.map(artifacts.read, limits, limits.values()), strict=True))
    manifest = read_published(texts[MANIFEST_NAME]) if MANIFEST_NAME in texts else None
    provenance, folders = None, artifacts.folders()
    if manifest:
        folder = _begin(manifest, texts, files)
        provenance = Provenance(manifest.digest, manifest.schema, manifest.claims(folder))
        listed = manifest.folders_in_artifact(folder)
        # An empty folder that nobody published may be a version.
        folders = listed if manifest.covers_all else (*folders, *listed)
    if verify and (signature := place_of(files)):
        text = texts.get(MANIFEST_NAME)
        if proven := verify(artifacts.read(signature, LARGEST_SIGNATURE)):
            provenance = with_signature(provenance, files, signature, proven, text)
            files = covered(files, provenance)
    if provenance:
        refuse_other_files(provenance, files)
        if _MLMODEL in texts:
            refuse_other_bytes(provenance, _MLMODEL, texts[_MLMODEL])
    read = checked(artifacts, provenance).read
    return Artifact(files, folders, _parsed(texts), provenance, read)


def _begin(
    manifest: PublishedManifest, texts: Mapping[str, bytes], files: Mapping[str, int | None]
) -> str:
    """The folder in the artifact from which the paths of a manifest begin."""
    if manifest.covers_all:
        return ""
    return folder_of_schema_1(manifest, _data_of(_parsed(texts)), files)


def _parsed(texts: Mapping[str, bytes]) -> JsonObject | None:
    """MLmodel as a mapping; None where there is none, or something else."""
    import yaml

    if _MLMODEL not in texts:
        return None
    # The parser in C, where it was built, takes a tenth of the time.
    found = yaml.load(texts[_MLMODEL], getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return found if isinstance(found, dict) else None


def _data_of(mlmodel: JsonObject | None) -> object:
    """The model folder that MLmodel names for Triton."""
    flavors = (mlmodel or {}).get("flavors")
    entry = flavors.get("triton") if isinstance(flavors, dict) else None
    return entry.get("data") if isinstance(entry, dict) else None
