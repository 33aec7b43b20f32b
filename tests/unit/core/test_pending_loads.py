# SPDX-License-Identifier: Apache-2.0
"""How long a load is waited for that an earlier run gave up on."""

from __future__ import annotations

import datetime
from typing import Any
from unittest.mock import Mock

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution import (
    pending_loads,
)

NOW = datetime.datetime(2026, 1, 1, 12, 0, tzinfo=datetime.timezone.utc)


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return NOW


@pytest.mark.parametrize(
    ("since", "left"),
    [
        ("2026-01-01T11:58:00+00:00", 480.0),
        ("2026-01-01T12:00:00+00:00", 600.0),
        ("2026-01-01T11:00:00+00:00", 3.0),
        ("2026-01-01T13:00:00+00:00", 600.0),  # of a clock that was wrong
        ("2026-01-01T11:58:00", 3.0),
        ("noon", 3.0),
    ],
)
def test_what_is_left_of_a_loads_time_and_seconds_at_least(
    since: str, left: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_loads.datetime, "datetime", Clock)
    server: Any = Mock(load_timeout=600.0)
    assert pending_loads.time_left(server, since) == left
    server.load_timeout = 1.0
    assert pending_loads.time_left(server, since) == 1.0
