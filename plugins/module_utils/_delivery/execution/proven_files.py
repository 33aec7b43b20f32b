# SPDX-License-Identifier: Apache-2.0
"""Which files of a model a run has proven to be those of its deployment. What a record says of
files comes from here and from nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from ..domain.config_pbtxt import CONFIG_NAME
from ..domain.manifest import Manifest
from ..domain.observed import ObservedModel
from ..domain.record import Record
from ..domain.stored import Fingerprint
from ..repository.protocol import Repository

T = TypeVar("T")
_WITH_MODE = 5
"""How much is known of a file in a folder; the last of it are its permission bits."""


class ProvenFiles:
    """How each file looked when its bytes were those of the deployment.

    It begins with what planning saw, and follows the changes that the run itself makes. A file that
    somebody else changes meanwhile is proven no more, so that the next run looks into it.
    """

    def __init__(self, repository: Repository, observed: ObservedModel) -> None:
        self._repository = repository
        self._name = observed.name
        self._proven = observed.proven
        self._noted: Fingerprint = observed.record.fingerprint if observed.record else {}
        self._strays = frozenset(observed.changed_files)

    def through(
        self,
        change: Callable[[], T],
        brought: Collection[str] = (),
        *,
        sets_permissions: bool = False,
    ) -> T:
        """Make a change that gives files another look and leaves their bytes alone.

        Args:
            brought: places, as of ``Repository.live``, at which it puts what the run has hashed.
        """
        live = self._repository.live(self._name)
        parts = [place[len(live) :].strip("/") for place in brought]
        before = {} if "" in parts else self._repository.fingerprint(self._name)
        result = change()

        def is_new(path: str) -> bool:
            return any(part in ("", path) or path.startswith(f"{part}/") for part in parts)

        self._proven = {
            path: look
            for path, look in self._repository.fingerprint(self._name).items()
            if is_new(path) or (path in before and before[path] == self._proven.get(path))
        }
        self._strays = frozenset(path for path in self._strays if not is_new(path))
        self._noted = {
            path: look
            for path, look in self._noted.items()
            if not (sets_permissions or is_new(path))
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
        """What the record is to say of the files.

        A model may write files of its own beside those of the deployment while it is loaded: what
        has come since planning, or since the folder was put in place, is taken for such.
        """
        manifest = Manifest.from_dict(record.manifest)
        deployed = {CONFIG_NAME, *(entry.path for entry in manifest.files), *manifest.folders}
        now = self._repository.fingerprint(self._name)
        own = {path: now[path] for path in now.keys() - deployed - self._strays}
        looks = sorted({**own, **self._proven}.items())
        return {path: self._with_noted_mode(path, look) for path, look in looks}

    def _with_noted_mode(self, path: str, look: Sequence[object]) -> Sequence[object]:
        """Bytes are proven, and not permission bits: those stay as they were deployed, until a run
        has set them.
        """
        noted = self._noted.get(path, ())
        has_modes = len(noted) == len(look) == _WITH_MODE
        return [*look[:-1], noted[-1]] if has_modes else look
