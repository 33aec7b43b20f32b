# SPDX-License-Identifier: Apache-2.0
"""Which files of a model a run has proven to be those of its deployment. What a record says of
files comes from here and from nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

from ..domain.config_pbtxt import CONFIG_NAME
from ..domain.manifest import Manifest
from ..domain.record import Record
from ..domain.stored import Fingerprint
from ..repository.protocol import Repository

T = TypeVar("T")


class ProvenFiles:
    """How each file looked when its bytes were those of the deployment.

    It begins with what planning saw, and follows the changes that the run itself makes. A file that
    somebody else changes meanwhile is proven no more, so that the next run looks into it.

    Args:
        proven: as ``StoredModel.proven``.
    """

    def __init__(self, repository: Repository, name: str, proven: Fingerprint) -> None:
        self._repository = repository
        self._name = name
        self._proven = proven

    def through(self, change: Callable[[], T], brought: Collection[str] = ()) -> T:
        """Make a change that gives files another look and leaves their bytes alone.

        Args:
            brought: places, as of ``Repository.live``, at which it puts what the run has hashed.
        """
        live = self._repository.live(self._name)
        before: Fingerprint = {}
        if live not in brought:
            before = self._repository.fingerprint(self._name)
        result = change()
        parts = [place[len(live) :].strip("/") for place in brought]
        self._proven = {
            path: look
            for path, look in self._repository.fingerprint(self._name).items()
            if any(_is_below(path, part) for part in parts) or self._is_proven(path, before)
        }
        return result

    def seen_by(self, read: Callable[[], T]) -> T:
        """Read the bytes of all files; those that keep their look meanwhile are proven."""
        before = self._repository.fingerprint(self._name)
        result = read()
        after = self._repository.fingerprint(self._name)
        self._proven = {path: look for path, look in before.items() if after.get(path) == look}
        return result

    def of(self, record: Record) -> Fingerprint:
        """What the record is to say of its files."""
        manifest = Manifest.from_dict(record.manifest)
        paths = {CONFIG_NAME, *(entry.path for entry in manifest.files), *manifest.folders}
        return {path: self._proven[path] for path in sorted(paths & self._proven.keys())}

    def _is_proven(self, path: str, found: Fingerprint) -> bool:
        return path in found and found[path] == self._proven.get(path)


def _is_below(path: str, part: str) -> bool:
    return part in ("", path) or path.startswith(f"{part}/")
