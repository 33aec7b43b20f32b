# SPDX-License-Identifier: Apache-2.0
"""Many transfers at once, each given up on when it stalls.

A time-out per read is never reached by a peer that sends a byte a second, and a total one would
forbid large files:
what counts here is that a transfer goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from ..errors import ArtifactError, DeliveryError

T = TypeVar("T")
SLOWEST = 1024
"""Bytes that a transfer must bring within the stall time."""
SLOTS = threading.BoundedSemaphore(16)
"""Transfers of this process at one time, however many models they are for."""
_SHOWN = 5
_TICK = 0.2
_LOOK = 0.25


class Cancelled(Exception):
    """Nobody waits for this transfer any more."""


class Stream:
    """The progress of one transfer. Its workers add to it, the caller of ``run_transfers`` watches
    it.

    Attributes:
        trouble: what the last try broke off with; "" where there was only one.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.moved = 0
        self.watched = True
        self.trouble = ""
        self._cancelled = False
        self._lock = threading.Lock()
        self._since_mark = 0
        self._mark = time.monotonic()

    def add(self, count: int) -> None:
        """Count bytes that went through.

        Raises:
            Cancelled: the transfer was given up on; nothing more may be written.
        """
        if self._cancelled:
            raise Cancelled(self.path)
        with self._lock:
            self.moved += count
            self._since_mark += count
            if self._since_mark >= SLOWEST:
                self._since_mark, self._mark = 0, time.monotonic()

    def again(self) -> None:
        """What went through counts no more: the transfer begins again."""
        with self._lock:
            self.moved = 0

    def received(self) -> None:
        """The network has done its part: what follows (fsync) may take its time."""
        self.add(0)
        self.watched = False

    def cancel(self) -> None:
        self._cancelled = True

    def stalled(self, seconds: float) -> bool:
        return self.watched and time.monotonic() - self._mark > seconds


class Unreachable(ArtifactError):
    """A failure which every further transfer would share, so that none is started."""


class Broken(Unreachable):
    """A connection that broke, or a server that is not up for the moment: another try may do."""


def pause(stream: Stream, seconds: float, error: DeliveryError) -> None:
    """Wait before another try, at most until the transfer is given up on."""
    stream.trouble = error.message
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        stream.add(0)
        time.sleep(min(left, _LOOK))


class _Transfers(Generic[T]):
    def __init__(self, jobs: Mapping[str, Callable[[Stream], T]], workers: int) -> None:
        self.waiting = list(jobs.items())[::-1]
        self.running: dict[str, Stream] = {}
        self.results: dict[str, T] = {}
        self.failures: dict[str, str] = {}
        self.finished: list[Stream] = []
        self.stop = False
        self.changed = threading.Condition()
        for _number in range(min(workers, len(jobs))):
            # Daemon threads: one that hangs in a read must not keep the process from ending.
            threading.Thread(target=self._work, daemon=True, name="artifact transfer").start()

    def _work(self) -> None:
        while True:
            with SLOTS:
                with self.changed:
                    if self.stop or not self.waiting:
                        return
                    path, job = self.waiting.pop()
                    stream = self.running[path] = Stream(path)
                self._do(path, job, stream)

    def _do(self, path: str, job: Callable[[Stream], T], stream: Stream) -> None:
        try:
            result = job(stream)
        except BaseException as error:  # told to the caller, who is in another thread
            self._note_failure(path, stream, error)
        else:
            with self.changed:
                if self.running.get(path) is stream:
                    self.results[path] = result
                    self.finished.append(self.running.pop(path))
                self.changed.notify()

    def _note_failure(self, path: str, stream: Stream, error: BaseException) -> None:
        with self.changed:
            if self.running.get(path) is stream:
                del self.running[path]
                self.failures[path] = (
                    error.message if isinstance(error, DeliveryError) else _sentence(error)
                )
                self.stop = (
                    self.stop
                    or not isinstance(error, ArtifactError)
                    or isinstance(error, Unreachable)
                )
            self.changed.notify()

    def give_up_stalled(self, seconds: float) -> None:
        for path, stream in list(self.running.items()):
            if stream.stalled(seconds):
                stream.cancel()
                del self.running[path]
                self.failures[path] = (
                    f"less than 1 KiB came within {seconds:g} s, after {stream.moved} bytes"
                    f"{f'; {stream.trouble}' if stream.trouble else ''}"
                )
                self.stop = True

    def cancel(self) -> None:
        with self.changed:
            self.stop = True
            for stream in self.running.values():
                stream.cancel()

    @property
    def over(self) -> bool:
        return not self.running and (self.stop or not self.waiting)


def run_transfers(
    jobs: Mapping[str, Callable[[Stream], T]],
    *,
    workers: int,
    stall: float,
    failed: str,
    progress: Callable[[str, int], None] | None = None,
) -> dict[str, T]:
    """Run all jobs in a few threads and return their results by path.

    Args:
        jobs: path → what transfers it; it tells its ``Stream`` of each piece.
        stall: seconds within which a transfer must bring 1 KiB.
        failed: what could not be done, for the message ("could not be downloaded").
        progress: called in the caller's thread with a path and its bytes so far.

    Raises:
        ArtifactError: naming each file that failed. Failures of single files do not stop the
            others; one which all would share (a lost connection, a stall) does.
    """
    transfers = _Transfers(jobs, workers)
    told: dict[str, int] = {}
    try:
        while True:
            with transfers.changed:
                if not transfers.over:
                    transfers.changed.wait(_TICK)
                transfers.give_up_stalled(stall)
                over = transfers.over
                moved = {
                    stream.path: stream.moved
                    for stream in [*transfers.finished, *transfers.running.values()]
                }
                transfers.finished.clear()
            if progress is not None:
                _tell(progress, moved, told)
            if over:
                break
    finally:
        transfers.cancel()
    if transfers.failures:
        raise ArtifactError(
            _summarize(transfers.failures, len(jobs), len(transfers.waiting), failed),
            files_failed=sorted(transfers.failures),
        )
    return transfers.results


def _tell(
    progress: Callable[[str, int], None], moved: Mapping[str, int], told: dict[str, int]
) -> None:
    for path, count in moved.items():
        if told.get(path) != count:
            told[path] = count
            progress(path, count)


def _summarize(failures: Mapping[str, str], total: int, untried: int, failed: str) -> str:
    shown = [f"{path} ({reason})" for path, reason in sorted(failures.items())[:_SHOWN]]
    more = [f"{len(failures) - _SHOWN} more"] if len(failures) > _SHOWN else []
    rest = [f"{untried} were not tried after that"] if untried else []
    return f"{len(failures)} of {total} files {failed}: " + "; ".join(shown + more + rest)


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
