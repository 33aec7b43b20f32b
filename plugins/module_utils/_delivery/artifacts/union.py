# SPDX-License-Identifier: Apache-2.0
"""Two artifact roots as one: since MLflow 3 ``runs:/<run>/<name>`` means the logged model of that
name and what the run logged under the name, and the model's files go before.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator

from ..errors import NotFound
from .roots import ArtifactRoot, Listing, RemoteFile
from .transfer import Stream


class UnionRoot(ArtifactRoot):
    """The files of ``first``, and those of ``beside`` that are not there.

    Either may hold nothing, as long as the other holds something.
    """

    def __init__(self, first: ArtifactRoot, beside: ArtifactRoot) -> None:
        super().__init__(f"{first.label} and {beside.label}", first.timeout)
        self._first = first
        self._beside = beside
        self._owners: dict[str, ArtifactRoot] = {}

    def _list(self) -> Listing:
        beside = listing_of(self._beside)
        if beside.files or beside.folders:
            first = listing_of(self._first)
        else:
            first = Listing(self._first.list(), self._first.folders())
        own = {file.path for file in first.files}
        above = {folder for path in own for folder in _above(path)}
        added = [file for file in beside.files if _fits(file, own, above)]
        self._owners = dict.fromkeys(own, self._first)
        self._owners.update((file.path, self._beside) for file in added)
        files = tuple(sorted([*first.files, *added]))
        holding = {folder for file in files for folder in _above(file.path)}
        folders = {*first.folders, *beside.folders} - holding - self._owners.keys()
        return Listing(files, tuple(sorted(folders)))

    def _owner(self, path: str) -> ArtifactRoot:
        self._get_listing()
        return self._owners.get(path, self._first)

    def _read(self, path: str, limit: int) -> bytes:
        return self._owner(path)._read(path, limit)

    def _bring(self, path: str, target: str, stream: Stream) -> tuple[int, str]:
        return self._owner(path)._bring(path, target, stream)


def listing_of(artifacts: ArtifactRoot) -> Listing:
    """All files and empty folders; none where nothing was ever logged there."""
    try:
        return Listing(artifacts.list(), artifacts.folders())
    except NotFound:
        return Listing((), ())


def _above(path: str) -> Iterator[str]:
    while path := posixpath.dirname(path):
        yield path


def _fits(file: RemoteFile, own: frozenset[str] | set[str], above: Collection[str]) -> bool:
    """A file goes before what has its name, and before what would lie in it."""
    return file.path not in own and file.path not in above and own.isdisjoint(_above(file.path))
