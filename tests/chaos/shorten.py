# SPDX-License-Identifier: Apache-2.0
"""From a walk that failed to the smallest one that fails.

Hypothesis would walk hundreds of times for it, and a walk takes seconds: steps are left out, and
options made usual, one after another, as long as the time allows.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chaos.expectation import Request


@dataclass(frozen=True)
class Step:
    """A call of a rule."""

    rule: str
    values: Mapping[str, Any]

    def __str__(self) -> str:
        values = sorted(self.values.items(), key=lambda item: item[0] == "request")
        return f"state.{self.rule}({', '.join(f'{key}={value!r}' for key, value in values)})"


@dataclass(frozen=True)
class Failure:
    """The steps of a walk, the last of which failed; the sentence and the line of the assertion."""

    steps: tuple[Step, ...]
    sentence: str
    line: tuple[str, int]

    def __str__(self) -> str:
        return "\n".join([*(f"    {step}" for step in self.steps), f"    {self.sentence}"])


def shorten(
    failure: Failure, walk: Callable[[tuple[Step, ...]], Failure | None], seconds: float
) -> Failure:
    """The smallest walk that was found to fail.

    Args:
        walk: carries steps out in a fresh place; returns how that failed, or None.
    """
    until, tried = time.monotonic() + seconds, [failure.steps]
    while time.monotonic() < until:
        smaller = next((one for one in _smaller(failure.steps) if one not in tried), None)
        if smaller is None:
            break
        tried.append(smaller)
        found = walk(smaller)
        if found and found.line == failure.line:  # and not another failure
            failure = found
    return failure


def _smaller(steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    """Steps of the same model alone, the last ones alone, then one step less, one option less."""
    *before, last = steps
    name = last.values.get("name")
    same = [step for step in before if step.values.get("name") in (name, None)]
    if name and len(same) < len(before):
        yield (*same, last)
    for few in (1, 2, 4, 8):
        if few < len(before):
            yield (*before[-few:], last)
    for number in reversed(range(len(before))):
        yield (*before[:number], *before[number + 1 :], last)
    for number in reversed(range(len(steps))):
        for simpler in _simpler(steps[number]):
            yield (*steps[:number], simpler, *steps[number + 1 :])


def _simpler(step: Step) -> Iterator[Step]:
    for key, value in step.values.items():
        if value is True:
            yield Step(step.rule, {**step.values, key: False})
        if isinstance(value, list) and len(value) > 1:
            for number in range(len(value)):
                fewer = [*value[:number], *value[number + 1 :]]
                yield Step(step.rule, {**step.values, key: fewer})
        if not isinstance(value, Request):
            continue
        for field in dataclasses.fields(value):
            known = field.name in ("state", "version", "verify", "to")
            if not known and getattr(value, field.name) != field.default:
                usual = dataclasses.replace(value, **{field.name: field.default})
                yield Step(step.rule, {**step.values, key: usual})
