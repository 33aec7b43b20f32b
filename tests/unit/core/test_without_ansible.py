# SPDX-License-Identifier: Apache-2.0
"""The core and the MLflow plugin import where there is no Ansible."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = "ansible_collections.mlops.triton.plugins"
MODULE_UTILS = ROOT / "plugins/module_utils"
CORE = sorted((MODULE_UTILS / "_delivery").rglob("*.py"))
PLUGIN = sorted((ROOT / "plugins/mlflow_deployments").glob("*.py"))

# A process of its own: this one may have Ansible, and has imported the core already.
IMPORT_WITHOUT_ANSIBLE = """
import sys
sys.modules["ansible"] = None
sys.path.insert(0, sys.argv[1])
__import__(sys.argv[2])
third_party = {"mlflow", "tritonclient", "requests", "yaml", "google", "numpy", "boto3"} & set(sys.modules)
print(" ".join(sorted(third_party)))
"""  # noqa: E501


def import_alone(name: str) -> str:
    command = [sys.executable, "-c", IMPORT_WITHOUT_ANSIBLE, str(ROOT / ".dev"), name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def module_name(path: Path) -> str:
    parts = path.relative_to(MODULE_UTILS).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def test_there_is_a_core_with_packages() -> None:
    assert {"domain", "planning", "s3"} <= {path.parent.name for path in CORE}


@pytest.mark.parametrize("path", CORE, ids=module_name)
def test_core_imports_bare(path: Path) -> None:
    """Neither Ansible nor a third-party library, so that a bare host can at least plan and say what
    is missing.
    """
    assert import_alone(f"{PACKAGE}.module_utils.{module_name(path)}") == ""


@pytest.mark.skipif(not PLUGIN, reason="there is no MLflow plugin yet")
def test_mlflow_plugin_imports_without_ansible() -> None:
    import_alone(f"{PACKAGE}.mlflow_deployments")
