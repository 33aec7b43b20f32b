# SPDX-License-Identifier: Apache-2.0
"""The state folder of a repository: where it is, records, journals, locks, staging, retained
copies. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable, Iterator

from .. import disk
from ..domain.journal import (
    FolderMove,
    FolderSwap,
    Journal,
    JournalFile,
    PendingLoad,
    Removal,
    read_journal,
)
from ..domain.marker import MARKER, Marker
from ..domain.record import Record, read_record
from ..effects import effect
from ..errors import InvalidOption, LockTimeout, RecordRefused, RepositoryError
from ..process import holder

INSIDE = ".mlops-triton"
_FOLDERS = ("records", "journals", "locks", "staging", "retained")


class StateStore:
    """State of one local repository.

    Args:
        repository: the model repository folder, which exists.
        state_dir: where the user wants the state; None: where the marker says, else the default.

    Raises:
        InvalidOption: ``state_dir`` differs from what the marker says.
        RepositoryError: the marker cannot be read, or its folder cannot be reached from here.
    """

    def __init__(self, repository: str, state_dir: str | None = None) -> None:
        self.repository = os.path.abspath(repository)
        self.marker = os.path.join(self.repository, MARKER)
        marked = self._marked()
        if marked and state_dir and os.path.realpath(marked) != os.path.realpath(state_dir):
            raise InvalidOption(
                f"the repository {self.repository} keeps its state in {marked} and state_dir says"
                f" {state_dir}",
                step="find the state folder",
                left="nothing was changed",
            )
        if marked and not os.path.isdir(marked):
            raise RepositoryError(
                f"the repository {self.repository} keeps its state in {marked}, which cannot be"
                " reached from here",
                step="find the state folder",
                left="nothing was changed",
            )
        self.path = os.path.abspath(marked or state_dir or self._default())

    def _marked(self) -> str | None:
        body = _read(self.marker, step="find the state folder")
        if body is None:
            return None
        marker = Marker.from_json(body, self.marker)
        return os.path.normpath(os.path.join(self.repository, marker.state_dir))

    def _default(self) -> str:
        """Where state lies already, whoever asks; else where it can lie."""
        beside, inside = f"{self.repository}{INSIDE}", os.path.join(self.repository, INSIDE)
        for folder in (beside, inside):
            if os.path.isdir(os.path.join(folder, "records")):
                return folder
        parent = os.path.dirname(self.repository)
        if disk.is_mount_point(self.repository) or not os.access(parent, os.W_OK):
            return inside
        return beside

    def ensure(self) -> None:
        """Make the folders and the marker.

        Raises:
            RepositoryError: not writable, or on another file system than the repository.
        """
        try:
            for folder in _FOLDERS:
                disk.make_folder(os.path.join(self.path, folder))
            if os.stat(self.path).st_dev != os.stat(self.repository).st_dev:
                raise RepositoryError(
                    f"the state folder {self.path} and the repository {self.repository} are on"
                    " different file systems, so that no model can be swapped in at once",
                    step="make the state folder",
                    left="nothing was changed",
                )
            if not os.path.exists(self.marker):
                with _alone_in(
                    self.path
                ):  # models have locks of their own: two first runs can be here at once
                    # Made in the state folder: a file that vanishes from the repository is an error
                    # to Triton's index.
                    disk.write_json(
                        self.marker,
                        Marker(os.path.relpath(self.path, self.repository)).to_dict(),
                        folder=self.path,
                    )
        except OSError as error:
            raise RepositoryError(
                f"the state folder {self.path} cannot be written ({error.strerror})",
                step="make the state folder",
                left="nothing was changed",
            ) from error

    # -- records and journals ----------------------------------------------------------------------

    def _file(self, folder: str, name: str) -> str:
        return os.path.join(self.path, folder, f"{name}.json")

    def record_path(self, name: str) -> str:
        """The file that changes with the deployment."""
        return self._file("records", name)

    def stamp(self, name: str) -> object:
        """Changes with the deployment; None without one."""
        try:
            found = os.stat(self.record_path(name))
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino

    def record(self, name: str) -> Record | None:
        path = self._file("records", name)
        body = _read(path, name)
        return read_record(body, name, path) if body is not None else None

    def recorded_names(self) -> list[str]:
        """The models that have a record, whether it can be understood or not."""
        return self._names("records")

    def readable_records(self) -> dict[str, Record]:
        """The records that can be understood, by model name: a damaged one is told of where its own
        model is asked for.
        """
        found = {}
        for name in self._names("records"):
            with contextlib.suppress(RecordRefused):
                if record := self.record(name):
                    found[name] = record
        return found

    def _names(self, folder: str) -> list[str]:
        try:
            entries = os.listdir(os.path.join(self.path, folder))
        except FileNotFoundError:
            return []
        return sorted(entry[: -len(".json")] for entry in entries if entry.endswith(".json"))

    def write_record(self, record: Record) -> None:
        disk.write_json(self._file("records", record.name), record.to_dict())

    def remove_record(self, name: str) -> None:
        disk.remove_file(self._file("records", name))

    def journal(self, name: str) -> FolderSwap | Removal | PendingLoad | None:
        """What a run left noted of a change. Raises RepositoryError where it is not understood."""
        path = self._file("journals", name)
        body = _read(path, name)
        if body is None:
            return None
        file = JournalFile(
            name,
            path,
            live=name,
            aside=(f"staging/{name}", f"retained/{name}"),
            copies=(self.staging(name), self.retained(name)),
        )
        return read_journal(body, file, FolderSwap)

    def write_journal(self, name: str, journal: Journal) -> None:
        disk.write_json(self._file("journals", name), journal.to_dict())

    def remove_journal(self, name: str) -> None:
        disk.remove_file(self._file("journals", name))

    # -- folders of one model ----------------------------------------------------------------------

    def staging(self, name: str, deploy_id: str | None = None) -> str:
        return os.path.join(self.path, "staging", name, *([deploy_id] if deploy_id else []))

    def retained(self, name: str, deploy_id: str | None = None) -> str:
        return os.path.join(self.path, "retained", name, *([deploy_id] if deploy_id else []))

    def retained_records(self, name: str) -> list[Record]:
        """Previous deployments, the newest first."""
        base = self.retained(name)
        found = []
        for entry in sorted(os.listdir(base)) if os.path.isdir(base) else []:
            copy = os.path.join(base, entry)
            path = os.path.join(copy, "record.json")
            if (body := _read(path, name)) is not None:
                found.append(read_record(body, name, path, copy))
        return sorted(found, key=lambda record: record.deployed_at, reverse=True)

    def retained_contents(self, name: str) -> dict[str, set[str]]:
        """What each retained copy holds, by its key."""
        base = self.retained(name)
        return {
            key: set(os.listdir(os.path.join(base, key)))
            for key in (sorted(os.listdir(base)) if os.path.isdir(base) else ())
        }

    def remove_retained(self, name: str, keys: Iterable[str]) -> None:
        """Remove these retained copies, and the folder of a model that has none left."""
        base = self.retained(name)
        for key in keys:
            disk.remove_tree(os.path.join(base, key))
        if os.path.isdir(base) and not os.listdir(base):
            disk.remove_tree(base)

    def sides(self, move: FolderMove) -> tuple[str, str]:
        """Where the two sides of a move are."""
        return os.path.join(self.repository, move.live), os.path.join(self.path, move.staged)

    def clear_staging(self, name: str) -> None:
        """Remove what is made on the way of a deployment. The caller holds the lock."""
        disk.remove_tree(self.staging(name))
        for path in self._half_written(name):
            disk.remove_file(path)

    def _half_written(self, name: str) -> list[str]:
        return [self._file(folder, name) + disk.BESIDE for folder in ("records", "journals")]

    def has_leftovers(self, name: str) -> bool:
        """True where a run that was killed (or one that is at work) has files of its own here,
        journal apart.
        """
        return any(
            os.path.lexists(path)
            for path in (self.staging(name), self._lock_file(name), *self._half_written(name))
        )

    # -- locks -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self, name: str, timeout: float) -> Iterator[None]:
        """Hold the model's lock. It is an flock, so that the kernel frees it when its holder dies.

        Raises:
            LockTimeout: another run held it for ``timeout`` seconds; the message names the holder.
        """
        path = self._lock_file(name)
        descriptor = self._acquire(path, name, time.monotonic() + timeout, timeout)
        try:
            yield
        finally:
            # Unlinked while held: whoever waited on this file sees that it is gone and opens a new
            # one.
            with contextlib.suppress(OSError):
                os.unlink(path)
            os.close(descriptor)

    def _lock_file(self, name: str) -> str:
        return os.path.join(self.path, "locks", f"{name}.lock")

    def _acquire(self, path: str, name: str, until: float, timeout: float) -> int:
        while True:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise RepositoryError(
                    f"the lock {path} cannot be made ({error.strerror})",
                    model=name,
                    step="lock",
                    left="nothing was changed",
                ) from error
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _same_file(descriptor, path):
                    # A full disk has no room for the name, and the lock holds without it.
                    with effect("lock", path), contextlib.suppress(OSError):
                        os.ftruncate(descriptor, 0)
                        os.pwrite(descriptor, holder().encode(), 0)
                    return descriptor
            except BlockingIOError:
                if time.monotonic() >= until:
                    other = os.pread(descriptor, 1000, 0).decode(errors="replace") or "another run"
                    os.close(descriptor)
                    raise LockTimeout(
                        f"{other} has been changing it for the {timeout:g} s that this run waited",
                        model=name,
                        step="lock",
                        left="nothing was changed",
                        holder=other,
                    ) from None
                time.sleep(0.05)
            except BaseException:
                os.close(descriptor)  # or this process would hold the lock as long as it lives
                raise
            os.close(descriptor)


@contextlib.contextmanager
def _alone_in(folder: str) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _same_file(descriptor: int, path: str) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _read(path: str, name: str | None = None, step: str = "read the state") -> bytes | None:
    """A small file's bytes; None where there is none."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RepositoryError(
            f"{path} cannot be read ({error.strerror or error})",
            model=name,
            step=step,
            left="nothing was changed",
        ) from error
