# SPDX-License-Identifier: Apache-2.0
"""The files that tell what an artifact is: MLmodel, the manifest, and what lies beside them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from ..domain.layout import Artifact
from ..domain.manifest import MANIFEST_NAME, Manifest
from .roots import ArtifactRoot

# What tells of an artifact, and how many bytes it may have.
_METADATA = {"MLmodel": 1 << 20, MANIFEST_NAME: 64 << 20}


def read_artifact(artifacts: ArtifactRoot) -> Artifact:
    """List an artifact and read its metadata files."""
    import yaml

    files = {file.path: file.size for file in artifacts.list()}
    limits = {name: limit for name, limit in _METADATA.items() if name in files}
    with ThreadPoolExecutor(len(_METADATA)) as pool:
        texts = dict(zip(limits, pool.map(artifacts.read, limits, limits.values()), strict=True))
    # The parser in C, where it was built, takes a tenth of the time.
    mlmodel = (
        yaml.load(texts["MLmodel"], getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        if "MLmodel" in texts
        else None
    )
    manifest = (
        Manifest.from_dict(json.loads(texts[MANIFEST_NAME])) if MANIFEST_NAME in texts else None
    )
    return Artifact(
        files,
        artifacts.folders(),
        mlmodel if isinstance(mlmodel, dict) else None,
        manifest,
        artifacts.read,
    )
