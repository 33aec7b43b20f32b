# SPDX-License-Identifier: Apache-2.0
"""Which retained copies of replaced deployments are superfluous."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..domain.record import Record


def superfluous(
    records: Sequence[Record], live: Record | None, inside: Mapping[str, set[str]], keep: int
) -> list[str]:
    """Which retained copies go; ``inside`` says what each of them holds, by its key."""
    kept = [record for record in records if live is None or record.key != live.went_back_to][:keep]
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
