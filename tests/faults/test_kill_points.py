# SPDX-License-Identifier: Apache-2.0
"""Killed before and after each call that changes something, in each operation: what is served then,
and the run after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.bench import NAME, Bench, new_bench
from support.kill_points import AFTER_A_TIMEOUT, OPERATIONS, at_all_points
from support.rows import Row

pytestmark = pytest.mark.takes(240)


@pytest.fixture(scope="module")
def benches(base: Path) -> Iterator[list[Bench]]:
    """One for each core of a small machine; they share nothing."""
    with new_bench(base / "kills") as one, new_bench(base / "more-kills") as two:
        for bench in (one, two):
            bench.sample(1)
            bench.sample(2)
        yield [one, two]


@pytest.fixture
def bench(benches: list[Bench]) -> Bench:
    return benches[0]


@pytest.mark.parametrize("name", OPERATIONS)
def test_kill_points(name: str, benches: list[Bench], row: Row) -> None:
    """kill -9 in a {name}, before and after each effect, the server started anew."""
    effects, kills, found = at_all_points(benches, name, restart=True, moments=("before", "after"))
    row.saw(
        f"N = {effects}; of {kills} kills {found.old} came up with the old one and {found.new} with"
        f" the new one, all whole; {kills - len(found.wrong)} converged in one run and left nothing"
    )
    assert not found.wrong, f"{len(found.wrong)} points: " + "\n".join(found.wrong)


@pytest.mark.parametrize("name", OPERATIONS)
def test_kill_points_while_the_server_runs(name: str, benches: list[Bench], row: Row) -> None:
    """kill -9 in a {name}, after each effect, the server running on."""
    effects, kills, found = at_all_points(benches, name, restart=False)
    row.saw(
        f"N = {effects}; {kills - len(found.wrong)} kills of {kills} were settled by the next run"
        " without a restart"
    )
    assert not found.wrong, f"{len(found.wrong)} points: " + "\n".join(found.wrong)


@pytest.mark.parametrize("name", AFTER_A_TIMEOUT)
def test_kill_points_after_a_load_that_was_given_up_on(
    name: str, benches: list[Bench], row: Row
) -> None:
    """kill -9 in the {name} after a load that was given up on, after each effect, the server
    running on.
    """
    effects, kills, found = at_all_points(benches, name, restart=False)
    row.saw(f"N = {effects}; {kills - len(found.wrong)} kills of {kills} were settled")
    assert not found.wrong, f"{len(found.wrong)} points: " + "\n".join(found.wrong)


# -- versions side by side: several moves, which no exchange makes one -----------------------------


def _versions_served(bench: Bench, upto: int) -> dict[int, int | None]:
    return {
        version: identity
        for version in range(1, upto + 2)
        if (identity := bench.identity(NAME, version)) is not None
    }


@pytest.mark.parametrize("restart", [True, False])
def test_kill_points_of_versions_side_by_side(restart: bool, bench: Bench, row: Row) -> None:
    """kill -9 where a version goes beside another and a third is retired, after each effect (server
    restarted: {restart}).
    """
    bench.wipe()
    folders: dict[str, str] = {}

    def options(version: int) -> dict[str, Any]:
        if str(version) not in folders:
            folders[str(version)] = bench.source(version)
        return {"model_uri": f"models:/fraud/{version}", "serve_versions": 2}

    def run(version: int, **request: Any) -> dict[str, Any]:
        given = options(version)
        return bench.run({"registry": folders, **request}, **given)

    for version in (1, 2):
        assert not run(version)["result"]["failed"]
    newest = 3
    whole = run(newest)
    assert not whole["result"]["failed"], whole["result"]["msg"]
    total = len(whole["effects"])
    assert total, "there is no point at which to kill it"
    print(
        f"\nversions side by side: N = {total}:"
        f" {', '.join(kind for kind, _subject in whole['effects'])}"
    )
    seen = {"old": 0, "new": 0}
    wrong = []
    for number in range(1, total + 1):
        newest += 1
        old, new = (
            {version: version for version in (newest - 2, newest - 1)},
            {version: version for version in (newest - 1, newest)},
        )
        killed = run(newest, kill=[number, "after"])
        where = f"killed after effect {number} ({' '.join(killed['effects'][-1])})"
        assert killed["code"] == -9, (where, killed)
        if restart:
            bench.crash()
        now = _versions_served(bench, newest)
        if restart and now not in (old, new):
            wrong.append(f"{where}: {now} is served instead of {old} or {new}")
        seen["new" if now == new else "old"] += 1
        try:
            done = run(newest)["result"]
            assert not done["failed"], done["msg"]
            assert _versions_served(bench, newest) == new
            bench.check_agreement_of(NAME, newest)
            assert bench.left_behind(1) == []
            again = run(newest)
            assert (again["result"]["changed"], again["effects"]) == (False, [])
        except AssertionError as error:
            wrong.append(f"{where}: {' '.join(str(error).split())[:300]}")
    row.saw(
        f"N = {total}; of {total} kills {seen['old']} had the old versions served and {seen['new']}"
        f" the new ones; {total - len(wrong)} converged in one run and left nothing"
    )
    assert not wrong, f"{len(wrong)} points: " + "\n".join(wrong)
