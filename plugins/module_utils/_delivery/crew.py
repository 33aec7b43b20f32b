# SPDX-License-Identifier: Apache-2.0
"""Several threads do jobs, each job when those before it are done; and what they have to share
sparingly.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from graphlib import TopologicalSorter
from typing import Protocol

from .errors import RepositoryError

Job = Callable[[str], None]


def do_all(
    job: Job,
    after: Mapping[str, frozenset[str]],
    workers: int,
    leave: Callable[[], None] = lambda: None,
) -> None:
    """Call ``job(name)`` for each name of ``after`` when all that it comes after are done; what is
    ready begins in the order given.

    A single job, or a single worker, needs no thread; of others, each calls ``leave`` at its end.
    An exception ends it all as soon as the jobs that were begun are over.
    """
    if workers < 2 or len(after) < 2:
        for name in TopologicalSorter(after).static_order():
            job(name)
        return
    crew = _Crew(job, after, leave)
    threads = [
        threading.Thread(target=crew.work, name=f"delivery {number}")
        for number in range(min(workers, len(after)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if crew.broken:
        raise crew.broken


class _Crew:
    def __init__(
        self, job: Job, after: Mapping[str, frozenset[str]], leave: Callable[[], None]
    ) -> None:
        self._job = job
        self._leave = leave
        self._sorter = TopologicalSorter(after)
        self._sorter.prepare()
        self._place = {name: number for number, name in enumerate(after)}
        self._ready: deque[str] = deque()
        self._changed = threading.Condition()
        self.broken: BaseException | None = None

    def work(self) -> None:
        try:
            while (name := self._next()) is not None:
                self._job(name)
                with self._changed:
                    self._sorter.done(name)
                    self._changed.notify_all()
        except BaseException as error:  # raised again in the caller's thread
            with self._changed:
                self.broken = self.broken or error
                self._changed.notify_all()
        finally:
            self._leave()

    def _next(self) -> str | None:
        with self._changed:
            while True:
                self._ready.extend(sorted(self._sorter.get_ready(), key=self._place.__getitem__))
                if self.broken or not (self._ready or self._sorter.is_active()):
                    return None
                if self._ready:
                    return self._ready.popleft()
                self._changed.wait()


class Roomy(Protocol):
    """A repository that knows how much room there is."""

    def require_space(self, size: int) -> None:
        """Raises RepositoryError where ``size`` bytes do not fit."""


class Limits:
    """How many of a run's models are brought, and loaded, at the same time; and the room that those
    in progress will still take.

    Args:
        downloads, loads: at least 1.
    """

    def __init__(self, downloads: int = 1, loads: int = 1) -> None:
        self.workers = downloads + loads
        self.downloads = threading.BoundedSemaphore(downloads)
        self.loads = threading.BoundedSemaphore(loads)
        self._changed = threading.Condition()
        self._promised: dict[str, int] = {}

    @contextlib.contextmanager
    def download(self, repository: Roomy, size: int, folder: str) -> Iterator[None]:
        """Wait for one's turn and for room for ``size`` bytes in ``folder``, which others of this
        run may free.

        Raises:
            RepositoryError: there is not enough, and nobody is at work who could free some.
        """
        with self.downloads:
            self._reserve(repository, size, folder)
            try:
                yield
            finally:
                with self._changed:
                    del self._promised[folder]
                    self._changed.notify_all()

    def _reserve(self, repository: Roomy, size: int, folder: str) -> None:
        with self._changed:
            while True:
                to_come = sum(
                    max(0, promised - bytes_below(other))
                    for other, promised in self._promised.items()
                )
                try:
                    repository.require_space(size + to_come)
                    break
                except RepositoryError:
                    if not self._promised:
                        raise
                self._changed.wait(1.0)
            self._promised[folder] = size


def bytes_below(folder: str) -> int:
    """The bytes of all files under a folder that others may be changing."""
    total = 0
    for current, _folders, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.path.getsize(os.path.join(current, name))
    return total
