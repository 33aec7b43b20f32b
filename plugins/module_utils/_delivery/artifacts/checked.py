# SPDX-License-Identifier: Apache-2.0
"""An artifact of which a manifest or a signature says what its bytes are: each file that is used is
compared with that, and hashed once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from ..domain.manifest import MANIFEST_NAME, FileEntry
from ..domain.provenance import SIGNATURE_NAME, Provenance
from ..errors import ArtifactError
from .roots import ArtifactRoot, Listing, Progress

_STEP = "compare with the manifest"
_SHOWN = 5


class CheckedRoot(ArtifactRoot):
    """Reads and brings what ``provenance`` claims, and refuses everything else."""

    def __init__(self, artifacts: ArtifactRoot, provenance: Provenance) -> None:
        super().__init__(artifacts.label, artifacts.timeout)
        self.verb = artifacts.verb
        self._artifacts = artifacts
        self._provenance = provenance

    def _list(self) -> Listing:
        return Listing(self._artifacts.list(), self._artifacts.folders())

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        data = self._artifacts.read(path, limit)
        refuse_other_bytes(self._provenance, path, data)
        return data

    def _look(self, path: str, start: int, size: int) -> bytes | None:
        return self._artifacts.look(path, start, size)

    def fetch(
        self, wanted: Mapping[str, str], progress: Progress | None = None
    ) -> dict[str, FileEntry]:
        refuse_unclaimed(self._provenance, wanted)
        came = self._artifacts.fetch(wanted, progress)
        refuse_differences(
            difference
            for path, entry in sorted(came.items())
            for difference in _differences(self._provenance, path, entry.size, entry.sha256)
        )
        return came


def checked(artifacts: ArtifactRoot, provenance: Provenance | None) -> ArtifactRoot:
    """The same files; compared where anything is claimed of them."""
    return CheckedRoot(artifacts, provenance) if provenance else artifacts


def refuse_other_bytes(provenance: Provenance, path: str, data: bytes) -> None:
    """Compare the bytes of a file that was read.

    Raises:
        ArtifactError: they are others, or nothing is claimed of them. A manifest of schema 1 has
            nothing to say of what lies beside the model folder, nor has the signature of a folder.
    """
    beside = provenance.signed_folder if provenance.signed_by else provenance.schema == 1
    if path not in provenance.claims and beside and "/" not in path:
        return
    refuse_unclaimed(provenance, (path,))
    refuse_differences(_differences(provenance, path, len(data), hashlib.sha256(data).hexdigest()))


def refuse_unclaimed(provenance: Provenance, paths: Iterable[str]) -> None:
    """Raises ArtifactError for files of which nothing is claimed, and which would be used."""
    lacks = f"covered by {SIGNATURE_NAME}" if provenance.signed_by else f"in {MANIFEST_NAME}"
    refuse_differences(
        f"{path} is not {lacks}" for path in sorted(paths) if path not in provenance.claims
    )


def refuse_other_files(provenance: Provenance, sizes: Mapping[str, int | None]) -> None:
    """Compare a listing, before anything is read: raises ArtifactError where a file that is claimed
    is missing, or has another size.
    """
    lines = []
    for path, claim in sorted(provenance.claims.items()):
        size = sizes.get(path)
        if path not in sizes:
            lines.append(f"{path} is missing")
        elif size is not None and claim.size is not None and size != claim.size:
            lines.append(f"{path} has {size} bytes instead of {claim.size}")
    refuse_differences(lines)


def refuse_differences(differences: Iterable[str]) -> None:
    """Raises ArtifactError where there is any."""
    lines = list(differences)
    if lines:
        more = [f"{len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        raise ArtifactError(
            f"the artifact is not what was published: {'; '.join(lines[:_SHOWN] + more)}",
            step=_STEP,
        )


def _differences(provenance: Provenance, path: str, size: int, sha256: str | None) -> Iterable[str]:
    claim = provenance.claims[path]
    if claim.size is not None and claim.size != size:
        yield f"{path} has {size} bytes instead of {claim.size}"
    elif claim.sha256 != sha256:
        yield f"{path} has sha256 {(sha256 or 'unknown')[:12]}… instead of {claim.sha256[:12]}…"
