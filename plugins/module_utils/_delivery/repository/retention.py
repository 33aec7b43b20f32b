# SPDX-License-Identifier: Apache-2.0
"""Which retained copies of replaced deployments are superfluous, and their removal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from ..domain.record import Record
from ..errors import RepositoryError


class RetainedCopies(Protocol):
    """What a state of either kind says of the retained copies of a model."""

    def record(self, name: str) -> Record | None: ...
    def retained_records(self, name: str) -> list[Record]: ...
    def retained_contents(self, name: str) -> dict[str, set[str]]: ...
    def remove_retained(self, name: str, keys: Iterable[str]) -> None: ...


def prune(store: RetainedCopies, name: str, keep: int | None) -> None:
    """Remove retained copies beyond the newest ``keep``, and what has no record; None keeps all.

    Where a copy's record is not understood all stay, as it may count; going back says so.
    """
    if keep is None:
        return
    try:
        records = store.retained_records(name)
    except RepositoryError:
        return
    inside = store.retained_contents(name)
    store.remove_retained(name, superfluous(records, store.record(name), inside, keep))


def usable(
    records: Sequence[Record], live: Record | None, inside: Mapping[str, set[str]]
) -> list[Record]:
    """The retained deployments whose files are there: in a copy of their own, in that of one whose
    files are the same, or in place.
    """
    whole = {record.manifest_digest for record in records if "model" in inside.get(record.key, ())}
    versions = {one for record in records for one in inside.get(record.key, ())}
    if live is not None:
        whole.add(live.manifest_digest)
        versions |= {str(version) for version in live.triton_versions}
    return [
        record
        for record in records
        if record.manifest_digest in whole or {*map(str, record.triton_versions)} <= versions
    ]


def superfluous(
    records: Sequence[Record], live: Record | None, inside: Mapping[str, set[str]], keep: int
) -> list[str]:
    """Which retained copies go; ``inside`` says what each of them holds, by its key.

    A copy whose files serve another one that is kept (only the configuration had changed between
    them, or a version was served beside others) stays until that goes.
    """
    there = usable(records, live, inside)
    kept = [record for record in there if live is None or record.key != live.went_back_to][:keep]
    needed = {record.manifest_digest for record in kept} - {live.manifest_digest if live else None}
    versions = {str(version) for record in kept for version in record.triton_versions} - {
        str(version) for version in (live.triton_versions if live else ())
    }
    gone = []
    for entry in inside:
        record = next((r for r in records if r.key == entry), None)
        serves_another = record is not None and (
            "model" in inside[entry]
            and record.manifest_digest in needed
            or inside[entry] & versions
        )
        if record not in kept and not serves_another:
            gone.append(entry)
    return gone
