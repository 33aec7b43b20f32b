# SPDX-License-Identifier: Apache-2.0
"""What a repository holds of one model, as a frozen value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .journal import Journal
from .record import Record

Fingerprint = Mapping[str, Sequence[object]]
"""Relative path → what costs little to ask of a file: ``[size, mtime_ns, ctime_ns, inode, mode]``
in a folder, ``[size, ETag, second of the last change]`` in S3."""


@dataclass(frozen=True)
class StoredModel:
    """The repository's part of an ``ObservedModel``; each attribute is explained there."""

    record: Record | None = None
    folder: bool = False
    journal: Journal | None = None
    half_made: bool = False
    config: bytes | None = None
    changed_files: tuple[str, ...] = ()
    missing_files: tuple[str, ...] = ()
    touched_files: tuple[str, ...] = ()
    modes_differ: bool = False
    proven: Fingerprint = field(default_factory=dict)
