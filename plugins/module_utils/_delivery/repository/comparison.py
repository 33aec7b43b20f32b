# SPDX-License-Identifier: Apache-2.0
"""Which files of a model are not those that were deployed, in a folder and in S3."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Protocol

from ..domain.config_pbtxt import CONFIG_NAME, digest_without_id
from ..domain.manifest import FileEntry, Manifest
from ..domain.record import Record


class Files(Protocol):
    """The files of one model as they are now."""

    def has_folder(self, path: str) -> bool: ...

    def size(self, path: str) -> int | None:
        """In bytes; None where there is no file of that name, or a link."""

    def sha256(self, path: str) -> str: ...


Each = Callable[[Callable[[str], bool], Sequence[str]], Iterable[bool]]
"""As ``map``; a repository in S3 asks several at a time."""


def compare(
    record: Record,
    files: Files,
    config: bytes | None,
    touched: Collection[str],
    suspects: Collection[str],
    each: Each = map,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Paths whose bytes are not those that were deployed, and paths that were only touched.

    Args:
        config: bytes of config.pbtxt.
        touched: paths which do not look as the record says, by what costs little to ask.
        suspects: paths whose bytes are to be compared, those that were touched among them.
    """
    if not suspects:
        return (), ()
    manifest = Manifest.from_dict(record.manifest)
    wanted = {entry.path: entry for entry in manifest.files}

    def differs(path: str) -> bool:
        if path == CONFIG_NAME:
            return (
                config is None
                or digest_without_id(config, record.deploy_id) != record.config_digest
            )
        if path not in wanted:
            return not (path in manifest.folders and files.has_folder(path))
        return _bytes_differ(files, wanted[path])

    paths = sorted(suspects)
    changed = tuple(path for path, different in zip(paths, each(differs, paths)) if different)
    return changed, tuple(sorted({*touched} - {*changed, CONFIG_NAME}))


def _bytes_differ(files: Files, entry: FileEntry) -> bool:
    size = files.size(entry.path)
    return size is None or size != entry.size or files.sha256(entry.path) != entry.sha256


def same(one: Sequence[Any] | None, other: Sequence[Any] | None) -> bool:
    """True where both are there and tell of the same file."""
    return one is not None and other is not None and list(one) == list(other)
