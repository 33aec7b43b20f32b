# SPDX-License-Identifier: Apache-2.0
"""Makes ``ansible_collections.mlops.triton`` the checkout, whichever environment runs the tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

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

# Where files are spread over processes, a long one that begins last is waited for by the others.
LONGEST_FIRST = (
    "test_s3.py",
    "test_fire.py",
    "test_runs.py",
    "test_kill_points.py",
    "test_lists.py",
    "test_quickstart.py",
    "test_bad_input.py",
    "test_modules.py",
    "test_readme.py",
    "test_mlflow_plugin.py",
    "test_fleet.py",
    "test_s3_repository.py",
    "test_roles_native.py",
    "test_progress.py",
    "test_matrix.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
