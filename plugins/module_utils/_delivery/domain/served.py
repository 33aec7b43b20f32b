# SPDX-License-Identifier: Apache-2.0
"""What a server says of a model, as frozen values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class VersionRow:
    """One row of the repository index. ``version`` is None for a folder that was never loaded."""

    version: int | None
    state: str
    reason: str = ""


# Triton goes on answering the old one where it applied a new one in place (2.51); which versions it
# serves, the index says.
_APPLIED_IN_PLACE = "version_policy"


def digest_of_answer(config: Mapping[str, Any]) -> str:
    """sha256 of a configuration as a server answers it, completed by Triton, without what Triton
    does not keep up to date.
    """
    kept = {key: value for key, value in config.items() if key != _APPLIED_IN_PLACE}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class ServedModel:
    """What one server says of one model.

    Attributes:
        deploy_id: in the configuration that it serves.
        config_digest: of that configuration, see ``digest_of_answer``; None where no version is
            READY.
        answers: two of these digests can be compared where this is equal: the server's version, and
            over gRPC what wrote the answer down. Another release completes another way.
    """

    url: str
    rows: tuple[VersionRow, ...] = ()
    deploy_id: str | None = None
    config_digest: str | None = None
    answers: str | None = None

    @property
    def ready(self) -> tuple[int, ...]:
        """Versions in state READY."""
        return tuple(
            sorted(
                row.version for row in self.rows if row.state == "READY" and row.version is not None
            )
        )
