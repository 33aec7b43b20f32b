# SPDX-License-Identifier: Apache-2.0
"""Random walks until the time is up; each seed walks another way, and the same way each time."""

from __future__ import annotations

import functools
import time
from pathlib import Path

import hypothesis
import pytest
from chaos import walker
from chaos.machine import Walk, walk_again
from chaos.place import PLACES, Place, open_place
from chaos.shorten import shorten
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

STEPS = 18
SHORTEN_SECONDS = 60

WALKING = settings(
    max_examples=6,
    stateful_step_count=STEPS,
    phases=(Phase.generate,),
    deadline=None,
    database=None,
    derandomize=False,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("kind", PLACES)
def test_a_walk_ends_where_it_was_asked_to(
    kind: str, base: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happens, each operation leads to what was asked for, or leaves what was there."""
    option = request.config.getoption
    skipped = {name for name in option("skip").split(",") if name}
    assert skipped <= set(walker.SWITCHES), f"--skip knows {', '.join(walker.SWITCHES)}"
    monkeypatch.setattr(walker, "KNOWN", walker.KNOWN | skipped)
    seconds, seed = option("seconds"), option("first_seed")
    with open_place(kind, base) as place:
        place.until = time.monotonic() + seconds
        try:
            while not place.is_over():
                _walk(place, kind, seed)
                seed += 1
        finally:
            request.node.user_properties.append(("figures", dict(place.counts)))
    # A quarter of what an idle machine does: one that is busy finds less, and that is no fault.
    wanted = PLACES[kind] * seconds / 4
    assert place.counts["steps"] >= wanted, (
        f"{place.counts['steps']} steps in {seconds} s show little: {wanted:.0f} are expected"
    )


def _walk(place: Place, kind: str, seed: int) -> None:
    """The walks of one seed."""
    place.counts["seeds"] += 1
    walk = hypothesis.seed(seed)(functools.partial(Walk, place))
    try:
        run_state_machine_as_test(walk, settings=WALKING)
    except Exception:
        if place.failure is None:
            raise
    if first := place.failure:
        smallest = shorten(first, functools.partial(walk_again, place), SHORTEN_SECONDS)
        pytest.fail(
            f"{smallest.sentence}\n\nplace {kind}, seed {seed}, found after {len(first.steps)}"
            f" steps:\n{first}\n\nthe smallest walk that fails:\n{smallest}",
            pytrace=False,
        )
