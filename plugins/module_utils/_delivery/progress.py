# SPDX-License-Identifier: Apache-2.0
"""What a run is doing just now, for whoever waits: told by the steps that take long, written to a
file or shown as lines.

Nothing is kept and nothing costs time while nobody listens.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TextIO, TypedDict

from .terminal import one_line

VARIABLE = "MLOPS_TRITON_PROGRESS_FILE"
"""Names the file, for a process that somebody else has started to wait for."""
SWITCH = "TRITON_PROGRESS"
_NO = ("0", "false", "no", "off", "n", "f")
_EVERY = 1.0
_FIRST = 2.0
_model: ContextVar[str] = ContextVar("model", default="")
_steps: dict[int, Step] = {}
_lock = threading.Lock()
_listeners = 0


class Standing(TypedDict):
    """How far a step is: ``total`` and ``done`` in bytes, None where bytes are not what moves."""

    model: str
    step: str
    seconds: float
    total: int | None
    done: int | None


class Step:
    """One thing that goes on: ``what`` for ``model``, with bytes done of ``total`` where bytes are
    what moves.
    """

    def __init__(self, model: str, what: str, total: int | None) -> None:
        self.model, self.what, self.total = model, what, total
        self.began = time.monotonic()
        self._files: dict[str, int] = {}
        self._done = 0

    def __call__(self, path: str, count: int) -> None:
        """``count`` bytes of a file went through so far."""
        with _lock:
            self._done += count - self._files.get(path, 0)
            self._files[path] = count

    def standing(self) -> Standing:
        seconds = time.monotonic() - self.began
        return {
            "model": self.model,
            "step": self.what,
            "seconds": round(seconds, 1),
            "total": self.total,
            "done": self._done if self.total is not None else None,
        }


def set_model(model: str) -> None:
    """What this thread does from now on is for ``model``."""
    _model.set(model)


@contextmanager
def step(what: str, total: int | None = None) -> Iterator[Step | None]:
    """Tell that ``what`` goes on in this block ("download", "load on localhost:8000"); ``total`` is
    its size in bytes.

    Yields:
        What to call with a path and its bytes so far; None where nobody listens.
    """
    if not _listeners:
        yield None
        return
    made = Step(_model.get(), what, total)
    with _lock:
        _steps[id(made)] = made
    try:
        yield made
    finally:
        with _lock:
            del _steps[id(made)]


def standing() -> list[Standing]:
    """The steps that go on now, oldest first."""
    with _lock:
        return [one.standing() for one in sorted(_steps.values(), key=lambda one: one.began)]


@contextmanager
def report_progress(
    tell: Callable[[list[Standing]], None], every: float = _EVERY
) -> Iterator[None]:
    """Call ``tell`` with the standing, from a thread of its own, every so many seconds for as long
    as this block takes.

    The first call comes after ``every`` seconds: short runs tell nothing. What ``tell`` raises ends
    the telling and nothing else.
    """
    global _listeners
    over = threading.Event()

    def run() -> None:
        with suppress(OSError, ValueError):
            while not over.wait(every):
                tell(standing())

    thread = threading.Thread(target=run, daemon=True, name="progress")
    _listeners += 1
    thread.start()
    try:
        yield
    finally:
        _listeners -= 1
        over.set()
        thread.join(5)


@contextmanager
def write_progress(path: str | None, every: float = _EVERY) -> Iterator[None]:
    """Keep a file with the standing as JSON, replaced in one step; it is gone at the end of this
    block, also when a signal ends the process. None: nothing is done.
    """
    if not path:
        yield
        return
    beside = f"{path}.{secrets.token_hex(4)}"

    def tell(now: list[Standing]) -> None:
        if not now and not os.path.exists(path):
            return
        with open(
            os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600),
            "w",
            encoding="utf-8",
        ) as file:
            json.dump(now, file)
        os.replace(beside, path)

    def remove() -> None:
        for left in (beside, path):
            with suppress(OSError):
                os.unlink(left)

    with _before_the_end(remove):
        try:
            with report_progress(tell, every):
                yield
        finally:
            remove()


@contextmanager
def _before_the_end(remove: Callable[[], None]) -> Iterator[None]:
    """Where a signal ends the process in this block, ``remove`` is called before."""

    def end(number: int, _frame: object) -> None:
        remove()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    taken = []
    if threading.current_thread() is threading.main_thread():
        taken = [
            number
            for number in (signal.SIGHUP, signal.SIGTERM)
            if signal.getsignal(number) == signal.SIG_DFL
        ]
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def show_progress(wanted: bool | None = None, stream: TextIO | None = None) -> Iterator[None]:
    """Print lines while this block takes its time: where they are wanted, or, when that is not
    said, on a terminal.

    Args:
        wanted: None: what the environment variable TRITON_PROGRESS says, and without it, whether
            ``stream`` is a terminal.
        stream: standard error when None.
    """
    target = stream or sys.stderr
    said = os.environ.get(SWITCH, "").strip().lower()
    if not (wanted if wanted is not None else said not in _NO if said else target.isatty()):
        yield
        return
    lines = Lines()

    def tell(now: list[Standing]) -> None:
        for line in lines.of(now):
            target.write(f"progress: {line}\n")
        target.flush()

    with report_progress(tell, _FIRST):
        yield


@dataclass(frozen=True)
class _Seen:
    done: int
    seconds: float


class Lines:
    """Turns one standing after the other into lines: what is new at once, what goes on every
    ``every`` seconds or less often.
    """

    def __init__(self, every: float = 5.0) -> None:
        self._every = every
        self._told: dict[tuple[str, str], _Seen] = {}

    def of(self, standing: Sequence[Standing]) -> list[str]:
        lines = []
        for one in standing:
            key = (str(one["model"]), str(one["step"]))
            seconds, done = float(one["seconds"]), int(one["done"] or 0)
            before = self._told.get(key)
            # After a minute, an hour, … the lines come more slowly: a log is read afterwards.
            if before and 0 <= seconds - before.seconds < max(self._every, seconds / 20):
                continue
            self._told[key] = _Seen(done, seconds)
            since = (
                before
                if before and before.seconds < seconds and before.done <= done
                else _Seen(0, 0.0)
            )
            lines.append(_line(one, done, (done - since.done) / max(seconds - since.seconds, 0.1)))
        return lines


def _line(one: Standing, done: int, rate: float) -> str:
    said = [f"{one['model']}: {one['step']}" if one["model"] else str(one["step"])]
    total = one["total"]
    if total is not None:
        part = f" ({done * 100 // total} %)" if total else ""
        said += [f"{in_units(done)} of {in_units(total)}{part}", f"{in_units(rate)}/s"]
    return one_line(", ".join([*said, f"{float(one['seconds']):.0f} s"]))


def in_units(count: float) -> str:
    """Bytes for a reader, such as 1.5 GiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return (
                f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
            )
        count /= 1024
    return f"{count:.1f} TiB"
