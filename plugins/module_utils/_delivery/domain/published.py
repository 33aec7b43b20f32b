# SPDX-License-Identifier: Apache-2.0
"""The publisher's manifest, as it lies beside a model in the registry; pure.

Schema 2 covers every file of the artifact, so that nothing which decides what is served can be
changed under it. Schema 1, of former releases, covers the model folder alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import ArtifactError
from ..outside import JsonDict
from .fields import Fields, WrongShape, read_json
from .manifest import MANIFEST_NAME, FileEntry, confine
from .provenance import Claim

PUBLISHED_SCHEMA = 2
"""Of the manifests that publications write: paths are those of the artifact."""
SCHEMA_TAG = "triton.manifest"
"""The tag of a model version that has the schema of its published manifest."""
LARGEST_MANIFEST = 64 << 20
_SCHEMAS = (1, PUBLISHED_SCHEMA)
_MOST_FILES = 250_000
MOST_VALUES = 8 * _MOST_FILES
"""Of a document that lists files, which needs four for each."""
_LONGEST_PATH = 4096
_SHA256 = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class PublishedManifest:
    """Files and empty folders, sorted. Paths are those of the artifact; in schema 1, of the model
    folder in it.
    """

    files: tuple[FileEntry, ...]
    folders: tuple[str, ...] = ()
    schema: int = PUBLISHED_SCHEMA

    @classmethod
    def of(cls, files: Iterable[FileEntry], folders: Iterable[str] = ()) -> PublishedManifest:
        return cls(tuple(sorted(files)), tuple(sorted(folders)))

    @property
    def digest(self) -> str:
        """sha256 over the canonical JSON, which the tag ``triton.digest`` has."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    @property
    def covers_all(self) -> bool:
        """Whether it covers everything that decides what is served."""
        return self.schema == PUBLISHED_SCHEMA

    def to_dict(self) -> JsonDict:
        return {
            "schema": self.schema,
            "files": [{"path": e.path, "size": e.size, "sha256": e.sha256} for e in self.files],
            "folders": list(self.folders),
        }

    def to_bytes(self) -> bytes:
        return (json.dumps(self.to_dict(), indent=1) + "\n").encode()

    def claims(self, folder: str) -> dict[str, Claim]:
        """Path in the artifact → what its bytes must be; ``folder`` is where schema 1 begins."""
        return {
            self._in_artifact(entry.path, folder): Claim(str(entry.sha256), entry.size)
            for entry in self.files
        }

    def folders_in_artifact(self, folder: str) -> tuple[str, ...]:
        return tuple(self._in_artifact(path, folder) for path in self.folders)

    def _in_artifact(self, path: str, folder: str) -> str:
        return path if self.covers_all or not folder else f"{folder}/{path}"


def read_published(body: bytes) -> PublishedManifest:
    """Read a manifest, which may be anybody's.

    Raises:
        ArtifactError: it is none; the sentence says why.
    """
    try:
        fields = Fields(read_json(body, MOST_VALUES))
        schema = fields.number("schema")
        if schema not in _SCHEMAS:
            raise WrongShape(
                f"it has schema {schema}, and this version of the collection reads 1 and"
                f" {PUBLISHED_SCHEMA}"
            )
        listed, folders = fields.each("files"), fields.texts("folders")
        if len(listed) + len(folders) > _MOST_FILES:
            raise WrongShape(f"it lists more than {_MOST_FILES} files and folders")
        files = [_entry(one, f"file {number}: ") for number, one in enumerate(listed, 1)]
        _refuse_repeated([entry.path for entry in files] + [_path(folder) for folder in folders])
        return PublishedManifest(tuple(sorted(files)), tuple(sorted(folders)), schema)
    except (WrongShape, ArtifactError) as error:
        said = error.message if isinstance(error, ArtifactError) else str(error)
        raise ArtifactError(
            f"its manifest {MANIFEST_NAME} cannot be read: {said}", step="read the manifest"
        ) from error


def _entry(data: object, where: str) -> FileEntry:
    fields = Fields(data, where)
    digest = fields.text("sha256")
    if len(digest) != 64 or not _SHA256.issuperset(digest):
        raise fields.wrong("sha256", "64 hexadecimal digits in small letters")
    return FileEntry(_path(fields.text("path")), fields.number("size"), digest)


def _path(text: str) -> str:
    """Only the one way to write a path, so that what is compared is what is opened."""
    if len(text) > _LONGEST_PATH:
        raise WrongShape(f"it has a path of {len(text)} characters")
    if confine(text) != text:
        raise WrongShape(f"the path {text!r} is not written as {confine(text)!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise WrongShape(f"the path {text!r} is no text") from error
    return text


def _refuse_repeated(paths: list[str]) -> None:
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            raise WrongShape(f"it lists {path!r} more than once")
        seen.add(path)


def folder_of_schema_1(
    manifest: PublishedManifest, data: object, files: Mapping[str, object]
) -> str:
    """The folder of an artifact to which a manifest of schema 1 belongs: the one that MLmodel names
    (``data``), else the one that has most of what is listed.
    """
    heads = {path.partition("/")[0] for path in files if "/" in path}
    if isinstance(data, str) and data in heads:
        return data
    return max(
        sorted(heads),
        key=lambda head: sum(f"{head}/{entry.path}" in files for entry in manifest.files),
        default="",
    )
