# SPDX-License-Identifier: Apache-2.0
"""A repository in S3: killed after each call that changes something, in each operation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.kill_points import OPERATIONS, at_all_points
from support.rows import Row
from support.s3_bench import S3Bench, s3_benches

pytestmark = pytest.mark.takes(300)


@pytest.fixture(scope="module")
def benches(base: Path) -> Iterator[list[S3Bench]]:
    with s3_benches(base, "s3-kills", "s3-more-kills") as made:
        yield made


@pytest.mark.parametrize("name", OPERATIONS)
def test_kill_points(name: str, benches: list[S3Bench], row: Row) -> None:
    """S3: kill -9 in a {name}, after each effect, the server started anew."""
    _at_all_points(name, benches, row, restart=True)


def test_kill_points_while_the_server_runs(benches: list[S3Bench], row: Row) -> None:
    """S3: kill -9 in an update, after each effect, the server running on."""
    _at_all_points("update", benches, row, restart=False)


def _at_all_points(name: str, benches: list[S3Bench], row: Row, restart: bool) -> None:
    effects, kills, found = at_all_points(benches, name, restart)
    row.saw(
        f"N = {effects}; {found.old} kills came up with the old one and {found.new} with the new"
        f" one; {kills - len(found.wrong)} converged in one run and left nothing"
    )
    assert not found.wrong, f"{len(found.wrong)} points: " + "\n".join(found.wrong)
