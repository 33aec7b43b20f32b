# SPDX-License-Identifier: Apache-2.0
"""A repository that is a folder of this host: how a model's files are made, put in place, kept and
taken away there.

Places are paths. A move exchanges its two sides; where one does not exist, the other becomes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import stat
import time
from collections.abc import Iterable, Iterator, Sequence

from .. import disk, rights
from ..disk import hash_file
from ..domain.config_pbtxt import CONFIG_NAME
from ..domain.desired import DesiredModel
from ..domain.journal import (
    FolderMove,
    FolderSwap,
    Journal,
    Move,
    Removal,
    Swap,
    Trial,
    deployed_by,
)
from ..domain.layout import META_NAME, OWN_FILES
from ..domain.manifest import FileEntry, Manifest
from ..domain.record import Record
from ..domain.stored import Fingerprint, StoredModel
from ..errors import ArtifactError, RepositoryError
from ..names import is_candidate
from . import candidate, recovery
from .comparison import compare
from .known_bytes import KnownBytes
from .state_store import StateStore, as_owner


def read_disk(store: StateStore, name: str, hashes: bool = False) -> StoredModel:
    """What the disk holds of a model.

    Args:
        hashes: compare bytes with the record's manifest instead of trusting the stat values.
    """
    folder = os.path.join(store.repository, name)
    record, journal = store.record(name), store.journal(name)
    there = disk.is_folder(folder)
    # Before any byte is read: what changes meanwhile looks otherwise from then on.
    there_by = deployed_by(record, journal)
    before = disk.fingerprint(folder) if there and there_by else {}
    config = _read_bytes(os.path.join(folder, CONFIG_NAME)) if there else None
    half_made = record is None and _moved_in(store, journal, folder)
    stored = StoredModel(record, there, journal, half_made, config)
    if there_by is None:
        return stored
    wanted = there_by.fingerprint
    # mlflow-meta.json is for readers of another tool; adding it back would cost a reload.
    found = {
        path: look
        for path, look in before.items()
        if path != META_NAME and not disk.is_byproduct(path)
    }
    compared = compare(there_by, _Files(folder), config, found, hashes=hashes)
    return dataclasses.replace(
        stored,
        changed_files=compared.changed,
        missing_files=compared.missing,
        touched_files=compared.touched,
        proven=compared.proven,
        modes_differ=any(found[path][4] != wanted[path][4] for path in found.keys() & wanted)
        or _is_of_another(folder, found, there_by),
    )


def _is_of_another(folder: str, paths: Iterable[str], record: Record) -> bool:
    """True where a file has another owner or group than the options asked for."""
    asked = [record.request.get("owner"), record.request.get("group")]
    if asked == [None, None]:
        return False
    with contextlib.suppress(RepositoryError, OSError):  # no such user any more; gone meanwhile
        user, group = disk.user_id(asked[0], -1), disk.group_id(asked[1], -1)
        found = [disk.stat_or_none(os.path.join(folder, path)) for path in paths]
        return any(
            user not in (-1, f.st_uid) or group not in (-1, f.st_gid)
            for f in found
            if f is not None
        )
    return False


def _moved_in(store: StateStore, journal: Journal | None, path: str) -> bool:
    """True where an interrupted run put what is at ``path`` there, and nothing was there before."""
    return isinstance(journal, FolderSwap) and any(
        store.sides(move)[0] == path
        and move.live_inode is None
        and recovery.brought(store, journal, move)
        for move in journal.moves
    )


class _Files:
    """The files below a folder, as ``compare`` asks for them."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def _path(self, path: str) -> str:
        return os.path.join(self._folder, path)

    def has_folder(self, path: str) -> bool:
        return disk.is_folder(self._path(path))

    def size(self, path: str) -> int | None:
        info = disk.stat_or_none(self._path(path))
        return info.st_size if info and stat.S_ISREG(info.st_mode) else None

    def sha256(self, path: str) -> str:
        return hash_file(self._path(path))


def _read_bytes(path: str) -> bytes | None:
    """A small file's bytes; None where there is no file of that name."""
    try:
        return disk.read_small(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


_DEFAULT_MODE = "0644"


class FolderRepository:
    """The models of one folder. Whoever changes one holds its lock.

    Args:
        path: the folder, which exists.
        state_dir: as for ``StateStore``.
    """

    def __init__(self, path: str, state_dir: str | None = None) -> None:
        self.store = StateStore(path, state_dir)
        self.path = self.store.repository
        self.rights = self.store.rights

    def close(self) -> None:
        """Nothing is held open."""

    def check(self, desired: DesiredModel) -> None:
        """Raises InvalidOption for what this kind of repository cannot do."""

    # -- reading -----------------------------------------------------------------------------------

    @as_owner
    def read(self, name: str, hashes: bool = False) -> StoredModel:
        """What is there of a model; ``hashes``: compare bytes instead of trusting
        the stat values.
        """
        return read_disk(self.store, name, hashes)

    def config(self, name: str) -> bytes | None:
        """A model's config.pbtxt, whoever deployed it; None where it cannot be read."""
        return self.text(name, CONFIG_NAME)

    def text(self, name: str, path: str) -> bytes | None:
        """A small file of a model, whoever deployed it; None where it cannot be read."""
        return self.read_at(self.live(name, path))

    @as_owner
    def read_at(self, where: str) -> bytes | None:
        """A small file of a model, or of a retained copy; None where it cannot be read."""
        with contextlib.suppress(OSError):  # somebody else's, closed to this user
            return _read_bytes(where)
        return None

    def configs(self) -> Iterator[bytes]:
        """Every model's config.pbtxt that can be read."""
        for name in self.names():
            text = self.config(name)
            if text is not None:
                yield text

    @as_owner
    def names(self) -> list[str]:
        """What lies in the repository, models or not."""
        return [name for name in disk.entries(self.path) if not is_candidate(name)]

    @as_owner
    def meta(self, name: str) -> bytes | None:
        """What is noted beside a model for readers of NVIDIA's plugin."""
        with contextlib.suppress(OSError):  # somebody else's, closed to this user
            return _read_bytes(self.live(name, META_NAME))
        return None

    def live(self, name: str, *parts: str) -> str:
        """Where a model lies, or a part of it."""
        return os.path.join(self.path, name, *parts)

    @as_owner
    def manifest(self, folder: str, known: Sequence[Record] = ()) -> Manifest:
        """What lies there, without our own files. Bytes are hashed of what does not look as one of
        the records ``known`` says. Raises ArtifactError for what cannot be deployed, such as a
        link.
        """
        return manifest_of_folder(folder, ignore=OWN_FILES, known=KnownBytes(known))

    @as_owner
    def fingerprint(self, name: str) -> Fingerprint:
        """How its files look now, by which a later run sees that nothing changed."""
        return disk.fingerprint(self.live(name))

    # -- a model being made ------------------------------------------------------------------------

    def workspace(self, name: str, transaction: str) -> str:
        """A folder of this host for what one transaction makes; it may not exist yet."""
        if self.store.scratch is None:
            return self.store.staging(name, transaction)
        self.store.scratch.ensure()
        return self.store.scratch.folder(name, transaction)

    def require_space(self, size: int) -> None:
        """Raises RepositoryError where ``size`` bytes do not fit."""
        if self.store.scratch:
            self.store.scratch.require_space(size)
        free = disk.free_bytes(self.store.path if disk.is_folder(self.store.path) else self.path)
        if size > free:
            raise RepositoryError(
                f"{size} bytes are needed and {free} are free on the file system of"
                f" {self.store.path}",
                step="make room",
            )

    def set_permissions(self, desired: DesiredModel, path: str) -> None:
        if self._is_made_aside(path):
            self._refuse_another_owner(desired)
            disk.set_permissions(path, -1, -1, int(desired.mode or _DEFAULT_MODE, 8))
        else:
            self._set_permissions(desired, path)

    def _refuse_another_owner(self, desired: DesiredModel) -> None:
        """Whoever owns the repository cannot give files to others."""
        owner = self.store.owner
        ids = disk.user_id(desired.owner, -1), disk.group_id(desired.group, -1)
        if owner and (ids[0] not in (-1, owner.user) or ids[1] not in (-1, owner.group)):
            raise RepositoryError(
                f"root acts as user {owner.user} in the repository {self.path} of that user, and"
                " can give no file there to another owner or group: leave out owner and group, or"
                f" run chown -hR 0 {shlex.join([self.path, self.store.path])}",
                step="set the files' permissions",
            )

    @as_owner
    def _set_permissions(self, desired: DesiredModel, path: str) -> None:
        root = os.stat(self.path)
        is_root = rights.is_root()
        owner = disk.user_id(desired.owner, root.st_uid if is_root else -1)
        group = disk.group_id(desired.group, root.st_gid if is_root else -1)
        disk.set_permissions(path, owner, group, int(desired.mode or _DEFAULT_MODE, 8))

    def flush(self, path: str) -> None:
        disk.fsync_tree_folders(path)

    # -- changes -----------------------------------------------------------------------------------

    def _is_made_aside(self, path: str) -> bool:
        """True for what root makes in a folder of its own, because the staging is another's."""
        scratch = self.store.scratch
        return scratch is not None and path.startswith(f"{scratch.path}/")

    def _brought(self, name: str, transaction: str, path: str) -> str:
        """What was made aside, copied to the staging as the owner of that."""
        if not self._is_made_aside(path):
            return path
        target = os.path.join(self.store.staging(name, transaction), os.path.basename(path))
        with self.rights():
            disk.make_folder(os.path.dirname(target))
        disk.copy_as(path, target, self.rights)
        return target

    def begin(
        self, name: str, moves: Sequence[Move], transaction: str, old: Record | None, keep: int
    ) -> FolderSwap:
        """Write the journal of moves that ``put`` will make."""
        there = [Move(live, self._brought(name, transaction, staged)) for live, staged in moves]
        return self._begin(name, there, transaction, old, keep)

    @as_owner
    def _begin(
        self, name: str, moves: Sequence[Move], transaction: str, old: Record | None, keep: int
    ) -> FolderSwap:
        listed = (
            FolderMove(
                live=os.path.relpath(live, self.path),
                staged=os.path.relpath(staged, self.store.path),
                live_inode=disk.inode(live),
                staged_inode=disk.inode(staged),
            )
            for live, staged in moves
        )
        journal = FolderSwap(transaction, old, keep, tuple(listed))
        self.store.write_journal(name, journal)
        return journal

    @as_owner
    def put(self, name: str, journal: Swap) -> str | None:
        """Make the moves; returns a warning where they were not atomic, or modes were mended."""
        said, self.store.warnings = self.store.warnings, []
        atomic = True
        for move in _of_folder(journal).moves:
            live, staged = self.store.sides(move)
            if move.live_inode is None:
                disk.move_new(staged, live)
            elif move.staged_inode is None:
                disk.move_new(live, staged)
            else:
                disk.go_on_from(live, staged)
                atomic = disk.exchange(live, staged) and atomic
        if not atomic:
            said.append(
                f"the file system of {self.path} has no atomic exchange: for a moment the model's"
                " folder was missing, and the next run recovers from a kill just then"
            )
        return "; ".join(said) or None

    @as_owner
    def moves_out(self, name: str, transaction: str, versions: Sequence[int]) -> list[Move]:
        """What takes version folders out of a model."""
        folder = os.path.join(self.store.staging(name, transaction), "retired")
        if versions:
            disk.make_folder(folder)
        return [
            Move(self.live(name, str(version)), os.path.join(folder, str(version)))
            for version in versions
        ]

    @as_owner
    def touch(self, name: str, ahead: float = 0) -> None:
        """Newer time stamps are what makes Triton initialise a version again whose files did not
        change.
        """
        folder = self.live(name)
        disk.touch_versions(folder, max(time.time(), disk.newest(folder) + 1) + ahead)

    @as_owner
    def remove(self, name: str, transaction: str) -> None:
        """Remove a model with its record and retained copies."""
        live = self.live(name)
        self.store.write_journal(name, Removal())
        if disk.stat_or_none(live) is not None:
            disk.make_folder(self.store.staging(name))
            disk.move_new(live, os.path.join(self.store.staging(name), f"removed-{transaction}"))
        self.store.remove_record(name)
        disk.remove_tree(self.store.staging(name))
        disk.remove_tree(self.store.retained(name))
        self.store.remove_journal(name)

    # -- retained copies ---------------------------------------------------------------------------

    @as_owner
    def retained_model(self, name: str, key: str) -> str | None:
        """The whole model of a retained deployment, where it is kept under this key."""
        folder = os.path.join(self.store.retained(name, key), "model")
        if disk.is_folder(folder):
            return folder
        tried = candidate.place_of(self.store, name)
        return tried if self.store.tried(name) == folder and disk.is_folder(tried) else None

    @as_owner
    def retained_versions(self, name: str, version: int) -> list[str]:
        """Retained folders of one version."""
        folders = [
            os.path.join(self.store.retained(name, record.key), str(version))
            for record in self.store.retained_records(name)
        ]
        return [folder for folder in folders if disk.is_folder(folder)]

    @as_owner
    def holds(self, folder: str, part: Manifest, known: Sequence[Record] = ()) -> bool:
        """True where a retained version folder has exactly the files of ``part``, whose paths begin
        with the version; ``known`` as for ``manifest``.
        """
        version = os.path.basename(folder)
        try:
            found = manifest_of_folder(folder, known=KnownBytes(known), below=version)
        except (ArtifactError, OSError):
            return False
        entries = (
            FileEntry(f"{version}/{entry.path}", entry.size, entry.sha256) for entry in found.files
        )
        return Manifest.of(entries, (f"{version}/{folder}" for folder in found.folders)) == part

    @as_owner
    def remove_strays(self, folder: str, paths: Sequence[str]) -> None:
        """Remove files and whole folders of a retained model."""
        for path in paths:
            place = os.path.join(folder, path)
            disk.remove_tree(place) if disk.is_folder(place) else disk.remove_file(place)

    def replace_config(self, folder: str, ready: str) -> None:
        """Give a retained model the configuration which lies at ``ready``."""
        target = os.path.join(folder, CONFIG_NAME)
        if self._is_made_aside(ready):
            data = disk.read_small(ready)
            with self.rights():
                disk.replace_file(target, data)
        else:
            disk.replace(ready, target)

    # -- trials ------------------------------------------------------------------------------------

    def begin_trial(
        self, desired: DesiredModel, transaction: str, source: str, config: bytes
    ) -> None:
        """Put what lies at ``source`` under the candidate's name, with this configuration."""
        name = desired.name
        with self.rights():
            place = candidate.refuse_taken(self.store, name)
        if self._is_made_aside(source):
            with self.rights():
                candidate.write_down(self.store, name, transaction, "")
            disk.copy_as(source, place, self.rights)
        with self.rights():
            if source == self.live(name):
                candidate.write_down(self.store, name, transaction, "")
                candidate.link(source, place)
            elif not disk.is_folder(place):
                candidate.write_down(self.store, name, transaction, source)
                disk.move_new(source, place)
            disk.write_file(os.path.join(place, CONFIG_NAME), config)
        self.set_permissions(desired, place)

    @as_owner
    def end_trial(self, name: str) -> None:
        """Bring the files back to where they belong, and nothing of the candidate is left."""
        journal = self.store.journal(name)
        if isinstance(journal, Trial):
            candidate.take_away(self.store, name, journal)
            self.store.remove_journal(name)

    # -- the end -----------------------------------------------------------------------------------

    @as_owner
    def recover(self, name: str) -> str | None:
        """Undo or finish what a run left; says what was done."""
        return recovery.recover(self.store, name)

    @as_owner
    def retire(self, name: str, journal: Swap) -> None:
        """Keep what was replaced as a retained copy."""
        recovery.retire(self.store, name, _of_folder(journal))


def _of_folder(journal: Swap) -> FolderSwap:
    if not isinstance(journal, FolderSwap):
        raise TypeError("the journal is that of a change in S3")
    return journal


def manifest_of_folder(
    root: str,
    *,
    hashes: bool = True,
    ignore: Iterable[str] = (),
    known: KnownBytes | None = None,
    below: str = "",
) -> Manifest:
    """Read a folder.

    Args:
        ignore: relative paths that do not count.
        known: of which files no byte is read; ``below`` is where in the model the folder belongs.

    Raises:
        ArtifactError: a symbolic link, a device or a socket in it; callers who allow links resolve
            them before.
    """
    skipped = frozenset(ignore)
    files: list[FileEntry] = []
    folders: list[str] = []
    for base, names, entries, folder in disk.walk(root):
        names[:] = sorted(name for name in names if name != "__pycache__")
        if not names and not entries and base != ".":
            folders.append(base)
        for entry in [*names, *entries]:
            relative = os.path.normpath(os.path.join(base, entry))
            info = os.stat(entry, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISLNK(info.st_mode):
                to = os.readlink(entry, dir_fd=folder)
                raise ArtifactError(f"{relative} is a symbolic link to {to!r}")
            if entry in entries and relative not in skipped:
                if not stat.S_ISREG(info.st_mode):
                    raise ArtifactError(f"{relative} is neither a file nor a folder")
                path = os.path.join(root, relative)
                sha256 = known.sha256(os.path.join(below, relative), info) if known else None
                if hashes and sha256 is None:
                    sha256 = hash_file(path)
                files.append(FileEntry(relative, info.st_size, sha256))
    return Manifest.of(files, folders)
