# SPDX-License-Identifier: Apache-2.0
"""What a model folder holds, file by file: MLflow keeps no checksums, so this collection keeps its
own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from .errors import ArtifactError

DIGEST_TAG = "triton.digest"
"""The tag of a model version that has the digest of its published manifest."""
MANIFEST_NAME = "triton-manifest.json"
SCHEMA = 1
_CHUNK = 1 << 20


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

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "files": [{"path": e.path, "size": e.size, "sha256": e.sha256} for e in self.files],
            "folders": list(self.folders),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Manifest:
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
                FileEntry(confined(e["path"]), int(e["size"]), e["sha256"]) for e in data["files"]
            ]
            return cls.of(files, [confined(f) for f in data["folders"]])
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


def confined(path: str) -> str:
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


def hash_file(path: str) -> str:
    """sha256 of a file's bytes, in hex."""
    with open(path, "rb") as stream:
        return (
            hashlib.file_digest(stream, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else _hash(stream)
        )


def _hash(stream: Any) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def manifest_of_folder(root: str, *, hashes: bool = True, ignore: Iterable[str] = ()) -> Manifest:
    """Read a folder. ``ignore`` names relative paths that do not count.

    Raises:
        ArtifactError: a symbolic link, a device or a socket in it; callers who allow links resolve
            them before.
    """
    skipped = frozenset(ignore)
    files: list[FileEntry] = []
    folders: list[str] = []
    for current, names, entries in os.walk(root):
        names[:] = sorted(name for name in names if name != "__pycache__")
        base = os.path.relpath(current, root)
        if not names and not entries and base != ".":
            folders.append(base)
        for entry in [*names, *entries]:
            path = os.path.join(current, entry)
            relative = os.path.normpath(os.path.join(base, entry))
            if os.path.islink(path):
                raise ArtifactError(f"{relative} is a symbolic link to {os.readlink(path)!r}")
            if entry in entries and relative not in skipped:
                if not os.path.isfile(path):
                    raise ArtifactError(f"{relative} is neither a file nor a folder")
                files.append(
                    FileEntry(relative, os.path.getsize(path), hash_file(path) if hashes else None)
                )
    return Manifest.of(files, folders)
