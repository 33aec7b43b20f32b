# SPDX-License-Identifier: Apache-2.0
"""MLflow deployments to Triton: the entry point ``triton`` of the group ``mlflow.deployments``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .client import TritonDeploymentClient

__all__ = ["TritonDeploymentClient", "run_local", "target_help"]


def run_local(
    name: str,
    model_uri: str | os.PathLike[str],
    flavor: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Serve one model on this host until Ctrl-C; see ``embedded.run_local``."""
    from .embedded import run_local as run

    run(name, model_uri, flavor, config)


def target_help() -> str:
    """What ``mlflow deployments help -t triton`` prints."""
    from .guide import target_help as text

    return text()
