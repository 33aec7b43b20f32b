# SPDX-License-Identifier: Apache-2.0
"""The files that tell what an artifact is: MLmodel, the manifest, and what lies beside them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from ..domain.layout import Artifact
from ..domain.manifest import MANIFEST_NAME
from ..domain.provenance import Provenance
from ..domain.published import (
    LARGEST_MANIFEST,
    PublishedManifest,
    folder_of_schema_1,
    read_published,
)
from ..domain.yaml_text import read_yaml
from ..errors import ArtifactError, NotFound
from ..outside import JsonObject
from .checked import checked, refuse_other_bytes, refuse_other_files
from .roots import ArtifactRoot
from .signed import (
    LARGEST_SIGNATURE,
    KeysIn,
    Verify,
    is_covered,
    place_of,
    places_of,
    with_signature,
)

_MLMODEL = "MLmodel"
_SIGNATURES = 4
# What tells of an artifact, and how many bytes it may have.
_METADATA = {_MLMODEL: 1 << 20, MANIFEST_NAME: LARGEST_MANIFEST}


def read_artifact(
    artifacts: ArtifactRoot, verify: Verify | None = None, keys_in: KeysIn | None = None
) -> Artifact:
    """List an artifact and read its metadata files. What its manifest says of it is known before
    anything else of it is believed.

    Args:
        verify: says who signed what, where only what is signed is to be used.
        keys_in: where nobody asks for that, what a signature says of itself is kept.

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
        proven = verify(artifacts.read(signature, LARGEST_SIGNATURE))
        provenance = with_signature(provenance, files, signature, proven, text)
        covers = partial(is_covered, provenance=provenance)
        files = {name: size for name, size in files.items() if covers(name)}
        folders = tuple(filter(covers, folders))
    if provenance:
        refuse_other_files(provenance, files)
        if _MLMODEL in texts:
            refuse_other_bytes(provenance, _MLMODEL, texts[_MLMODEL])
    read = checked(artifacts, provenance).read
    said = _said_keys(artifacts, files, keys_in) if keys_in and not verify else ()
    return Artifact(files, folders, _parsed(texts), provenance, read, said, artifacts.look)


def _said_keys(
    artifacts: ArtifactRoot, files: Mapping[str, object], keys_in: KeysIn
) -> tuple[str, ...]:
    """What cannot be read says nothing: whoever may write artifacts may as well remove it."""
    found: set[str] = set()
    for place in places_of(files)[:_SIGNATURES]:
        with suppress(ArtifactError, NotFound):
            found.update(keys_in(artifacts.read(place, LARGEST_SIGNATURE)))
    return tuple(sorted(found))


def _begin(
    manifest: PublishedManifest, texts: Mapping[str, bytes], files: Mapping[str, int | None]
) -> str:
    """The folder in the artifact from which the paths of a manifest begin."""
    if manifest.covers_all:
        return ""
    return folder_of_schema_1(manifest, _data_of(_parsed(texts)), files)


def _parsed(texts: Mapping[str, bytes]) -> JsonObject | None:
    """MLmodel as a mapping of texts, lists and mappings; None where there is none, or something
    else. It may be anybody's.

    Raises:
        ArtifactError: it cannot be read.
    """
    if _MLMODEL not in texts:
        return None
    try:
        found = read_yaml(texts[_MLMODEL])
    except (ValueError, RecursionError) as error:
        raise _unreadable(" ".join(str(error).split())[:200]) from None
    if not isinstance(found, dict):
        return None
    flavors = found["flavors"] = found.get("flavors") or {}
    if not isinstance(flavors, dict):
        raise _unreadable("flavors is not a mapping")
    for name, entry in flavors.items():
        if not isinstance(entry, (dict, type(None))):
            raise _unreadable(f"flavor {name} is not a mapping")
    return found


def _unreadable(why: str) -> ArtifactError:
    return ArtifactError(f"its {_MLMODEL} cannot be read: {why}", step="read the artifact")


def _data_of(mlmodel: JsonObject | None) -> object:
    """The model folder that MLmodel names for Triton."""
    flavors = (mlmodel or {}).get("flavors")
    entry = flavors.get("triton") if isinstance(flavors, dict) else None
    return entry.get("data") if isinstance(entry, dict) else None
