# SPDX-License-Identifier: Apache-2.0
"""Which models of a list come after which: users after what they use, and on the way out before it.
Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter


@dataclass(frozen=True)
class Member:
    """One model of a list.

    Attributes:
        stays: it is to be served when the run is over.
        needs: names of models that it will use then.
        uses: names of models that it uses now.
    """

    name: str
    stays: bool
    needs: frozenset[str] = frozenset()
    uses: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Order:
    """What comes when.

    Attributes:
        after: name → the names that must be done before.
        refused: name → why nothing can be done with it, as a sentence.
        stays: the names that are to be served when the run is over.
    """

    after: Mapping[str, frozenset[str]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    stays: frozenset[str] = frozenset()

    def why_not(self, name: str, failed: Collection[str]) -> str | None:
        """Why a model cannot be changed now that others ``failed``; None where it can."""
        if name in self.refused:
            return self.refused[name]
        blocking = sorted(self.after.get(name, frozenset()) & set(failed))
        if not blocking:
            return None
        named = ", ".join(f"'{other}'" for other in blocking)
        return (
            f"it depends on {named}, which failed in this run"
            if name in self.stays
            else (f"{named} still uses it, having failed in this run")
        )

    def waits_for(self, name: str, busy: Collection[str]) -> frozenset[str]:
        """What a model comes after among the ``busy`` ones, those that need nothing done being
        passed through.
        """
        found: set[str] = set()
        waiting, seen = list(self.after.get(name, ())), set()
        while waiting:
            other = waiting.pop()
            if other not in seen:
                seen.add(other)
                found |= {other} & set(busy)
                waiting += self.after.get(other, ()) if other not in busy else ()
        return frozenset(found)

    def sequence(self) -> list[str]:
        """One order in which nothing comes before what it waits for."""
        return list(TopologicalSorter(self.after).static_order())


def order_of(members: Iterable[Member]) -> Order:
    """Models that are served in the end come after those that they need; models that go, after all
    that use them now.
    """
    listed = {member.name: member for member in members}
    stays = frozenset(name for name, member in listed.items() if member.stays)
    users: dict[str, set[str]] = {name: set() for name in listed}
    refused: dict[str, str] = {}
    for member in listed.values():
        for used in member.uses & listed.keys() - {member.name} - stays:
            users[used].add(member.name)
        for needed in sorted(member.needs & listed.keys() - stays if member.stays else ()):
            refused.setdefault(needed, f"'{member.name}' of the same list depends on it")
    after = {
        name: frozenset(member.needs & stays if member.stays else users[name])
        for name, member in listed.items()
    }
    for cycle in _cycles(after):
        for name in cycle:
            after[name] -= set(cycle)
            refused[name] = (
                f"the models depend on each other ({' → '.join(reversed(cycle))})"
                if len(set(cycle)) > 1
                else ("it is said to depend on itself")
            )
    return Order(after, refused, stays)


def _cycles(after: Mapping[str, frozenset[str]]) -> list[Sequence[str]]:
    """Each as names that begin and end with the same one, what is needed before what needs it."""
    graph = dict(after)
    found: list[Sequence[str]] = []
    while True:
        try:
            TopologicalSorter(graph).prepare()
            return found
        except CycleError as error:
            cycle: list[str] = error.args[1]
            found.append(cycle)
            graph.update({name: graph[name] - set(cycle) for name in cycle})
