# SPDX-License-Identifier: Apache-2.0
"""Python environments of models, as decisions and transactions see them; who makes them is in the
package ``environments``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence, Sized
from typing import Protocol

from .requirements import Requirements


class PlannedEnvironment(Protocol):
    """What is known before anything is resolved or installed."""

    @property
    def packages(self) -> int | None:
        """How many there are or will be; None where that is not resolved yet."""

    @property
    def digest(self) -> str | None:
        """None as for ``packages``."""

    @property
    def is_ready(self) -> bool: ...

    @property
    def sentence(self) -> str:
        """Such as "environment: 12 requirements; 41 packages"."""


class Environment(Protocol):
    """One that is there."""

    @property
    def digest(self) -> str: ...

    @property
    def python(self) -> str:
        """The path of its Python, as the server sees it."""

    @property
    def packages(self) -> Sized: ...

    @property
    def lock(self) -> str:
        """From which another host makes the same one."""

    @property
    def size(self) -> int: ...

    @property
    def version(self) -> str:
        """Of its Python."""


class Environments(Protocol):
    """Those of one host."""

    def look(self, wanted: Requirements) -> PlannedEnvironment:
        """Writes nothing, and asks no network."""

    def build(self, wanted: Requirements, lock: str | None = None) -> Environment:
        """The one that is there, or a new one."""

    def key(self, wanted: Requirements) -> str | None:
        """What hosts have in common that install the same; None where no Python is known."""

    def has_python(self, digest: str) -> bool:
        """Whether the server finds the Python that one was made with."""

    def present(self) -> Sequence[Environment]:
        """Those that are there."""

    def remove_unused(self, used: Collection[str]) -> list[str]:
        """Remove those whose digest nobody names."""
