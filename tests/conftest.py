# SPDX-License-Identifier: Apache-2.0
"""Makes ``ansible_collections.mlops.triton`` the checkout, whichever environment runs the tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import warm_python

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "ansible_collections/mlops/triton"


def import_from_checkout() -> None:
    """The editable installation does the same; this serves a bare ``pytest`` in an environment that
    lacks it.
    """
    link = ROOT / ".dev" / PACKAGE
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(ROOT, link.parent), target_is_directory=True)
    # First on the path: an installed collection must not be tested in place of this one.
    development = str(ROOT / ".dev")
    if development not in sys.path[:1]:
        sys.path.insert(0, development)


import_from_checkout()
# Their assertions say as much as those of a test.
pytest.register_assert_rewrite("support")


def pytest_configure(config: pytest.Config) -> None:
    """Processes of pytest-xdist share the Pythons that are warm."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        from support import playbooks, servers

        given = playbooks.environment()
        pythons = {"modules": Path(sys.executable), "playbooks": Path(sys.executable)}
        if "MLFLOW_SERVER_PYTHON" not in os.environ:
            pythons["mlflow"] = servers.server_python("MLFLOW_SERVER_PYTHON", "mlflow-server")
        for use, python in pythons.items():
            program, end = warm_python.begin(use, str(python), given)
            os.environ[warm_python.variable(use)] = str(program)
            config.add_cleanup(end)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest begin first: the last one to begin is waited for."""
    items.sort(key=_seconds_of_file, reverse=True)


def _seconds_of_file(item: pytest.Item) -> float:
    mark = item.get_closest_marker("takes")
    return float(mark.args[0]) if mark else 0
