# SPDX-License-Identifier: Apache-2.0
"""A private folder of this host in which the files of models are made that go elsewhere. Standard
library only.

Its name tells the repository, so that the next run finds and removes what a killed one left.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile

from .. import disk
from ..errors import RepositoryError


class Scratch:
    """``<temporary folder>/mlops-triton-<user id>/<repository>/<model>``."""

    def __init__(self, repository: str) -> None:
        self.parent = os.path.join(tempfile.gettempdir(), f"mlops-triton-{os.geteuid()}")
        self.path = os.path.join(self.parent, hashlib.sha256(repository.encode()).hexdigest()[:16])

    def folder(self, name: str, *parts: str) -> str:
        return os.path.join(self.path, name, *parts)

    def has(self, name: str) -> bool:
        return os.path.lexists(self.folder(name))

    def ensure(self) -> None:
        """Make it, for this user alone.

        Raises:
            RepositoryError: somebody else made a folder of this name.
        """
        try:
            os.makedirs(self.parent, mode=0o700, exist_ok=True)
            info = os.lstat(self.parent)
        except OSError as error:
            raise RepositoryError(
                f"the temporary folder {self.parent} cannot be made ({error.strerror})",
                step="make the files",
            ) from error
        if (
            not stat.S_ISDIR(info.st_mode)
            or info.st_uid != os.geteuid()
            or stat.S_IMODE(info.st_mode) & 0o077
        ):
            raise RepositoryError(
                f"the temporary folder {self.parent} is not a private one of this user; the"
                " environment variable TMPDIR names another place",
                step="make the files",
            )
        disk.make_folder(self.path, 0o700)

    def require_space(self, size: int) -> None:
        """Raises RepositoryError where ``size`` bytes do not fit."""
        free = disk.free_bytes(tempfile.gettempdir())
        if size > free:
            raise RepositoryError(
                f"{size} bytes are needed for a while and {free} are free on the file system of"
                f" {self.path}; the environment variable TMPDIR names another place",
                step="make room",
            )

    def tidy(self) -> None:
        """Remove it where nothing is in it."""
        for folder in (self.path, self.parent):
            try:
                os.rmdir(folder)
            except OSError:
                return
