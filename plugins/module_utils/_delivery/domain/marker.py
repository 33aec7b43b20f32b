# SPDX-License-Identifier: Apache-2.0
"""The marker file of a repository, which says where its state lies. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import RepositoryError
from .fields import Fields, WrongShape, read_json

MARKER = ".mlops-triton.json"
SCHEMA = 1


@dataclass(frozen=True)
class Marker:
    """``state_dir`` is relative to the repository; of another bucket in S3, a URL."""

    state_dir: str

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "state_dir": self.state_dir}

    @classmethod
    def from_json(cls, body: bytes, path: str) -> Marker:
        """Read what was written of ``to_dict``.

        Raises:
            RepositoryError: a newer version wrote it, or it is damaged; says what to do.
        """
        try:
            fields = Fields(read_json(body))
            schema = fields.number("schema")
            if schema > SCHEMA:
                raise _refused(
                    path,
                    f"has schema {schema} and this version of the collection reads up to {SCHEMA}:"
                    " use the newer version that wrote it",
                )
            state_dir = fields.text("state_dir")
            if not state_dir or "\0" in state_dir:
                raise fields.wrong("state_dir", "a path")
            return cls(state_dir)
        except WrongShape as error:
            raise refused_marker(path, str(error)) from error


def refused_marker(path: str, reason: str) -> RepositoryError:
    """What to do where a marker is damaged."""
    return _refused(
        path,
        f"cannot be understood ({reason}): find the state folder, which holds records and retained"
        " copies, remove the marker and run again with that folder as state_dir",
    )


def _refused(path: str, reason: str) -> RepositoryError:
    return RepositoryError(
        f"the marker {path} {reason}", step="find the state folder", left="nothing was changed"
    )
