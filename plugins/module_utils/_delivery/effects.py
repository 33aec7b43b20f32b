# SPDX-License-Identifier: Apache-2.0
"""A name for every call that changes something: file system, registry, Triton.

Tests register an observer to count the calls and to end the process before or after any one of
them, so that no
mutation can be added which the crash tests do not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Observer = Callable[[str, str, str], None]
_observers: list[Observer] = []


@contextmanager
def effect(kind: str, subject: object) -> Iterator[None]:
    """Wrap one mutating call. ``kind`` is a short verb ("exchange"), ``subject`` the path or name
    it acts on.
    """
    for observer in _observers:
        observer("before", kind, str(subject))
    yield
    for observer in _observers:
        observer("after", kind, str(subject))


@contextmanager
def observe(observer: Observer) -> Iterator[None]:
    """Call ``observer(moment, kind, subject)``, moment being "before" or "after", for each effect
    in this block.
    """
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)
