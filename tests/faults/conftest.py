# SPDX-License-Identifier: Apache-2.0
"""The table of faults: one row per test, printed at the end whatever happens."""

from __future__ import annotations

import shutil
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.bench import Bench, new_bench
from support.rows import Row

_ROWS: list[Mapping[str, str]] = []


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    """The test's row. Its title is the first line of the test's docstring, parameters put in."""
    document = (request.function.__doc__ or request.node.name).strip().splitlines()[0].rstrip(".")
    callspec = getattr(request.node, "callspec", None)
    made = Row(document.format(**callspec.params) if callspec else document)
    request.node.stash[_KEY] = made
    return made


_KEY: pytest.StashKey[Row] = pytest.StashKey()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    made = item.stash.get(_KEY, None)
    if made is None or (report.when != "call" and report.outcome == "passed"):
        return
    if report.outcome == "skipped":
        verdict = "skipped"
        made.saw(str(call.excinfo.value) if call.excinfo else "")
    elif report.outcome == "failed":
        verdict = "NOT HELD"
        made.saw(
            str(call.excinfo.value).splitlines()[0]
            if call.excinfo and str(call.excinfo.value)
            else report.when
        )
    else:
        verdict = "held"
    # What travels from the processes of pytest-xdist to the one that prints.
    report.user_properties.append(
        ("row", {"title": made.title, "seen": "; ".join(made.seen), "verdict": verdict})
    )


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _ROWS.extend(
        value for key, value in report.user_properties if key == "row" and isinstance(value, dict)
    )


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not _ROWS:
        return
    terminalreporter.section("faults")
    for made in _ROWS:
        head = textwrap.wrap(made["title"], 44) or [""]
        body = textwrap.wrap(made["seen"], 96) or [""]
        for number in range(max(len(head), len(body))):
            left = head[number] if number < len(head) else ""
            right = body[number] if number < len(body) else ""
            terminalreporter.write_line(
                f"{left:<45} {right:<97} {made['verdict'] if number == 0 else ''}".rstrip()
            )
    held = sum(made["verdict"] == "held" for made in _ROWS)
    terminalreporter.write_line(
        f"{held} of {len(_ROWS)} held, {sum(made['verdict'] == 'skipped' for made in _ROWS)}"
        " skipped"
    )


@pytest.fixture(scope="session")
def shared_bench(base: Path) -> Iterator[Bench]:
    with new_bench(base / "shared") as made:
        yield made


@pytest.fixture
def bench(shared_bench: Bench) -> Bench:
    """A repository with a running server, empty for each test."""
    shared_bench.wipe()
    return shared_bench


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """A folder on an ordinary disk that any user can enter (pytest's own is closed to others)."""
    folder = Path(tempfile.mkdtemp(prefix="mlops-triton-faults-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
