# SPDX-License-Identifier: Apache-2.0
"""What has to be done for one model, as one frozen value: actions, steps, plan."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..domain.desired import DesiredModel
from ..domain.layout import Layout
from ..domain.observed import ObservedModel
from ..domain.record import Record
from ..domain.source import Source
from .versions import SideBySide


class Action(str, Enum):
    """What a step does; the executor has one function for each."""

    RECOVER = "recover"
    REPLACE = "replace"
    RECONFIGURE = "reconfigure"
    PERMIT = "permit"
    HEAL = "heal"
    LOAD = "load"
    VERIFY = "verify"
    RECORD = "record"
    ROLL_BACK = "roll back"
    UNLOAD = "unload"
    REMOVE = "remove"


@dataclass(frozen=True)
class Step:
    """One step, said as a user would say it. ``servers`` are the URLs it acts on."""

    action: Action
    summary: str
    servers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What has to be done for one model. ``before`` and ``after`` are what the diff shows;
    ``target`` is where a rollback goes.
    """

    desired: DesiredModel
    observed: ObservedModel
    source: Source | None
    layout: Layout | None
    steps: tuple[Step, ...]
    before: dict[str, Any]
    after: dict[str, Any]
    warnings: tuple[str, ...] = ()
    target: Record | None = None
    beside: SideBySide | None = None

    @property
    def changed(self) -> bool:
        return bool(self.steps)

    @property
    def actions(self) -> list[str]:
        return [step.summary for step in self.steps]

    def has(self, action: Action) -> bool:
        return any(step.action is action for step in self.steps)

    def diff(self) -> dict[str, str]:
        """The before and after texts that Ansible shows."""
        header = f"model {self.desired.name}"
        return {
            "before": _text(self.before),
            "after": _text(self.after),
            "before_header": header,
            "after_header": header,
        }


def _text(document: dict[str, Any]) -> str:
    return "".join(
        f"{key}: {value if isinstance(value, str) else json.dumps(value, sort_keys=True)}\n"
        for key, value in document.items()
    )
