# SPDX-License-Identifier: Apache-2.0
"""Options of the walk, and the line of figures at its end."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_FIGURES: dict[str, Counter[str]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("chaos")
    group.addoption("--seconds", type=float, default=60, help="how long each place is walked")
    group.addoption("--first-seed", type=int, default=1, help="seeds count up from this one")
    group.addoption("--skip", default="", help="disturbances to be left out, with commas between")


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="mlops-triton-chaos-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """What each place counted, from whichever process walked there."""
    for key, value in report.user_properties:
        if key == "figures" and isinstance(value, dict) and report.when == "call":
            _FIGURES[report.nodeid] = Counter(value)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not _FIGURES:
        return
    terminalreporter.section("chaos")
    for nodeid, figures in sorted(_FIGURES.items()):
        terminalreporter.write_line(f"{nodeid}: {_line(figures)}")
    terminalreporter.write_line(f"together: {_line(sum(_FIGURES.values(), Counter()))}")


def _line(figures: Counter[str]) -> str:
    first = ("seeds", "steps", "operations", "kills", "restarts", "server deaths")
    rest = sorted(set(figures) - set(first))
    return ", ".join(f"{figures[name]} {name}" for name in (*first, *rest))
