# SPDX-License-Identifier: Apache-2.0
"""The folder of environments: who builds in it, and that one run at a time does."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pwd
import secrets
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass

from .. import disk, progress, rights
from ..domain.fields import Fields, WrongShape, read_json
from ..effects import effect
from ..errors import LockTimeout, RepositoryError
from ..no_follow import reach
from ..process import holder
from .bounded import STEP, Run, User, run

_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOBODY = 65534


@dataclass(frozen=True)
class Work:
    """A temporary folder. ``top`` is the builder's own; who runs uv writes below ``inner``."""

    top: str

    @property
    def inner(self) -> str:
        return os.path.join(self.top, "work")

    def __truediv__(self, name: str) -> str:
        return os.path.join(self.inner, name)


class Place:
    """A folder of environments.

    Attributes:
        user: as whom programs run, where this process is root; None: as this one.
        seals: what such programs have made becomes root's.
        run: how they are run, where their Python is.
    """

    def __init__(self, folder: str, run: Run = run) -> None:
        self.folder = os.path.abspath(folder)
        self.run = run
        self.user: User | None = None
        self._owner: User | None = None
        self.seals = False
        if rights.is_root():
            self._owner = _owner_of(self.folder)
            self.user = self._owner or _nobody()
            self.seals = self._owner is None

    @contextlib.contextmanager
    def rights(self) -> Iterator[None]:
        """Root acts as the owner of the folder meanwhile, where that is somebody else."""
        if self._owner is None:
            yield
            return
        with rights.acting_as(self._owner.user, self._owner.group, self._owner.groups):
            yield

    def path(self, *parts: str) -> str:
        return os.path.join(self.folder, *parts)

    def ensure(self) -> None:
        """Make the folder. Raises RepositoryError where root must not build there."""
        try:
            disk.make_folder(self.folder)
            for name in ("locks", "building"):
                disk.make_folder(self.path(name))
        except OSError as error:
            raise RepositoryError(
                f"the folder of environments {self.folder} cannot be written ({error.strerror}):"
                " name another one in folder of the option environments",
                step=STEP,
                left="nothing was changed",
            ) from error
        if self.seals:
            self._check_way()

    def _check_way(self) -> None:
        """Whoever may rename a folder on the way puts another one in its place."""
        here = self.folder
        trusted = rights.roots()
        while True:
            found = os.stat(here)
            if rights.others_may_change(here, found, trusted):
                raise RepositoryError(
                    f"root makes no environment in {self.folder}, because others may change {here}"
                    f" (mode {stat.S_IMODE(found.st_mode):04o}, user {found.st_uid}): name a folder"
                    " of root's, or of the server's user, in folder of the option environments",
                    step=STEP,
                    left="nothing was changed",
                )
            if here == "/":
                return
            here = os.path.dirname(here)

    # -- who uses it -------------------------------------------------------------------------------

    def _note(self, state: str) -> str:
        return self.path("users", f"{hashlib.sha256(state.encode()).hexdigest()[:32]}.json")

    def is_used_by(self, state: str) -> bool:
        return os.path.lexists(self._note(state))

    def admit(self, state: str) -> None:
        """Note that a repository with this state has environments here. The caller holds the lock,
        so that nobody removes one meanwhile.
        """
        if not self.is_used_by(state):
            disk.make_folder(self.path("users"))
            disk.replace_file(self._note(state), json.dumps({"state": state}).encode())

    def is_shared(self, state: str) -> bool:
        """Whether another repository has environments here, too, and is still there."""
        for name in disk.entries(self.path("users")):
            try:
                found = Fields(read_json(disk.read_small(self.path("users", name)), 10))
                other = found.text("state")
            except (OSError, WrongShape):
                return True  # nobody knows whose
            if other != state and os.path.lexists(other):
                return True
        return False

    # -- work --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def work(self) -> Iterator[Work]:
        """A temporary folder, which is gone afterwards. The caller holds the lock."""
        work = Work(self.path("building", secrets.token_hex(8)))
        try:
            disk.make_folder(work.top)
            disk.make_folder(work.inner)
            for name in ("home", "tmp"):
                disk.make_folder(work / name)
                self.give_away(work / name)
            self.give_away(work.inner)
            yield work
        finally:
            disk.remove_tree(work.top)

    def give_away(self, path: str) -> None:
        """A folder becomes that of the user as whom programs run."""
        if self.seals and self.user:
            with effect("permissions", path), reach(path) as (above, name):
                os.chown(name, self.user.user, self.user.group, dir_fd=above, follow_symlinks=False)

    def tidy(self) -> None:
        """Remove what killed runs left. The caller holds the lock."""
        for name in disk.entries(self.path("building")):
            disk.remove_tree(self.path("building", name))

    def tidy_where_nobody_builds(self) -> None:
        """As ``tidy``, for who has nothing to build and waits for nobody."""
        if disk.entries(self.path("building")):
            with contextlib.suppress(LockTimeout), self.lock(0):
                self.tidy()

    @contextlib.contextmanager
    def cache(self, work: Work, *, own: bool) -> Iterator[str]:
        """uv's cache. Where others run uv, they reach it only in this block: what runs later as the
        same user could put other bytes into it.

        Args:
            own: code of packages runs in this block, so that it gets a cache which nobody uses
                after it.
        """
        if own and self.seals:
            disk.make_folder(work / "cache")
            self.give_away(work / "cache")
            yield work / "cache"
            return
        outer, inner = self.path("cache"), self.path("cache", "uv")
        disk.make_folder(outer, 0o700)
        if not disk.is_folder(inner):
            disk.make_folder(inner)
            self.give_away(inner)
        if not self.seals:
            yield inner
            return
        try:
            with effect("permissions", outer):
                os.chmod(outer, 0o711)
            yield inner
        finally:
            with effect("permissions", outer):
                os.chmod(outer, 0o700)

    # -- one at a time -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self, seconds: float) -> Iterator[None]:
        """Hold the lock of the folder; the kernel frees it when its holder dies.

        Raises:
            LockTimeout: another run held it for so long; the message names it.
        """
        path = self.path(".lock")
        with reach(path) as (above, name):
            descriptor = os.open(name, _LOCK, disk.FILE_MODE, dir_fd=above)
        try:
            self._take(descriptor, path, seconds)
            with effect("lock", path), contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, holder().encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def _take(self, descriptor: int, path: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        with contextlib.ExitStack() as told:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    other = os.pread(descriptor, 1000, 0).decode(errors="replace") or "another run"
                    if time.monotonic() >= until:
                        raise LockTimeout(
                            f"{other} has been building environments in {self.folder} for the"
                            f" {seconds:g} s that this run waited",
                            step=STEP,
                            left="nothing was changed",
                            holder=other,
                        ) from None
                    told.enter_context(progress.step(f"wait for {other}"))
                    self._wait(descriptor, until)

    def _wait(self, descriptor: int, until: float) -> None:
        while time.monotonic() < until:
            time.sleep(0.05)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            return


def _owner_of(folder: str) -> User | None:
    """Whose the folder is, or what is there of its way; None where that is root."""
    here = folder
    while not disk.is_folder(here) and here != "/":
        here = os.path.dirname(here)
    found = os.stat(here)
    if found.st_uid in rights.roots():
        return None
    try:
        entry = pwd.getpwuid(found.st_uid)
        groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
        return User(found.st_uid, entry.pw_gid, groups)
    except KeyError:
        return User(found.st_uid, found.st_gid)


def _nobody() -> User:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return User(_NOBODY, _NOBODY)
    return User(entry.pw_uid, entry.pw_gid)
