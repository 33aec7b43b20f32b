# SPDX-License-Identifier: Apache-2.0
"""MLflow deployments to Triton: the entry point ``triton`` of the group ``mlflow.deployments``."""

from __future__ import annotations

from .client import TritonDeploymentClient
from .embedded import run_local
from .guide import target_help

__all__ = ["TritonDeploymentClient", "run_local", "target_help"]
