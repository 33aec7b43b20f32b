# SPDX-License-Identifier: Apache-2.0
"""Which artifact stores did not answer in this run."""

from __future__ import annotations

import threading
import time
from urllib.parse import urlsplit

from ..errors import ArtifactError
from .roots import ArtifactRoot, LocalRoot


class StoreAvailability:
    """Remembers for one run which artifact stores did not answer, so that they are not waited for
    once for each model.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._silent: dict[str, int] = {}
        self._suspected: set[str] = set()
        self._lock = threading.Lock()

    def list(self, artifacts: ArtifactRoot, root: str) -> None:
        """Make an artifact list its files.

        Raises:
            ArtifactError: it could not; or the store at ``root`` was waited for in vain for two
                other models since it last answered.
        """
        if isinstance(artifacts, LocalRoot):
            return
        place, begun = _origin_of(root), time.monotonic()
        if self._silent.get(place, 0) > 1:
            raise ArtifactError(
                f"the store of {artifacts.label} did not answer for other models of this run",
                step="list the artifact",
            )
        try:
            artifacts.list()
        except ArtifactError:
            with self._lock:
                if time.monotonic() - begun >= self._timeout:
                    self._silent[place] = self._silent.get(place, 0) + 1
            raise
        with self._lock:
            self._silent[place] = 0
            self._suspected.discard(place)

    def suspect(self, root: str) -> None:
        """A download from there failed, for whatever reason."""
        with self._lock:
            self._suspected.add(_origin_of(root))

    def suspects(self, root: str) -> bool:
        return _origin_of(root) in self._suspected


def _origin_of(root: str) -> str:
    parts = urlsplit(root)
    return f"{parts.scheme}://{parts.netloc}"
