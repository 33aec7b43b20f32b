# SPDX-License-Identifier: Apache-2.0
"""The MLflow plugin of the checkout for the tests, in whichever environment they run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from .servers import ROOT, warm_program

ENTRY = (
    "[mlflow.deployments]\ntriton = ansible_collections.mlops.triton.plugins.mlflow_deployments\n"
)
OTHER = "[mlflow.deployments]\ntriton = mlflow_triton.deployments\n"


def registered(folder: Path, distribution: str = "mlops-triton", entry_points: str = ENTRY) -> Path:
    """What pip leaves of an installed package that declares an entry point: enough for MLflow to
    find it.
    """
    place = folder / f"{distribution.replace('-', '_')}-0.0.1.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.0.1\n", encoding="utf-8"
    )
    (place / "entry_points.txt").write_text(entry_points, encoding="utf-8")
    return folder


def environment(site: Path, **variables: str) -> dict[str, str]:
    """Of a process that finds the plugin and is told nothing of the servers of anybody else."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "TRITON_", "MLOPS_"))
    }
    return {**kept, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT / ".dev")]), **variables}


def deployments(
    variables: Mapping[str, str], *words: str, seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    """``mlflow deployments …``."""
    return subprocess.run(
        [warm_program("modules") or sys.executable, "-m", "mlflow", "deployments", *words],
        env=dict(variables),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        stdin=subprocess.DEVNULL,
    )
