# SPDX-License-Identifier: Apache-2.0
"""Several threads do jobs, each job when those before it are done."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from graphlib import TopologicalSorter

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
    scheduler = _Scheduler(job, after, leave)
    threads = [
        threading.Thread(target=scheduler.work, name=f"delivery {number}")
        for number in range(min(workers, len(after)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if scheduler.broken:
        raise scheduler.broken


class _Scheduler:
    def __init__(
        self, job: Job, after: Mapping[str, frozenset[str]], leave: Callable[[], None]
    ) -> None:
        self._job = job
        self._leave = leave
        self._sorter = TopologicalSorter(after)
        self._sorter.prepare()
        self._rank = {name: number for number, name in enumerate(after)}
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
                self._ready.extend(sorted(self._sorter.get_ready(), key=self._rank.__getitem__))
                if self.broken or not (self._ready or self._sorter.is_active()):
                    return None
                if self._ready:
                    return self._ready.popleft()
                self._changed.wait()
