# SPDX-License-Identifier: Apache-2.0
"""What a model URI means now, as a frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .uri import ModelUri


@dataclass(frozen=True)
class Source:
    """What a model URI means now."""

    uri: ModelUri
    registry_name: str | None
    registry_version: int | None
    alias: str | None
    """The alias that was asked for."""
    source: str
    """The identity of what was found, as the registry has it; without credentials."""
    artifact_root: str
    """Where the files are."""
    run_id: str | None
    model_id: str | None
    tags: Mapping[str, str] = field(default_factory=dict)
    """Of the model version."""
    beside: str | None = None
    """Where further files are, which those of ``artifact_root`` go before: what a run logged under
    the name of its model."""
    fingerprint: str | None = None
    """Of a folder on this host: changes when its names, sizes or times do."""
    samples: str | None = None
    """Of a folder on this host whose files were brought: changes when those of its bytes do that
    are compared first."""
