# SPDX-License-Identifier: Apache-2.0
"""What the deployment records want at a start, and sentences on what killed runs left."""

from __future__ import annotations

from typing import NamedTuple

from .failures import reason


class Wanted(NamedTuple):
    """Names of models to load at a start, and sentences about what does not fit."""

    names: list[str]
    warnings: list[str]


def skipped(place: object, err: Exception) -> str:
    return f"Record {place} is skipped ({reason(err)}): its model is not loaded at the start."


def not_recovered(name: str, why: object) -> str:
    return f"model '{name}': what an interrupted run left is not recovered ({why})"


def recovered(name: str, done: str | None) -> str:
    return f"model '{name}': {done or 'nothing was left to recover'}"
