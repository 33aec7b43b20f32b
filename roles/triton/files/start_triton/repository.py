# SPDX-License-Identifier: Apache-2.0
"""What a start asks of a model repository, wherever that lies.

Each kind is imported where it is needed: a health check that comes every few seconds compiles what
it imports anew.
"""

from __future__ import annotations

from .settings import Settings
from .wanted import Wanted


def wanted_models(settings: Settings) -> Wanted:
    """Names to load at the start, and warnings about records and folders that do not fit."""
    if settings.in_s3:
        from .store import wanted_models as wanted
    else:
        from .folder import wanted_models as wanted
    return wanted(settings)


def recover(settings: Settings) -> list[str]:
    """Finish or undo what killed deployments left; returns one sentence per journal."""
    if settings.in_s3:
        from .store import recover as mend
    else:
        from .folder import recover as mend
    return mend(settings)
