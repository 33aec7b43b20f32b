# SPDX-License-Identifier: Apache-2.0
"""What the models of a run share sparingly: downloads, loads, room."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from ..disk import bytes_below
from ..errors import RepositoryError
from .gpu_memory import GpuRoom, Share

_LOOK_AGAIN = 1.0
"""Seconds after which room that others made, outside this run, is found."""


class Roomy(Protocol):
    """A repository that knows how much room there is."""

    def require_space(self, size: int) -> None:
        """Raises RepositoryError where ``size`` bytes do not fit."""


class Turn:
    """The turn of the models of one transaction among those that may be changed and loaded at the
    same time. It ends with the ``with`` block.

    Attributes:
        share: of the GPUs' memory, when it has come.
    """

    def __init__(
        self, loads: threading.BoundedSemaphore, room: AbstractContextManager[Share] | None = None
    ) -> None:
        self._loads = loads
        self._room = room or contextlib.nullcontext()
        self.share: Share | None = None
        self._taken = contextlib.ExitStack()
        self._has_come = False

    def take(self) -> None:
        """Wait for it, the first time."""
        if not self._has_come:
            # In this order: what waits for room keeps nobody else from loading.
            self.share = self._taken.enter_context(self._room)
            self._taken.enter_context(self._loads)
            self._has_come = True

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._taken.close()


class Limits:
    """How many of a run's models are brought, and loaded, at the same time; and the room that those
    in progress will still take.

    Args:
        downloads, loads: at least 1.
    """

    def __init__(self, downloads: int = 1, loads: int = 1, gpus: GpuRoom | None = None) -> None:
        self.gpus = gpus or GpuRoom()
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
                self._changed.wait(_LOOK_AGAIN)
            self._promised[folder] = size
