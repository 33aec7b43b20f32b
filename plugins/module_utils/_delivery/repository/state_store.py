# SPDX-License-Identifier: Apache-2.0
"""The state folder of a repository: where it is, records, journals, locks, staging, retained
copies. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .. import disk, rights
from ..domain.journal import (
    FolderMove,
    FolderSwap,
    Journal,
    JournalFile,
    PendingLoad,
    Removal,
    Trial,
    read_journal,
)
from ..domain.marker import MARKER, Marker
from ..domain.record import Record, read_record
from ..effects import effect
from ..errors import InvalidOption, JournalRefused, LockTimeout, RecordRefused, RepositoryError
from ..no_follow import open_to_read, reach
from ..process import holder
from . import ownership

if TYPE_CHECKING:
    from .scratch import Scratch

INSIDE = ".mlops-triton"
_FOLDERS = ("records", "journals", "locks", "staging", "retained")


_SECONDS = 60.0
"""For which another first run is waited for."""
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_Method = TypeVar("_Method", bound=Callable[..., Any])


def as_owner(method: _Method) -> _Method:
    """A method of what has ``rights``: root acts as the owner of state and repository meanwhile."""

    @functools.wraps(method)
    def acting(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self.rights():
            return method(self, *args, **kwargs)

    return cast(_Method, acting)


def whom_root_acts_as(repository: str, state: str) -> ownership.Owner | None:
    """As ``ownership.find_owner``; None for anybody but root."""
    if not rights.is_root():
        return None
    repository = os.path.abspath(repository)
    marker = os.path.join(repository, MARKER)
    return ownership.find_owner(repository, marker, os.path.abspath(state), _FOLDERS)


class StateStore:
    """State of one local repository.

    Attributes:
        owner: whom root acts as here; None: everybody acts as himself.
        warnings: sentences on what was mended, for the next result.

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
        if rights.is_root():
            ownership.check_way(self.repository)
        marked = self._marked()
        if marked and state_dir and os.path.realpath(marked) != os.path.realpath(state_dir):
            raise InvalidOption(
                f"the repository {self.repository} keeps its state in {marked} and state_dir says"
                f" {state_dir}",
                step="find the state folder",
                left="nothing was changed",
            )
        if marked and not disk.is_folder(marked):
            raise RepositoryError(
                f"the repository {self.repository} keeps its state in {marked}, which cannot be"
                " reached from here: mount it, or, where the state does not lie there, look at the"
                f" marker that says so, then run rm {self.marker}",
                step="find the state folder",
                left="nothing was changed",
            )
        self.path = os.path.abspath(marked or state_dir or self._default())
        self.warnings: list[str] = []
        self.owner = whom_root_acts_as(self.repository, self.path)
        # What root makes of sources is made where nobody can exchange it meanwhile.
        self.scratch: Scratch | None = None
        if self.owner:
            from .scratch import Scratch

            self.scratch = Scratch(self.path)

    @contextlib.contextmanager
    def rights(self) -> Iterator[None]:
        """Root acts as the owner of all this meanwhile, where that is somebody else."""
        with rights.acting_as(*self.owner) if self.owner else contextlib.nullcontext():
            yield

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
            if disk.is_folder(os.path.join(folder, "records")):
                return folder
        parent = os.path.dirname(self.repository)
        if disk.is_mount_point(self.repository) or not os.access(parent, os.W_OK):
            return inside
        return beside

    @as_owner
    def ensure(self) -> None:
        """Make the folders and the marker.

        Raises:
            RepositoryError: not writable, or on another file system than the repository.
        """
        try:
            for folder in _FOLDERS:
                disk.make_folder(os.path.join(self.path, folder))
            self._mend_modes()
            if os.stat(self.path).st_dev != os.stat(self.repository).st_dev:
                raise RepositoryError(
                    f"the state folder {self.path} and the repository {self.repository} are on"
                    " different file systems, so that no model can be swapped in at once",
                    step="make the state folder",
                    left="nothing was changed",
                )
            if disk.stat_or_none(self.marker) is None:
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

    def _mend_modes(self) -> None:
        """The server's user reads records, and nobody else writes them, whatever the umask was."""
        for path in (self.path, *(os.path.join(self.path, folder) for folder in _FOLDERS)):
            with reach(path, last=True) as (above, name):
                folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=above)
            try:
                found = os.fstat(folder)
                mode = stat.S_IMODE(found.st_mode)
                wanted = (mode | disk.FOLDER_MODE) & ~0o002
                if mode != wanted and found.st_uid == (
                    self.owner.user if self.owner else os.geteuid()
                ):
                    os.fchmod(folder, wanted)
                    self.warnings.append(
                        f"the folder {path} had the mode {mode:04o}, and has {wanted:04o} now"
                    )
            finally:
                os.close(folder)

    # -- records and journals ----------------------------------------------------------------------

    def _file(self, folder: str, name: str) -> str:
        return os.path.join(self.path, folder, f"{name}.json")

    def record_path(self, name: str) -> str:
        """The file that changes with the deployment."""
        return self._file("records", name)

    @as_owner
    def stamp(self, name: str) -> object:
        """Changes with the deployment; None without one."""
        try:
            found = os.stat(self.record_path(name), follow_symlinks=not rights.is_root())
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino

    @as_owner
    def record(self, name: str) -> Record | None:
        path = self._file("records", name)
        body = read_own(path, name, refused=RecordRefused)
        return read_record(body, name, path) if body is not None else None

    @as_owner
    def recorded_names(self) -> list[str]:
        """The models that have a record, whether it can be understood or not."""
        return self._names("records")

    @as_owner
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
        entries = disk.entries(os.path.join(self.path, folder))
        return sorted(entry[: -len(".json")] for entry in entries if entry.endswith(".json"))

    @as_owner
    def write_record(self, record: Record) -> None:
        disk.write_json(self._file("records", record.name), record.to_dict())

    @as_owner
    def remove_record(self, name: str) -> None:
        disk.remove_file(self._file("records", name))

    @as_owner
    def journal(self, name: str) -> FolderSwap | Removal | PendingLoad | Trial | None:
        """What a run left noted of a change. Raises RepositoryError where it is not understood."""
        path = self._file("journals", name)
        body = read_own(path, name, refused=JournalRefused)
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

    @as_owner
    def write_journal(self, name: str, journal: Journal) -> None:
        disk.write_json(self._file("journals", name), journal.to_dict())

    @as_owner
    def remove_journal(self, name: str) -> None:
        disk.remove_file(self._file("journals", name))

    # -- folders of one model ----------------------------------------------------------------------

    def staging(self, name: str, deploy_id: str | None = None) -> str:
        return os.path.join(self.path, "staging", name, *([deploy_id] if deploy_id else []))

    def retained(self, name: str, deploy_id: str | None = None) -> str:
        return os.path.join(self.path, "retained", name, *([deploy_id] if deploy_id else []))

    @as_owner
    def retained_records(self, name: str) -> list[Record]:
        """Previous deployments, the newest first."""
        base = self.retained(name)
        found = []
        for entry in disk.entries(base):
            copy = os.path.join(base, entry)
            path = os.path.join(copy, "record.json")
            if (body := read_own(path, name, refused=RecordRefused)) is not None:
                found.append(read_record(body, name, path, copy))
        return sorted(found, key=lambda record: record.deployed_at, reverse=True)

    @as_owner
    def retained_contents(self, name: str) -> dict[str, set[str]]:
        """What each retained copy holds, by its key."""
        base = self.retained(name)
        found = {key: set(disk.entries(os.path.join(base, key))) for key in disk.entries(base)}
        key, part = os.path.split(os.path.relpath(self.tried(name) or base, base))
        if key in found:
            found[key].add(part)
        return found

    @as_owner
    def tried(self, name: str) -> str | None:
        """The place in a retained copy to which the files of an interrupted trial go back."""
        journal = self.journal(name)
        home = journal.home if isinstance(journal, Trial) else ""
        return os.path.join(self.path, home) if home.startswith("retained/") else None

    @as_owner
    def remove_retained(self, name: str, keys: Iterable[str]) -> None:
        """Remove these retained copies, and the folder of a model that has none left."""
        base = self.retained(name)
        for key in keys:
            disk.remove_tree(os.path.join(base, key))
        if not disk.entries(base):
            disk.remove_tree(base)

    def sides(self, move: FolderMove) -> tuple[str, str]:
        """Where the two sides of a move are.

        Raises:
            RepositoryError: a link on the way leads out of repository and state.
        """
        sides = os.path.join(self.repository, move.live), os.path.join(self.path, move.staged)
        tops = [os.path.realpath(top) for top in (self.repository, self.path)]
        for side in sides:
            above = os.path.realpath(os.path.dirname(side))
            if not any(above == top or above.startswith(f"{top}/") for top in tops):
                raise RepositoryError(
                    f"{os.path.dirname(side)} leads to {above}, out of the repository: remove that"
                    " symbolic link, or put the folder itself in its place",
                    step="move the files",
                )
        return sides

    def clear_staging(self, name: str) -> None:
        """Remove what is made on the way of a deployment. The caller holds the lock."""
        if self.scratch:
            with rights.being_itself():
                disk.remove_tree(self.scratch.folder(name))
                self.scratch.tidy()
        with self.rights():
            disk.remove_tree(self.staging(name))
            for path in self._half_written(name):
                disk.remove_file(path)

    def _half_written(self, name: str) -> list[str]:
        return [self._file(folder, name) + disk.BESIDE for folder in ("records", "journals")]

    def has_leftovers(self, name: str) -> bool:
        """True where a run that was killed (or one that is at work) has files of its own here,
        journal apart.
        """
        if self.scratch and self.scratch.has(name):
            return True
        with self.rights():
            return any(
                disk.stat_or_none(path) is not None
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
        with self.rights():
            descriptor = self._acquire(path, name, time.monotonic() + timeout, timeout)
        try:
            yield
        finally:
            # Unlinked while held: whoever waited on this file sees that it is gone and opens a new
            # one.
            with contextlib.suppress(OSError), self.rights(), reach(path) as (above, file):
                os.unlink(file, dir_fd=above)
            os.close(descriptor)

    def _lock_file(self, name: str) -> str:
        return os.path.join(self.path, "locks", f"{name}.lock")

    def _acquire(self, path: str, name: str, until: float, timeout: float) -> int:
        while True:
            try:
                with reach(path) as (above, file):
                    descriptor = os.open(file, _LOCK, disk.FILE_MODE, dir_fd=above)
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
                        os.fchmod(descriptor, disk.FILE_MODE)
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
    """Anybody who can read the folder can hold this, and is not waited for without end."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    until = time.monotonic() + _SECONDS
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise LockTimeout(
                        f"another run has held {folder} for the {_SECONDS:g} s that this run"
                        " waited",
                        step="make the state folder",
                        left="nothing was changed",
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _same_file(descriptor: int, path: str) -> bool:
    try:
        there = disk.stat_or_none(path)
    except OSError:
        return False
    if there is None:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def read_own(
    path: str, name: str | None = None, refused: type[RepositoryError] = RepositoryError
) -> bytes | None:
    """The bytes of a record or a journal, as ``_read``.

    Raises:
        RepositoryError: it cannot be read; of class ``refused``: root must not believe it.
    """
    return _read(path, name, refused=refused)


def _read(
    path: str,
    name: str | None = None,
    step: str = "read the state",
    refused: type[RepositoryError] | None = None,
) -> bytes | None:
    """A small file's bytes; None where there is none."""
    try:
        with open_to_read(path) as stream:
            if refused and (why := ownership.why_not_own(path, os.fstat(stream.fileno()))):
                raise refused(why, model=name, step=step, left="nothing was changed")
            return disk.read_bounded(stream, path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RepositoryError(
            f"{path} cannot be read: {error.strerror or error}",
            model=name,
            step=step,
            left="nothing was changed",
        ) from error
