# SPDX-License-Identifier: Apache-2.0
"""Two addresses that are two servers are told apart by what both say; one server, while it loads
and answers, is never taken for two.
"""

from __future__ import annotations

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.served import VersionRow
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.same_server import (
    Glimpse,
    tell_apart,
)

NAME = ("triton 2.51.0", ("classification",))


def seen(
    served: dict[str, str] | None = None,
    count: int | None = None,
    identity: tuple[str, tuple[str, ...]] | None = NAME,
) -> Glimpse:
    """``served``: states by name; ``count``: how often version 1 of m has answered."""
    index = {name: (VersionRow(1, state),) for name, state in (served or {}).items()}
    counts = None if count is None else {("m", "1"): (count, count, count * 1000)}
    return Glimpse(identity, index, counts)


READY, LOADING = {"m": "READY"}, {"m": "LOADING"}


@pytest.mark.parametrize(
    ("before", "there", "after"),
    [
        (seen(), seen(), seen()),
        (seen(READY, 3), seen(READY, 5), seen(READY, 5)),
        (seen(LOADING), seen(READY), seen(READY)),
        (seen(READY), seen(READY), seen({})),
        (seen(READY, 3, None), seen(READY, None), seen(READY, 3)),
    ],
)
def test_one_server_is_one(before: Glimpse, there: Glimpse, after: Glimpse) -> None:
    assert tell_apart(before, there, after) is None


@pytest.mark.parametrize(
    ("here", "there", "why"),
    [
        (seen(READY), seen(), "it does not serve version 1 of 'm'"),
        (seen(), seen(READY), "it serves version 1 of 'm'"),
        (seen({"m": ""}), seen({}), "it does not have 'm' in its repository"),
        (seen(READY, 3), seen(READY, 2), "other requests of 'm', version 1"),
        (seen(READY, 3), seen(READY, 4), "other requests of 'm', version 1"),
        (seen(), seen(identity=("triton 2.60.0", ())), "triton 2.60.0 instead of triton 2.51.0"),
    ],
)
def test_two_servers_are_two(here: Glimpse, there: Glimpse, why: str) -> None:
    assert why in (tell_apart(here, there, here) or "")
