# SPDX-License-Identifier: Apache-2.0
"""How many examples properties are tried with: the same ones each time, or others each time.

HYPOTHESIS_PROFILE=search pytest tests/unit -k properties
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support.core_environment import ASKS_FOR_MORE, NOT_IN_CORE

SLOW = [HealthCheck.too_slow]  # how busy a machine is says nothing of a test

settings.register_profile(
    "same", derandomize=True, deadline=None, max_examples=40, database=None,
    suppress_health_check=SLOW,
)  # fmt: skip
settings.register_profile(
    "search", deadline=None, max_examples=2000, database=None, suppress_health_check=SLOW
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--core-elsewhere",
        action="store_true",
        help="leave out what `make unit-core` runs: tests of the core that need none of "
        + ", ".join(NOT_IN_CORE),
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if not config.getoption("--core-elsewhere") or collection_path.parent.name != "core":
        return None
    is_test = collection_path.name.startswith("test_")
    text = collection_path.read_text(encoding="utf-8") if is_test else ""
    return True if is_test and not ASKS_FOR_MORE.search(text) else None
