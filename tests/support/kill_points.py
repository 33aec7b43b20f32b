# SPDX-License-Identifier: Apache-2.0
"""The operations whose runs are killed at each call that changes something, and what must be so
after that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from support.bench import NAME, Bench

Served = tuple[int, int] | None
"""Identity and max_batch_size of what is served."""


def source(bench: Bench, identity: int) -> str:
    return str(bench.folder / "sources" / f"{NAME}-{identity}" / NAME)


def served(bench: Bench) -> Served:
    identity = bench.identity()
    return None if identity is None else (identity, bench.served_config()["max_batch_size"])


@dataclass
class Operation:
    """One operation. ``prepare`` brings the old state about and says what to run, and what is
    served before and after it.

    ``retained`` are the copies kept afterwards. ``only``: at effects of these kinds;
    the others are another operation's. ``outage``: what runs on may serve nothing then.
    """

    prepare: Callable[[Bench], tuple[dict[str, Any], Served, Served]]
    retained: int | None
    only: tuple[str, ...] = ()
    outage: bool = False


def _now(bench: Bench) -> int:
    identity = bench.identity()
    return 0 if identity is None else identity


def create(bench: Bench) -> tuple[dict[str, Any], Served, Served]:
    bench.wipe()
    return {"model_uri": source(bench, 1)}, None, (1, 8)


def _with_history(bench: Bench) -> int:
    """Two deployments, so that the one before is retained; returns what is served."""
    record = bench.record()
    wanted = []
    if record is None or not bench.store.retained_records(NAME):
        wanted = [1, 2]
    elif record.rolled_back_from or _now(bench) == 0:
        wanted = [3 - (_now(bench) or 1)]
    for identity in wanted:
        done = bench.run(model_uri=source(bench, identity))["result"]
        assert not done["failed"], done["msg"]
    return _now(bench)


def update(bench: Bench) -> tuple[dict[str, Any], Served, Served]:
    old = _with_history(bench)
    new = 3 - old
    return {"model_uri": source(bench, new)}, (old, 8), (new, 8)


def update_unloaded_first(bench: Bench) -> tuple[dict[str, Any], Served, Served]:
    options, old, new = update(bench)
    return {**options, "swap": "unload_first"}, old, new


def configure(bench: Bench) -> tuple[dict[str, Any], Served, Served]:
    now = served(bench)
    if now is None:
        _with_history(bench)
        now = served(bench)
    assert now is not None
    other = 4 if now[1] == 8 else 8
    return (
        {"model_uri": source(bench, now[0]), "config": {"max_batch_size": other}},
        now,
        (now[0], other),
    )


def roll_back(bench: Bench) -> tuple[dict[str, Any], Served, Served]:
    old = _with_history(bench)
    return {"state": "rolled_back"}, (old, 8), (3 - old, 8)


def remove(bench: Bench) -> tuple[dict[str, Any], Served, Served]:
    old = _with_history(bench)
    return {"state": "absent"}, (old, 8), None


_SECONDS = 1.2
SLOW = 9
"""The identity of a model that takes longer to load than it may."""


def _given_up_on(bench: Bench) -> tuple[dict[str, Any], int]:
    """How the slow model is asked for, of which a run has given up the load, and what was served
    before.
    """
    now = served(bench)
    if now and now not in ((1, 8), (2, 8)):
        bench.wipe()
    old = _with_history(bench)
    slow = {"model_uri": bench.source(SLOW, load_delay=_SECONDS)}
    gave_up = bench.run({"target": {"load_timeout": _SECONDS / 3}}, **slow)["result"]
    assert "still loading" in gave_up["msg"]
    return slow, old


def resume(bench: Bench) -> tuple[dict[str, Any], Served, Served]:
    slow, old = _given_up_on(bench)
    return slow, (old, 8), (SLOW, 8)


def take_back(bench: Bench) -> tuple[dict[str, Any], Served, Served]:
    """What is asked for is the one before; until its load the other one serves."""
    _slow, old = _given_up_on(bench)
    return {"model_uri": source(bench, old)}, (SLOW, 8), (old, 8)


OPERATIONS = {
    "create": Operation(create, 0),
    "update": Operation(update, 1),
    "rollback": Operation(roll_back, 1),
    "delete": Operation(remove, None),
    "configuration": Operation(configure, None),
    "update, unloaded first": Operation(
        update_unloaded_first, 1, only=("unload", "load"), outage=True
    ),
}
# After a load that was given up on.
AFTER_A_TIMEOUT = {
    "same deployment again": Operation(resume, 1),
    "deployment before it": Operation(take_back, 1),
}


def settled(bench: Bench, options: dict[str, Any], new: Served, retained: int | None) -> None:
    """One more run reaches the desired state, and nothing is left behind."""
    done = bench.run(**options)["result"]
    assert not done["failed"], done["msg"]
    assert served(bench) == new
    bench.check_agreement(new[0] if new else None, retained=retained)
    again = bench.run(**options)
    assert again["result"]["changed"] is False, again["result"]["actions"]
    assert again["effects"] == []


@dataclass
class Findings:
    """Of one worker, or of all together."""

    wrong: list[str] = field(default_factory=list)
    old: int = 0
    new: int = 0


def try_points(
    bench: Bench, operation: Operation, points: list[tuple[int, str]], restart: bool
) -> Findings:
    """At each point: the old state, a run that kills itself there, the server's start, and a run to
    the end.
    """
    found = Findings()
    for number, moment in points:
        options, old, new = operation.prepare(bench)
        killed = bench.run({"kill": [number, moment]}, **options)
        where = f"killed {moment} effect {number} ({' '.join(killed['effects'][-1])})"
        try:
            assert killed["code"] == -9, killed
            if restart:
                bench.crash()
            now = served(bench)
            may_be = (old, new, None) if operation.outage and not restart else (old, new)
            assert now in may_be, f"{now} is served instead of {old} or {new}"
            found.new += now == new
            found.old += now != new
            settled(bench, options, new, operation.retained)
        except AssertionError as error:
            found.wrong.append(f"{where}: {' '.join(str(error).split())[:300]}")
            bench.wipe()
    return found


def at_all_points(
    benches: Sequence[Bench], name: str, restart: bool, moments: tuple[str, ...] = ("after",)
) -> tuple[int, int, Findings]:
    """Each bench takes its share. Returns N, the number of kills and what was found."""
    operation = {**OPERATIONS, **AFTER_A_TIMEOUT}[name]
    options, _old, _new = operation.prepare(benches[0])
    # S3 tells times in seconds. Triton overlooks a change within the second of the one before, and
    # the run does more then: the points are counted in one that does not.
    time.sleep(1.1)
    whole = benches[0].run(**options)
    assert not whole["result"]["failed"], whole["result"]["msg"]
    kinds = [kind for kind, _subject in whole["effects"]]
    assert kinds, "there is no point at which to kill it"
    print(f"\n{name}: N = {len(kinds)}: {', '.join(kinds)}", flush=True)
    points = [
        (number, moment)
        for number, kind in enumerate(kinds, start=1)
        for moment in moments
        if not operation.only or kind in operation.only
    ]
    assert points, f"none of {kinds} is of {operation.only}"
    with ThreadPoolExecutor(len(benches)) as pool:
        shares = [points[index :: len(benches)] for index in range(len(benches))]
        parts = list(
            pool.map(
                lambda bench, share: try_points(bench, operation, share, restart), benches, shares
            )
        )
    together = Findings(
        [text for part in parts for text in part.wrong],
        sum(part.old for part in parts),
        sum(part.new for part in parts),
    )
    return len(kinds), len(points), together
