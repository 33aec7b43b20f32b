# SPDX-License-Identifier: Apache-2.0
"""Files whose bytes are known without being read: they look as they did when a run had proven
them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from ..domain.manifest import Manifest
from ..domain.record import Record

_LOOK = 4
"""Size, time of modification, time of change and inode. Permission bits say nothing of bytes, and
whoever changes them changes the time of change."""


class KnownBytes:
    """What records say of the files of their deployments, wherever those lie now: a rename changes
    nothing that counts here. What was copied, or put back from a backup, is another file.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self._sums: dict[tuple[object, ...], str | None] = {}
        for record in records:
            for entry in Manifest.from_dict(record.manifest).files:
                look = record.fingerprint.get(entry.path, ())
                if len(look) >= _LOOK and look[0] == entry.size:
                    key = (entry.path, *look[:_LOOK])
                    self._sums[key] = entry.sha256

    def sha256(self, path: str, info: os.stat_result) -> str | None:
        """Of the file that a deployment has at ``path``; None where its bytes must be read."""
        times = info.st_mtime_ns, info.st_ctime_ns
        return self._sums.get((path, info.st_size, *times, info.st_ino))
