# SPDX-License-Identifier: Apache-2.0
"""What a model folder holds, file by file: MLflow keeps no checksums, so this collection keeps its
own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from ..errors import ArtifactError
from ..outside import JsonDict, JsonObject

DIGEST_TAG = "triton.digest"
"""The tag of a model version that has the digest of its published manifest."""
MANIFEST_NAME = "triton-manifest.json"
SCHEMA = 1


@dataclass(frozen=True, order=True)
class FileEntry:
    """One regular file: POSIX ``path`` relative to the folder, ``size`` in bytes, ``sha256`` in hex
    (None: unknown).
    """

    path: str
    size: int
    sha256: str | None = None


@dataclass(frozen=True)
class Manifest:
    """Files sorted by path, and the folders that hold no file (an ensemble's version folder is
    empty).
    """

    files: tuple[FileEntry, ...]
    folders: tuple[str, ...] = ()

    @classmethod
    def of(cls, files: Iterable[FileEntry], folders: Iterable[str] = ()) -> Manifest:
        return cls(tuple(sorted(files)), tuple(sorted(folders)))

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.files)

    @property
    def digest(self) -> str:
        """sha256 over the canonical JSON: the same for the same content, whatever the listing
        order.
        """
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> JsonDict:
        return {
            "schema": SCHEMA,
            "files": [{"path": e.path, "size": e.size, "sha256": e.sha256} for e in self.files],
            "folders": list(self.folders),
        }

    @classmethod
    def from_dict(cls, data: JsonObject) -> Manifest:
        """Read what ``to_dict`` wrote.

        Raises:
            ArtifactError: another schema, or a path that leaves the folder.
        """
        try:
            if data["schema"] != SCHEMA:
                raise ArtifactError(
                    f"the manifest has schema {data['schema']}, this version reads schema {SCHEMA}"
                )
            files = [
                FileEntry(confine(e["path"]), int(e["size"]), e["sha256"]) for e in data["files"]
            ]
            return cls.of(files, [confine(f) for f in data["folders"]])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"the manifest cannot be read ({type(error).__name__}: {error})"
            ) from error

    def differences(self, other: Manifest) -> list[str]:
        """Sentences on how ``other`` (what is there) differs from this one (what should be)."""
        wanted = {e.path: e for e in self.files}
        found = {e.path: e for e in other.files}
        lines = [f"{path} is missing" for path in sorted(wanted.keys() - found.keys())]
        lines += [f"{path} is not in the manifest" for path in sorted(found.keys() - wanted.keys())]
        for path in sorted(wanted.keys() & found.keys()):
            want, have = wanted[path], found[path]
            if want.size != have.size:
                lines.append(f"{path} has {have.size} bytes instead of {want.size}")
            elif want.sha256 and have.sha256 and want.sha256 != have.sha256:
                lines.append(
                    f"{path} has sha256 {have.sha256[:12]}… instead of {want.sha256[:12]}…"
                )
        return lines

    def strays(self, other: Manifest) -> list[str]:
        """What ``other`` (what is there) has beside what should be there; a folder of which nothing
        should be there is one path.
        """
        ours = {
            part
            for path in (*(e.path for e in self.files), *self.folders)
            for part in _with_parents(path)
        }
        theirs = (*(e.path for e in other.files), *other.folders)
        tops = (next((p for p in _with_parents(path) if p not in ours), None) for path in theirs)
        return sorted({path for path in tops if path})


def _with_parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def confine(path: str) -> str:
    """Return ``path`` normalised if it stays inside the folder it is relative to.

    Raises:
        ArtifactError: absolute, empty, with ``..``, a NUL or a backslash.
    """
    pure = PurePosixPath(path)
    if (
        not path
        or pure.is_absolute()
        or ".." in pure.parts
        or "\0" in path
        or "\\" in path
        or str(pure) == "."
    ):
        raise ArtifactError(f"the path {path!r} does not stay inside the model")
    return str(pure)


def sha256(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


def select_versions(manifest: Manifest, versions: tuple[int, ...]) -> Manifest:
    """The part of a manifest that lies in these version folders."""
    heads = {str(version) for version in versions}
    return Manifest.of(
        (e for e in manifest.files if e.path.split("/")[0] in heads),
        (f for f in manifest.folders if f.split("/")[0] in heads),
    )


def files_outside_versions(manifest: Manifest, versions: tuple[int, ...]) -> tuple[FileEntry, ...]:
    """The files that lie in none of these version folders, such as labels."""
    heads = {str(version) for version in versions}
    return tuple(e for e in manifest.files if e.path.split("/")[0] not in heads)


def join(one: Manifest, other: Manifest) -> Manifest:
    """Both; of a file in both, the second's."""
    files = {e.path: e for e in (*one.files, *other.files)}
    return Manifest.of(files.values(), {*one.folders, *other.folders})
