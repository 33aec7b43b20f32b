# SPDX-License-Identifier: Apache-2.0
"""Artifacts that only MLflow's own code can reach: S3, Azure, GCS and others."""

from __future__ import annotations

import os
import posixpath
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress

from ..deadline import call_within
from ..disk import bytes_below, hash_file
from ..errors import ArtifactError, DeadlineExceeded, NotFound
from ..no_follow import open_file
from ..outside import MlflowObject
from ..redact import reason
from .roots import ArtifactRoot, Listing, walk
from .transfer import Cancelled, Stream, Unreachable


class DownloaderRoot(ArtifactRoot):
    """Any other place, through MLflow's own artifact repository (S3, Azure, GCS, …) and its
    credentials.
    """

    def __init__(self, label: str, timeout: float, repository: MlflowObject) -> None:
        super().__init__(label, timeout)
        self._repository = repository

    def _list(self) -> Listing:
        return walk(self._entries)

    def _entries(self, path: str) -> Iterator[tuple[str, bool, int | None]]:
        try:
            found = call_within(
                self.timeout, "the listing", self._repository.list_artifacts, path or None
            )
        except DeadlineExceeded as error:
            raise Unreachable(f"{self.label} was not listed within {self.timeout:g} s") from error
        except Exception as error:  # every kind of store has errors of its own
            raise Unreachable(f"{self.label} cannot be listed: {reason(error)}") from error
        for entry in found:
            yield posixpath.basename(entry.path), entry.is_dir, entry.file_size

    def _read(self, path: str, limit: int) -> bytes:
        if path not in self.sizes():
            raise NotFound(f"{self.label} has no file {path}")
        size = self.sizes()[path]
        if size is not None and size > limit:
            return b"\0" * (limit + 1)
        with (
            tempfile.TemporaryDirectory() as folder,
            open_file(self._download(path, folder)) as file,
        ):
            return file.read(limit + 1)

    def _bring(self, path: str, target: str, stream: Stream) -> tuple[int, str]:
        with tempfile.TemporaryDirectory(dir=os.path.dirname(target), prefix=".part-") as folder:
            came = self._download_watched(path, folder, stream)
            stream.received()
            with open_file(came) as file:
                os.fchmod(file.fileno(), 0o600)
                os.fsync(file.fileno())
            os.rename(came, target)
        return os.path.getsize(target), hash_file(target)

    def _download_watched(self, path: str, folder: str, stream: Stream) -> str:
        # MLflow's downloader tells nothing while it works; what lies in the folder does.
        over = threading.Event()

        def watch() -> None:
            with suppress(Cancelled):
                while not over.wait(0.5):
                    stream.add(max(0, bytes_below(folder) - stream.moved))

        threading.Thread(target=watch, daemon=True, name="download watch").start()
        try:
            return self._download(path, folder)
        finally:
            over.set()

    def _download(self, path: str, folder: str) -> str:
        """Where the file is now; links resolved down to ``folder``, and none from there on."""
        folder = os.path.realpath(folder)
        try:
            came = str(self._repository.download_artifacts(path, folder))
        except Exception as error:  # every kind of store has errors of its own
            raise ArtifactError(
                f"{path} of {self.label} could not be downloaded: {reason(error)}"
            ) from error
        # Some stores answer with a place of their own instead of a copy.
        if not os.path.normpath(came).startswith(f"{folder}/"):
            raise ArtifactError(
                f"{path} of {self.label} came to {came}, where it is not taken from"
            )
        return os.path.normpath(came)
