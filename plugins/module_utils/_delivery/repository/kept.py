# SPDX-License-Identifier: Apache-2.0
"""Files of a deployment, wherever they are kept: a rule judges what would come back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from ..domain.manifest import Manifest
from ..domain.record import Record
from .protocol import Repository


def kept_text(repository: Repository, record: Record, path: str) -> bytes | None:
    """A small file with the bytes that the record has of it, in place or in a retained copy; None
    where it is in neither.
    """
    files = {file.path: file.sha256 for file in Manifest.from_dict(record.manifest).files}
    for place in _places(repository, record, path):
        data = repository.read_at(place)
        if data is not None and hashlib.sha256(data).hexdigest() == files[path]:
            return data
    return None


def _places(repository: Repository, record: Record, path: str) -> Iterator[str]:
    name = record.name
    yield repository.live(name, path)
    for key in dict.fromkeys(one.key for one in (record, *repository.store.retained_records(name))):
        if folder := repository.retained_model(name, key):
            yield f"{folder}/{path}"
    version, _slash, rest = path.partition("/")
    if version.isdecimal():
        for folder in repository.retained_versions(name, int(version)):
            yield f"{folder}/{rest}"
