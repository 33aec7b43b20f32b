# SPDX-License-Identifier: Apache-2.0
"""Environments of one folder: what there is, what would have to be made, and making it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass

from .. import disk
from ..deadline import Deadline
from ..domain.requirements import Requirements
from ..errors import DeliveryError, RepositoryError, as_delivery_error
from ..progress import step
from . import building
from .bounded import STEP, run
from .containers import Container, PythonsOfImage
from .options import EnvironmentOptions
from .place import Place, Work
from .pythons import Python, Pythons
from .resolving import Lock, Locks, environment_digest, resolve
from .stamp import Environment, read_stamp
from .uv_program import Uv

__all__ = ["Environment", "EnvironmentOptions", "Environments", "PlannedEnvironment"]
_TOTAL = 1800.0
"""Seconds for all that one build does, whatever the network steps in it take."""
_DIGEST = re.compile(r"[0-9a-f]{32}")
_LEFT = "no environment was changed"


@dataclass(frozen=True)
class PlannedEnvironment:
    """What is known of an environment without asking anybody.

    Attributes:
        digest: None where the requirements were never resolved here, or no Python is known.
        packages: how many there are; None as for ``digest``.
        is_ready: it is there.
        python: the path of its interpreter, where it is or will be; None as for ``digest``.
        sentence: "environment: 12 requirements; 41 packages".
    """

    digest: str | None
    packages: int | None
    is_ready: bool
    python: str | None
    sentence: str


class Environments:
    """Environments of a folder.

    Args:
        folder: in which they lie, where the options name none.
        timeout: seconds that one step of the network may take.
        state: of the repository that needs them; others may have theirs in the same folder.
    """

    def __init__(
        self, folder: str, options: EnvironmentOptions, timeout: float, state: str = ""
    ) -> None:
        self._state = state
        self._options = options
        self._timeout = timeout
        self._container = _container_of(options, options.folder or folder)
        self._place = Place(
            options.folder or folder, self._container.run if self._container else run
        )
        self._locks = Locks(self._place, options)
        managed = self._place.path("pythons")
        self._pythons = (
            PythonsOfImage(options, managed, self._place.user, self._container)
            if self._container
            else Pythons(options, managed, self._place.user)
        )
        self._alive: set[str] = set()

    @property
    def folder(self) -> str:
        return self._place.folder

    def look(self, wanted: Requirements) -> PlannedEnvironment:
        """What ``build`` would use or make. Writes nothing and asks nobody."""
        try:
            python = self._pythons.find(wanted.minor)
        except DeliveryError:  # there is no container yet: who builds says so
            python = None
        with self._place.rights():
            lock = self._known(wanted, python)
            if python is None or lock is None:
                return PlannedEnvironment(
                    None, None, False, None, f"environment: {wanted.in_words}"
                )
            digest = environment_digest(lock, python)
            count = len(lock.packages)
            return PlannedEnvironment(
                digest,
                count,
                self._ready(digest) is not None,
                os.path.join(self._place.path(digest), "bin/python"),
                f"environment: {wanted.in_words}; {count} package{'s' * (count != 1)}",
            )

    def key(self, wanted: Requirements) -> str | None:
        """By which other hosts find the lock; None where no Python is known."""
        try:
            python = self._pythons.find(wanted.minor)
        except DeliveryError:
            return None
        return self._locks.key(wanted, python) if python else None

    def _known(self, wanted: Requirements, python: Python | None) -> Lock | None:
        """What another host has resolved comes before what was kept here."""
        if python is None:
            return None
        return self._locks.of_another_host(wanted, python) or self._locks.kept(wanted, python)

    def build(self, wanted: Requirements, lock: str | None = None) -> Environment:
        """The environment for these requirements, made where it is not there.

        Args:
            lock: what another host has resolved, so that this one installs the same.

        Raises:
            DeliveryError: one sentence; no environment was changed.
        """
        try:
            with self._place.rights():
                return self._build(wanted, Lock.read(lock) if lock is not None else None)
        except DeliveryError as error:
            raise error.about(step=STEP, left=_LEFT) from None
        except OSError as error:
            why = as_delivery_error(error).message
            raise RepositoryError(why, step=STEP, left=_LEFT) from error

    def _build(self, wanted: Requirements, given: Lock | None) -> Environment:
        python = self._pythons.find(wanted.minor)
        kept = self._known(wanted, python)
        # Where nothing has to be changed, nobody is waited for.
        if python and kept and given in (None, kept) and self._place.is_used_by(self._state):
            ready = self._ready(environment_digest(kept, python))
            if ready is not None:
                self._place.tidy_where_nobody_builds()
                return ready
        deadline = Deadline(_TOTAL)
        self._place.ensure()
        with self._place.lock(deadline.remaining() or _TOTAL), step("build the environment"):
            self._place.tidy()
            self._place.admit(self._state)
            if self._container:
                self._container.remove_leftovers()
            with self._place.work() as work:
                return self._make(wanted, given, work, deadline)

    def _make(
        self, wanted: Requirements, given: Lock | None, work: Work, deadline: Deadline
    ) -> Environment:
        uv = Uv(
            self._options, self._timeout, deadline, self._place.user, work.inner, self._place.run
        )
        python = self._pythons.find(wanted.minor)
        if python is None and wanted.minor and self._options.python_mirror:
            building.install_python(wanted.minor, self._options, uv, self._place, work, deadline)
            python = self._pythons.find(wanted.minor)
        if python is None:
            raise self._pythons.refuse(wanted.minor)
        lock = given or self._known(wanted, python)
        if lock is None:
            with step("resolve the requirements"):
                lock = resolve(wanted, python, uv, self._place, work)
        self._locks.keep(wanted, python, lock)
        digest = environment_digest(lock, python)
        return self._ready(digest) or building.make(lock, python, uv, self._place, work)

    def _ready(self, digest: str) -> Environment | None:
        """None where there is none, or one that somebody damaged, or whose Python is another one
        now.
        """
        found = read_stamp(self._place.path(digest))
        if found is None or found.digest != digest:
            return None
        if os.path.realpath(found.python) != os.path.realpath(found.base):
            return None
        if digest not in self._alive:
            now = self._pythons.ask(found.python)
            if not isinstance(now, Python) or (now.minor, now.platform) != (
                ".".join(found.version.split(".")[:2]),
                found.platform,
            ):
                return None
            self._alive.add(digest)
        return found

    def has_python(self, digest: str) -> bool:
        """Whether the server finds the Python that one was made with. True where that cannot be
        known, as no engine answers.
        """
        python = self._place.path(digest, "bin/python")
        if digest in self._alive:
            return True
        if self._container is None:
            return os.path.exists(python)
        try:
            return isinstance(self._pythons.ask(python), Python)
        except DeliveryError:
            return True

    def present(self) -> list[Environment]:
        """Those that have a stamp, whether their Python still runs or not."""
        with self._place.rights():
            found = [
                read_stamp(self._place.path(name))
                for name in disk.entries(self._place.folder)
                if _DIGEST.fullmatch(name)
            ]
        return [one for one in found if one is not None]

    def remove_unused(self, used: Collection[str]) -> list[str]:
        """Remove the environments whose digest nobody uses, and what killed runs left. None where
        another repository has environments in the folder: it may use any of them.

        Returns:
            The digests of those that are gone.
        """
        with self._place.rights():
            there = [name for name in disk.entries(self._place.folder) if _DIGEST.fullmatch(name)]
            left = disk.entries(self._place.path("building"))
            gone = [name for name in there if name not in used]
            if not gone and not left:
                return []
            with self._place.lock(self._timeout):
                self._place.tidy()
                if self._place.is_shared(self._state):
                    return []
                for name in gone:
                    self._remove(name)
        return gone

    def _remove(self, name: str) -> None:
        """The stamp first: what a killed run leaves of it is no environment."""
        disk.remove_file(self._place.path(name, "environment.json"))
        disk.remove_tree(self._place.path(name))


def _container_of(options: EnvironmentOptions, folder: str) -> Container | None:
    if options.container is None:
        return None
    return Container(
        options.container, options.container_engine, os.path.abspath(folder), options.local_paths
    )
