# SPDX-License-Identifier: Apache-2.0
"""Opens a repository of either kind."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..errors import RepositoryError
from .folder import FolderRepository
from .protocol import Repository
from .s3.location import is_s3


def open_repository(
    repository: str,
    state_dir: str | None = None,
    s3: Mapping[str, Any] | None = None,
    timeout: float = 300.0,
) -> Repository:
    """Open what is there; nothing is made.

    Raises:
        RepositoryError: there is no such folder, or its state cannot be reached.
        NotFound: there is no such bucket.
        MissingLibrary: boto3, for S3.
    """
    if is_s3(repository):
        from .s3.repository import S3Repository

        return S3Repository(repository, state_dir, s3, timeout)
    if not os.path.isdir(repository):
        raise RepositoryError(
            f"the model repository {repository} does not exist on this host",
            step="find the repository",
            left="nothing was changed",
        )
    return FolderRepository(repository, state_dir)
