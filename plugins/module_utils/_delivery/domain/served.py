# SPDX-License-Identifier: Apache-2.0
"""What a server says of a model, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VersionRow:
    """One row of the repository index. ``version`` is None for a folder that was never loaded."""

    version: int | None
    state: str
    reason: str = ""


@dataclass(frozen=True)
class ServedModel:
    """What one server says of one model. ``deploy_id`` is read from the configuration it serves."""

    url: str
    rows: tuple[VersionRow, ...] = ()
    deploy_id: str | None = None

    @property
    def ready(self) -> tuple[int, ...]:
        """Versions in state READY."""
        return tuple(
            sorted(
                row.version for row in self.rows if row.state == "READY" and row.version is not None
            )
        )
