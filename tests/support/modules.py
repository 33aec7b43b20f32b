# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
"""Modules of the collection in the test's own process: what a run of ansible-playbook adds, which
is two seconds and much more than that in processor time, is tested with `playbooks`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from ansible.module_utils.common import warnings as ansible_warnings
from ansible.module_utils.testing import patch_module_args

from .playbooks import environment
from .servers import MLflow

COLLECTION = "ansible_collections.mlops.triton.plugins.modules"


def run_module(
    module: str,
    options: Mapping[str, Any],
    *,
    check: bool = False,
    diff: bool = False,
    variables: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run a module as Ansible would, with `variables` in its environment; returns what it prints.

    Warnings are among the result as the module hands them to Ansible; action plugins, callbacks and
    AnsiballZ have no part in it. It must not run in two threads at once.
    """
    given = {**options, "_ansible_check_mode": check, "_ansible_diff": diff}
    main = importlib.import_module(f"{COLLECTION}.{module}").main
    said = io.StringIO()
    # Ansible collects them in globals of the process, which ends after a module elsewhere.
    ansible_warnings._global_warnings.clear()
    ansible_warnings._global_deprecations.clear()
    with (
        mock.patch.dict(os.environ, environment(**(variables or {})), clear=True),
        patch_module_args(given),
        contextlib.redirect_stdout(said),
        contextlib.suppress(SystemExit),
    ):
        main()
    lines = said.getvalue().strip().splitlines()
    assert lines, f"{module} ended without a result"
    return {"changed": False, "failed": False, **json.loads(lines[-1])}


def publish_by_module(mlflow: MLflow, name: str, path: Path, **options: Any) -> dict[str, Any]:
    """Publish with module mlflow_publish, which must succeed; returns its result."""
    given = {"name": name, "path": str(path), "tracking_uri": mlflow.url, **options}
    result = run_module("mlflow_publish", given)
    assert not result["failed"], result
    return result
