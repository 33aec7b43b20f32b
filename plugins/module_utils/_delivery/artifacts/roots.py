# SPDX-License-Identifier: Apache-2.0
"""Artifact roots: what files a model has where it is stored, and the way of those files onto this
disk.

The interface and the local folder live here; the roots that need MLflow are made by
``registry.connection``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from ..deadline import call_within
from ..domain.manifest import FileEntry, confine
from ..effects import effect
from ..errors import ArtifactError, DeadlineExceeded, NotFound
from ..no_follow import entries, open_file
from ..progress import step
from .download import Store, download
from .local_copy import copy_hashed
from .transfer import Stream, run_transfers

Progress = Callable[[str, int], None]
_WORKERS = 16
_QUESTIONS = 8
_CHUNK = 1 << 20
_DEEPEST = 64
_MOST_ENTRIES = 200_000


@dataclass(frozen=True, order=True)
class RemoteFile:
    """A file of an artifact: POSIX ``path`` inside the root, ``size`` in bytes (None: the store
    does not say).
    """

    path: str
    size: int | None


@dataclass(frozen=True)
class Listing:
    """All files, and the folders in which there is none."""

    files: tuple[RemoteFile, ...]
    folders: tuple[str, ...]


class ArtifactRoot:
    """The files under one place. The listing is asked for once and kept."""

    verb = "download"

    def __init__(self, label: str, timeout: float) -> None:
        self.label = label
        self.timeout = timeout
        self._listing: Listing | None = None
        self._sizes: dict[str, int | None] = {}

    def list(self) -> tuple[RemoteFile, ...]:
        """All files, sorted by path. Raises ArtifactError where a path leaves the root."""
        return self._get_listing().files

    def sizes(self) -> Mapping[str, int | None]:
        """Path → bytes, for all files."""
        self._get_listing()
        return self._sizes

    def folders(self) -> tuple[str, ...]:
        """The folders without any file in them, where the store keeps such folders."""
        return self._get_listing().folders

    def read(self, path: str, limit: int = _CHUNK) -> bytes:
        """The bytes of a small file.

        Raises:
            NotFound: no such file.
            ArtifactError: more than ``limit`` bytes, or it could not be read.
        """
        wanted = confine(path)
        try:
            data = call_within(self.timeout, "the read", self._read, wanted, limit)
        except DeadlineExceeded as error:
            raise ArtifactError(
                f"{wanted} of {self.label} did not come within {self.timeout:g} s"
            ) from error
        if len(data) > limit:
            raise ArtifactError(f"{wanted} of {self.label} has more than {limit} bytes")
        return data

    def look(self, path: str, start: int, size: int) -> bytes | None:
        """Some bytes of a file, in which to look for what it is; nobody compares them with what the
        publisher claims.

        Returns:
            ``size`` bytes from ``start`` on, or as many as there are; None where the store gives no
            parts.

        Raises:
            NotFound, ArtifactError: as for ``read``.
        """
        wanted = confine(path)
        try:
            return call_within(self.timeout, "the read", self._look, wanted, start, size)
        except DeadlineExceeded as error:
            raise ArtifactError(
                f"{wanted} of {self.label} did not come within {self.timeout:g} s"
            ) from error

    def _look(self, path: str, start: int, size: int) -> bytes | None:
        return None

    def fetch(
        self, wanted: Mapping[str, str], progress: Progress | None = None
    ) -> dict[str, FileEntry]:
        """Bring files onto this disk, hashed on the way and synced.

        Args:
            wanted: path in the root → absolute path to make; its folder exists, the file does not.
            progress: called with a path and its bytes so far.

        Returns:
            Path in the root → entry of that path, with the size and sha256 of what came.

        Raises:
            ArtifactError: one for all files that failed. What came of them stays, for the caller to
                remove.
        """
        sizes = self.sizes()
        unknown = sorted(set(wanted) - set(sizes))
        if unknown:
            raise ArtifactError(f"{self.label} does not hold {', '.join(unknown)}")
        jobs = {path: self._job(path, target, sizes[path]) for path, target in wanted.items()}
        with step(self.verb, sum(sizes[path] or 0 for path in wanted)) as going:
            return run_transfers(
                jobs,
                workers=_WORKERS,
                stall=self.timeout,
                failed="could not be brought here",
                progress=progress or going,
            )

    def _job(self, path: str, target: str, size: int | None) -> Callable[[Stream], FileEntry]:
        def job(stream: Stream) -> FileEntry:
            with effect("download", target):
                moved, digest = self._bring(path, target, stream)
            if size is not None and moved != size:
                raise ArtifactError(f"{moved} bytes came instead of {size}")
            return FileEntry(path, moved, digest)

        return job

    def _get_listing(self) -> Listing:
        if self._listing is None:
            self._listing = self._list()
            self._sizes = {file.path: file.size for file in self._listing.files}
        return self._listing

    def _list(self) -> Listing:
        raise NotImplementedError

    def _read(self, path: str, limit: int) -> bytes:
        raise NotImplementedError

    def _bring(self, path: str, target: str, stream: Stream) -> tuple[int, str]:
        raise NotImplementedError


class LocalRoot(ArtifactRoot):
    """A folder of this host.

    Args:
        inside: symbolic links count as what they point to, as long as that lies under this; usually
            the folder itself.
        links: False where somebody else than the operator named the folder: a link is refused.
    """

    verb = "copy"

    def __init__(
        self, folder: str, timeout: float, inside: str | None = None, *, links: bool = True
    ) -> None:
        super().__init__(folder, timeout)
        self.folder = os.path.realpath(folder)
        self.inside = os.path.realpath(inside or folder)
        self._links = links
        self._found: dict[str, os.stat_result] = {}

    def _list(self) -> Listing:
        if not os.path.isdir(self.folder):
            raise NotFound(f"the folder {self.label} does not exist on this host")
        files: list[RemoteFile] = []
        folders: list[str] = []
        for path, info in self._walk("", self.folder, ()):
            if path.endswith("/"):
                folders.append(path[:-1])
            else:
                files.append(RemoteFile(confine(path), info.st_size))
                self._found[path] = info
        return Listing(tuple(sorted(files)), tuple(sorted(folders)))

    def _walk(
        self, path: str, real: str, above: tuple[str, ...]
    ) -> Iterator[tuple[str, os.stat_result]]:
        if real in above:
            raise ArtifactError(f"{path.rstrip('/')} is a symbolic link to a folder that holds it")
        found = entries(real)
        if not found and path:
            yield path, os.lstat(real)
        for name, info in found:
            child = os.path.join(real, name)
            if stat.S_ISLNK(info.st_mode):
                child = self._resolve(path + name, child)
                info = os.lstat(child)
            if stat.S_ISDIR(info.st_mode):
                yield from self._walk(f"{path}{name}/", child, (*above, real))
            elif stat.S_ISREG(info.st_mode):
                yield path + name, info
            else:
                raise ArtifactError(f"{path}{name} is neither a file nor a folder")

    def _resolve(self, path: str, location: str) -> str:
        real = os.path.realpath(location)
        if real != location and not self._links:
            raise ArtifactError(
                f"{path} is a symbolic link, and no link is followed in {self.label}, because the"
                " registry named that folder"
            )
        if real != location and os.path.commonpath([real, self.inside]) != self.inside:
            raise ArtifactError(
                f"{path} is a symbolic link to {os.readlink(location)!r}, which leaves"
                f" {self.inside}"
                if os.path.islink(location)
                else f"{path} leads out of {self.inside}"
            )
        if not os.path.exists(real):
            raise ArtifactError(
                f"{path} is a symbolic link to {os.readlink(location)!r}, which does not exist"
            )
        return real

    def real_path(self, path: str) -> str:
        """Where the bytes of a listed file are, links resolved."""
        real = self.folder
        for part in confine(path).split("/"):
            real = self._resolve(path, os.path.join(real, part))
        return real

    def open(self, path: str) -> BinaryIO:
        """Open a file of the folder; where it was listed, the very file that was listed."""
        return open_file(self.real_path(path), self._found.get(path))

    def _read(self, path: str, limit: int) -> bytes:
        try:
            with self.open(path) as file:
                return file.read(limit + 1)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"{self.label} has no file {path}") from error

    def _look(self, path: str, start: int, size: int) -> bytes | None:
        try:
            with self.open(path) as file:
                file.seek(start)
                return file.read(size)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"{self.label} has no file {path}") from error

    def _bring(self, path: str, target: str, stream: Stream) -> tuple[int, str]:
        with self.open(path) as source, create(target) as file:
            before = os.fstat(source.fileno())
            found = copy_hashed(source.fileno(), file.fileno(), stream.add, stream.received)
            after = os.fstat(source.fileno())
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise ArtifactError("somebody wrote into it while it was copied: deploy it again")
        return found


class ArtifactStore(Store, Protocol):
    """What ``RemoteRoot`` needs of an artifact server."""

    def entries(self, path: str) -> Iterable[tuple[str, bool, int | None]]:
        """Name, whether a folder, and size, of what lies directly under ``path`` ("" is the
        root).
        """


class RemoteRoot(ArtifactRoot):
    """A folder on the other side of a connection."""

    def __init__(self, label: str, timeout: float, store: ArtifactStore) -> None:
        super().__init__(label, timeout)
        self._store = store

    def _list(self) -> Listing:
        return walk(self._store.entries)

    def _read(self, path: str, limit: int) -> bytes:
        data = bytearray()
        with closing(self._store.open(path)) as body:
            for chunk in body:
                data += chunk
                if len(data) > limit:
                    break
        size = self._sizes.get(path)
        if size is not None and len(data) <= limit and len(data) != size:
            raise ArtifactError(f"{path} of {self.label}: {len(data)} bytes came instead of {size}")
        return bytes(data)

    def _look(self, path: str, start: int, size: int) -> bytes | None:
        data = bytearray()
        with closing(self._store.open(path, start, start + size)) as body:
            if body.start != start:  # it gives the whole file
                return None
            for chunk in body:
                data += chunk
                if len(data) >= size:
                    break
        return bytes(data[:size])

    def _bring(self, path: str, target: str, stream: Stream) -> tuple[int, str]:
        with create(target) as file:
            found = download(self._store, path, file.fileno(), self.sizes().get(path), stream)
            stream.received()
            os.fsync(file.fileno())
        return found


def walk(entries: Callable[[str], Iterable[tuple[str, bool, int | None]]]) -> Listing:
    """List a tree of which each folder is one question; those of one depth are asked side by
    side.
    """
    files: list[RemoteFile] = []
    empty: list[str] = []
    level = [""]
    with ThreadPoolExecutor(_QUESTIONS) as pool:
        while level:
            answers = (
                pool.map(lambda folder: list(entries(folder)), level)
                if len(level) > 1
                else [list(entries(level[0]))]
            )
            below: list[str] = []
            for folder, found in zip(level, answers):
                if not found and folder:
                    empty.append(folder)
                for path, is_folder, size in _children(folder, found):
                    if is_folder:
                        below.append(path)
                    else:
                        files.append(RemoteFile(path, size))
                if len(files) + len(empty) + len(below) > _MOST_ENTRIES:
                    raise ArtifactError(f"the store lists more than {_MOST_ENTRIES} files")
            level = below
    return Listing(tuple(sorted(files)), tuple(sorted(empty)))


def _children(
    folder: str, found: Iterable[tuple[str, bool, int | None]]
) -> Iterator[tuple[str, bool, int | None]]:
    for name, is_folder, size in found:
        # "." would be the folder itself, again and again.
        if "/" in name or name in ("", ".", "..") or folder.count("/") > _DEEPEST:
            raise ArtifactError(f"the store lists {name!r} in the folder {folder or '/'!r}")
        yield confine(f"{folder}/{name}" if folder else name), is_folder, size


def create(path: str) -> Any:
    """Open a file that does not exist yet, for its owner alone; owner and mode are set when it is
    complete.
    """
    return os.fdopen(
        os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600),
        "wb",
        buffering=0,
    )
