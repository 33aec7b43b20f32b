# SPDX-License-Identifier: Apache-2.0
"""What a repository holds of one model, as a frozen value."""

from __future__ import annotations

from dataclasses import dataclass

from .journal import Journal
from .record import Record


@dataclass(frozen=True)
class StoredModel:
    """The repository's part of an ``ObservedModel``; each attribute is explained there."""

    record: Record | None = None
    folder: bool = False
    journal: Journal | None = None
    half_made: bool = False
    config: bytes | None = None
    changed_files: tuple[str, ...] = ()
    touched_files: tuple[str, ...] = ()
    modes_differ: bool = False
