# SPDX-License-Identifier: Apache-2.0
"""Total deadlines. The libraries' own time-outs count per read, so a peer that sends a byte a
second never trips them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from .errors import DeadlineExceeded

if TYPE_CHECKING:  # the start wrapper runs this file with Python 3.9, which has none
    from typing import ParamSpec

    P = ParamSpec("P")
T = TypeVar("T")


class Deadline:
    """A moment in the future. ``seconds`` may be None: never."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def remaining(self, at_most: float | None = None) -> float | None:
        """Seconds left, never below 0; None without a limit."""
        if self._end is None:
            return at_most
        left = max(0.0, self._end - time.monotonic())
        return left if at_most is None else min(left, at_most)

    @property
    def passed(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end


def call_within(
    seconds: float, what: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run ``function`` and return its result, or give up on it after ``seconds``.

    The call runs in a daemon thread: one which is given up on cannot be stopped, but neither keeps
    it the process alive.

    Raises:
        DeadlineExceeded: naming ``what`` and the seconds.
        Exception: whatever the function raised.
    """
    answers: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(function(*args, **kwargs))
        except BaseException as error:  # handed to the caller, who is in another thread
            errors.append(error)

    worker = threading.Thread(target=run, daemon=True, name=f"deadline: {what}")
    worker.start()
    worker.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise DeadlineExceeded(f"{what} did not answer within {seconds:g} s")
    return answers[0]
