# SPDX-License-Identifier: Apache-2.0
"""Whether the old deployment serves while the new one is loaded (``swap``). Pure.

Where it does not, each server unloads it right before its load, when everything else is in place:
the outage is as long as the load. Servers go in turn, so that the others serve meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import MissingLibrary
from .gpu_need import Free, Memory, has_no_copy, needs_of, taken_by
from .in_place import applied_in_place
from .plan import Load, Plan, Reconfigure, Step, Unload, Verify

OVERLAP: Literal["overlap"] = "overlap"
UNLOAD_FIRST: Literal["unload_first"] = "unload_first"


@dataclass(frozen=True)
class Lack:
    """Memory that is too little on one GPU.

    Attributes:
        old: what the old deployment takes of it; None where that is not known.
    """

    url: str
    gpu: str
    needed: int
    free: int
    old: int | None

    @property
    def said(self) -> str:
        return (
            f"GPU {self.gpu} of {self.url} has {in_words(self.free)} free, and the new deployment"
            f" needs about {in_words(self.needed)}"
        )


def in_words(size: int) -> str:
    """Bytes as a user reads them."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << shift:
            return f"{size / (1 << shift):.1f} {unit}"
    return f"{size} bytes"


def choose(plan: Plan, free: Free, drained: bool, taken: Free | None = None) -> Plan:
    """The same plan, which says what becomes of the old deployment, and warns of too little memory.

    Args:
        free: memory of the GPUs; empty where the metrics do not say it.
        drained: no client would notice an outage.
        taken: what the models before it in the list take of that.
    """
    if not any(isinstance(step, Load) for step in plan.steps):
        return plan
    left = _without(free, taken or {})
    needs = needs_of(plan, free)
    plan = replace(plan, gpu_needs=needs)
    replaced = _replaced(plan)
    lack = _lack(plan, needs, left)
    desired, warnings = plan.desired, []
    way: Literal["overlap", "unload_first"] = OVERLAP
    why = f"swap is {UNLOAD_FIRST}"
    if replaced and desired.swap == UNLOAD_FIRST:
        way = UNLOAD_FIRST
    elif replaced and lack and desired.swap == "auto" and drained and not desired.verify_aside:
        way, why = UNLOAD_FIRST, lack.said
    if lack:
        warnings = _warnings(lack, way, bool(replaced), desired.swap)
    plan = replace(plan, warnings=(*plan.warnings, *warnings))
    if not replaced:
        return plan
    if way == OVERLAP:
        return replace(plan, swap=OVERLAP)
    steps = _with_outage(plan.steps, replaced, why)
    after = {**plan.after, "swap": UNLOAD_FIRST}
    return replace(plan, swap=UNLOAD_FIRST, steps=steps, after=after)


def grown(plan: Plan, taken: Free) -> dict[str, Memory]:
    """What the models of a list take when this one is done too."""
    found = {url: dict(gpus) for url, gpus in taken.items()}
    replaced = _replaced(plan)
    for url, need in plan.gpu_needs.items():
        old = taken_by(plan.observed.record, url) if url in replaced else {}
        if old is None:  # what was there is taken to have been as large
            continue
        gpus = found.setdefault(url, {})
        for uuid in need.keys() | old.keys():
            gpus[uuid] = gpus.get(uuid, 0) + need.get(uuid, 0) - old.get(uuid, 0)
    return dict(found)


def _replaced(plan: Plan) -> frozenset[str]:
    """The servers on which a load makes a second copy beside one that serves."""
    if has_no_copy(plan):
        return frozenset()
    for step in plan.steps:
        if isinstance(step, Reconfigure):
            with contextlib.suppress(MissingLibrary):
                author, request = step.record.author_config, plan.desired.request
                if applied_in_place(plan.observed, step.record, author, request) is not None:
                    return frozenset()
    to_load = {url for step in plan.steps if isinstance(step, Load) for url in step.servers}
    busy = ("READY", "LOADING")
    return frozenset(
        one.url
        for one in plan.observed.served
        if one.url in to_load and any(row.state in busy for row in one.rows)
    )


def _without(free: Free, taken: Free) -> dict[str, Memory]:
    return {
        url: {uuid: room - taken.get(url, {}).get(uuid, 0) for uuid, room in gpus.items()}
        for url, gpus in free.items()
    }


def _lack(plan: Plan, needs: Free, left: Free) -> Lack | None:
    """The largest of them."""
    lacks = []
    for url, need in needs.items():
        old = taken_by(plan.observed.record, url)
        for uuid, size in need.items():
            room = max(0, left[url].get(uuid, 0))
            if size > room:
                lacks.append(Lack(url, uuid, size, room, None if old is None else old.get(uuid, 0)))
    return max(lacks, key=lambda lack: lack.needed - lack.free, default=None)


def _warnings(lack: Lack, way: str, replaces: bool, asked: str) -> list[str]:
    if not replaces:
        return [f"it may not fit: {lack.said}"]
    if lack.old is not None and lack.needed > lack.free + lack.old:
        return [
            f"it may not fit: {lack.said}, and unloading the old one frees {in_words(lack.old)}"
        ]
    if way == UNLOAD_FIRST:
        return []
    remedy = (
        "swap: unload_first unloads the old one before"
        if asked == OVERLAP
        else (
            "swap: auto unloads the old one before only on servers that are drained, and not with"
            " verify_aside"
        )
    )
    return [f"it may not fit beside the old one: {lack.said}; {remedy}"]


def _with_outage(steps: Sequence[Step], replaced: frozenset[str], why: str) -> tuple[Step, ...]:
    """Each server unloads, loads and proves on its own."""
    verified = {url for step in steps if isinstance(step, Verify) for url in step.servers}
    said = next((step.summary for step in steps if isinstance(step, Verify)), "")
    found: list[Step] = []
    for step in steps:
        if isinstance(step, Verify):
            continue
        if not isinstance(step, Load):
            found.append(step)
            continue
        for url in step.servers:
            if url in replaced:
                found.append(
                    Unload(
                        f"unload the old one from {url} before the new one is loaded ({why})",
                        (url,),
                    )
                )
            found.append(Load(f"load on {url}", (url,)))
            if url in verified:
                found.append(Verify(said, (url,)))
    return tuple(found)
