# SPDX-License-Identifier: Apache-2.0
"""Which files of a model are not those that were deployed, in a folder and in S3."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from ..domain.config_pbtxt import CONFIG_NAME, digest_without_id
from ..domain.manifest import FileEntry, Manifest
from ..domain.record import Record
from ..domain.stored import Fingerprint


class Files(Protocol):
    """The files of one model as they are now."""

    def has_folder(self, path: str) -> bool: ...

    def size(self, path: str) -> int | None:
        """In bytes; None where there is no file of that name, or a link."""

    def sha256(self, path: str) -> str: ...


Each = Callable[[Callable[[str], bool], Sequence[str]], Iterable[bool]]
"""As ``map``; a repository in S3 asks several at a time."""


class Compared(NamedTuple):
    """Paths whose bytes are not those that were deployed, missing and new ones too; those of them
    that are missing; paths that were only touched; and how the files look that are as they were
    deployed.
    """

    changed: tuple[str, ...]
    missing: tuple[str, ...]
    touched: tuple[str, ...]
    proven: Fingerprint


def compare(
    record: Record,
    files: Files,
    config: bytes | None,
    found: Fingerprint,
    each: Each = map,
    *,
    hashes: bool = False,
) -> Compared:
    """Compare what is there with what was deployed. Bytes are read of what does not look as the
    record says.

    Args:
        config: bytes of config.pbtxt.
        found: how the files look, asked before any byte was read.
        hashes: read the bytes of all.
    """
    manifest = Manifest.from_dict(record.manifest)
    wanted = {entry.path: entry for entry in manifest.files}
    known = {CONFIG_NAME, *wanted, *manifest.folders}
    paths = known | found.keys()
    touched = {p for p in paths if not same(record.fingerprint.get(p), found.get(p))}

    def differs(path: str) -> bool:
        if path == CONFIG_NAME:
            # What was taken over may have none.
            return digest_without_id(config or b"", record.deploy_id) != record.config_digest
        if path not in wanted:
            return not (path in manifest.folders and files.has_folder(path))
        return _bytes_differ(files, wanted[path])

    suspects = sorted(paths if hashes else touched)
    answers = each(differs, suspects)
    different = [path for path, is_different in zip(suspects, answers) if is_different]
    # A folder that is empty since its file is gone is told of by its file.
    changed = [path for path in different if not any(o.startswith(f"{path}/") for o in different)]
    # The time of an empty folder says nothing of what could be loaded from it.
    only_touched = sorted((touched & found.keys()) - {*different, *manifest.folders})
    proven = {path: found[path] for path in found.keys() - {*different}}
    missing = tuple(path for path in changed if path in known and path not in found)
    return Compared(tuple(changed), missing, tuple(only_touched), proven)


def _bytes_differ(files: Files, entry: FileEntry) -> bool:
    size = files.size(entry.path)
    return size is None or size != entry.size or files.sha256(entry.path) != entry.sha256


def same(one: Sequence[object] | None, other: Sequence[object] | None) -> bool:
    """True where both are there and tell of the same file, by what both say of it."""
    return one is not None and other is not None and all(a == b for a, b in zip(one, other))
