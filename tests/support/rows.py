# SPDX-License-Identifier: Apache-2.0
"""The rows of the table of faults."""

from __future__ import annotations


class Row:
    """One fault, what was observed, and (from the test's outcome) whether the engine held."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.seen: list[str] = []

    def saw(self, text: str) -> None:
        self.seen.append(" ".join(text.split()))
